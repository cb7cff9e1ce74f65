"""Being asked to end: work is saved at the next good moment, not torn where the signal happened to come.

In: SIGTERM (Slurm's at the time limit or at pre-emption, a cloud's at reclaim), SIGUSR1 (`sbatch --signal=USR1@120`) or
SIGINT (Ctrl-C, and a task that Ray cancels), sent to this process or to a torchrun, which passes it on and kills after
30 s (`torchrun --shutdown-timeout`). Out: `received` names it; a training saves a checkpoint, a driver stops its
workers, work that has nothing to save ends where it stands, and the exit code is 75. Under torchrun, SIGUSR1 needs
TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from configs.errors import Preempted

AWAITED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_received: list[int] = []


@contextmanager
def awaited() -> Iterator[None]:
    """While this lasts, the signals are noted instead of ending the process; main thread only.

    The second Ctrl-C ends it at once. A process that ignores SIGINT goes on doing so.
    """
    with _handled_by(_note):
        yield


@contextmanager
def raised() -> Iterator[None]:
    """While this lasts, the first of the signals raises Preempted wherever the work is; main thread only.

    For work that loses little by it: what it has finished is on disk, and what is half there has a temporary name. An
    error that follows the signal, as where worker processes were sent it too, is its doing. `awaited` may stand inside.
    """
    with _handled_by(_raise):
        try:
            yield
        except (_Asked, Exception) as error:
            if (name := received()) is None or isinstance(error, Preempted):
                raise
            cause = None if isinstance(error, _Asked) else error
            raise Preempted(f"{name} came; what is finished is kept", hint="the same command goes on") from cause


def received() -> str | None:
    """The name of the first signal noted, e.g. SIGTERM."""
    return signal.Signals(_received[0]).name if _received else None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in AWAITED}
    for number in AWAITED:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
        _received.clear()


class _Asked(BaseException):
    """Not an Exception: whoever catches errors of their own work must not swallow it."""


def _raise(number: int, frame: FrameType | None) -> None:
    _note(number, frame)
    if len(_received) == 1:  # a second would disturb the tidying up after the first
        raise _Asked


def _note(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
