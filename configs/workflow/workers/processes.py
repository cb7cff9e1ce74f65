"""Commands that several GPUs work on: started so that they end with whoever started them, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG = 1
SAVE_S = 40.0
"""Time that a training has to save when asked to end; torchrun kills its processes after 30 s."""
LOOK_S = 0.1

Command = Callable[..., list[str]]
"""(unit, options of torchrun that say how many processes, and where they meet) -> what does the unit."""


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, so that a killed driver leaves nobody at work."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run_command(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> int:
    """Run a command and return its exit code.

    If this is interrupted, the command is asked to end first, then its processes are killed.
    """
    process = subprocess.Popen(command, env=environment, preexec_fn=end_with_parent, start_new_session=True)
    started(process)
    try:
        while process.poll() is None:  # Ray interrupts between two instructions, not within a long wait
            time.sleep(LOOK_S)
        return process.returncode
    except BaseException:
        process.terminate()
        deadline = time.monotonic() + SAVE_S
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(KeyboardInterrupt):  # Ray asks again every two seconds
                time.sleep(LOOK_S)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):  # what is left of the command's own processes
            os.killpg(process.pid, signal.SIGKILL)
