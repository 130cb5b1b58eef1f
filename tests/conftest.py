"""The suite runs on two processes: one thread each, or they would wait for each other's; and no test is judged by its
seconds, hypothesis's examples included. A run started in the background of a script has Ctrl-C ignored, and so would
all that it starts: the tests that send it want what a terminal gives."""

import os
import signal

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
