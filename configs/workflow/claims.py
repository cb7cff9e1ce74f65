"""Who is at work on a unit, and how it failed: what a status shows beside the records.

In and out: <runs>/<study>/units/<unit>.lock, held locked by the process at work, which wrote into it who it is; one
that nobody holds tells that the unit was begun once. <unit>.failed: what ended it, until it is begun again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.artifacts import write_text
from configs.errors import ResourceError
from configs.workflow.records import units_dir

WAIT_S = 20.0
"""For the lock of a process that is just ending."""
POLL_S = 0.1


@dataclass(frozen=True)
class Claim:
    """Of the process at work on a unit."""

    host: str
    pid: int
    began: float
    """Seconds since 1970."""


@contextlib.contextmanager
def claim(folder: Path, unit: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Work on a unit alone; folder: <runs>/<study>, here and below.

    Raises ResourceError where another process is at work on it. On a filesystem without locks nobody is turned away.
    """
    path = _lock_file(folder, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        deadline = time.monotonic() + wait_s
        while not _locked(stream.fileno()):
            if time.monotonic() > deadline:
                stream.seek(0)
                raise ResourceError(
                    f"another process is at work on {unit} ({stream.read().strip()})",
                    where=path,
                    hint="wait for it, or end it; the same command goes on",
                )
            time.sleep(POLL_S)
        stream.truncate(0)
        stream.write(json.dumps(asdict(Claim(socket.gethostname(), os.getpid(), time.time()))))
        stream.flush()
        _failure_file(folder, unit).unlink(missing_ok=True)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def at_work(folder: Path, unit: str) -> Claim | None:
    """Who is at work on it now."""
    try:
        with _lock_file(folder, unit).open() as stream:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Claim(**json.load(stream))
    except (FileNotFoundError, ValueError, TypeError, OSError):  # none, or it is just being written
        pass
    return None


def was_begun(folder: Path, unit: str) -> bool:
    """At any time, by anybody."""
    return _lock_file(folder, unit).exists()


def note_failure(folder: Path, unit: str, message: str) -> None:
    write_text(_failure_file(folder, unit), message.rstrip() + "\n")


def failure(folder: Path, unit: str) -> str | None:
    """The message that ended a unit which nobody has begun since."""
    try:
        return _failure_file(folder, unit).read_text(errors="replace").rstrip()
    except FileNotFoundError:
        return None


def _lock_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.lock"


def _failure_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.failed"
