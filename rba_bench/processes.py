"""Processes that a command starts to share its work."""

import os
import signal
import threading
from multiprocessing import parent_process


def start_worker() -> None:
    """Make this process a worker of one core: Ctrl-C is its parent's business, and it ends if its parent was killed.

    Threads of several workers that wait for each other make all of them many times slower.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # for what is loaded from now on
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
