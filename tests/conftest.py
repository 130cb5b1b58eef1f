"""The suite runs on two processes: one thread each, or they would wait for each other's."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
