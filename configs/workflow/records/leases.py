"""Who is at work on a unit, and how it failed: what a status shows beside the records.

In and out: <runs>/<study>/units/<unit>.lock, held locked by the process at work, which wrote into it who it is; one
that nobody holds tells that the unit was begun once. <unit>.failed: the error that ended it, until it is begun again.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from configs.artifacts import lock_file, read_json, write_json
from configs.errors import ResourceError
from configs.runtime.versions import git_commit, machine
from configs.workflow.records.records import units_dir

WAIT_S = 20.0
"""For the lock of a process that is just ending."""
POLL_S = 0.1


@dataclass(frozen=True)
class Claim:
    """Of the process at work on a unit."""

    host: str
    hardware: str
    git_commit: str | None
    """Of the code at work."""
    pid: int
    began: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Failure:
    """How a unit ended."""

    message: str
    final: bool
    """A person must mend something; otherwise it may pass at another time or place."""


@contextlib.contextmanager
def claim(folder: Path, unit: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Work on a unit alone; folder: <runs>/<study>, here and below.

    Raises ResourceError where another process is at work on it. On a filesystem without locks nobody is turned away.
    """
    path = _lock_file(folder, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        deadline = time.monotonic() + wait_s
        while not lock_file(stream.fileno()):
            if time.monotonic() > deadline:
                stream.seek(0)
                other = _claim_in(stream)
                raise ResourceError(
                    f"another process is at work on {unit}" + (f": {other.pid} on {other.host}" if other else ""),
                    where=path,
                    hint="wait for it, or end it; the same command goes on",
                )
            time.sleep(POLL_S)
        stream.truncate(0)
        stream.write(json.dumps(asdict(Claim(*_here(), os.getpid(), time.time()))))
        stream.flush()
        _failure_file(folder, unit).unlink(missing_ok=True)
        yield


@functools.cache
def _here() -> tuple[str, str, str | None]:
    return socket.gethostname(), machine(), git_commit()


def at_work(folder: Path, unit: str) -> Claim | None:
    """Who is at work on it now."""
    try:
        with _lock_file(folder, unit).open() as stream:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _claim_in(stream)
    except OSError:  # there is none, or no locks on this filesystem
        pass
    return None


def last_claim(folder: Path, unit: str) -> Claim | None:
    """Who began it last, at work or not."""
    try:
        with _lock_file(folder, unit).open() as stream:
            return _claim_in(stream)
    except OSError:
        return None


def _claim_in(stream: IO[str]) -> Claim | None:
    """None while it is just being written."""
    try:
        return Claim(**json.load(stream))
    except (ValueError, TypeError):
        return None


def was_begun(folder: Path, unit: str) -> bool:
    """At any time, by anybody."""
    return _lock_file(folder, unit).exists()


def note_failure(folder: Path, unit: str, message: str, final: bool) -> None:
    write_json(_failure_file(folder, unit), asdict(Failure(message.rstrip(), final)))


def failure(folder: Path, unit: str) -> Failure | None:
    """Of a unit which nobody has begun since."""
    path = _failure_file(folder, unit)
    return Failure(**read_json(path)) if path.is_file() else None


def _lock_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.lock"


def _failure_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.failed"
