"""Lets the threads of the transport come to rest before the interpreter ends.

They hand results over by calling into Python. A thread that is in the middle of that when the interpreter begins to end is
ended by it, which Rust takes for a fault: the process aborts, after all work was done. Nothing of the transport can be asked
to stop its threads, so this waits until none of them wants to run.
"""

from __future__ import annotations

import atexit
import threading
import time
from pathlib import Path

# A thread that waits for the interpreter gets it in a pause, and one that the system has put off shows as running.
_PAUSE = 0.001
_QUIET_LOOKS = 3
_LIMIT = 1.0

_THREADS = Path("/proc/self/task")


def settle() -> None:
    """Wait until no other thread runs, for a second at most."""
    end = time.monotonic() + _LIMIT
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        time.sleep(_PAUSE)
        quiet = 0 if _others_run() else quiet + 1


def _others_run() -> bool:
    own = str(threading.get_native_id())
    try:
        for thread in _THREADS.iterdir():
            # "PID (NAME) STATE ...", and the name may have anything in it.
            if thread.name != own and (thread / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    except (OSError, IndexError):
        return False  # a thread has ended meanwhile, or the system does not tell: the pauses must do
    return False


# Registered when the transport is first used. What was registered before runs later, as what closes forgotten clients may be:
# that calls `settle` too.
atexit.register(settle)
