"""The suite runs on two processes: one thread each, or they would wait for each other's; and no test is judged by its
seconds, hypothesis's examples included."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
