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
class Lease:
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
def hold_lease(folder: Path, unit: str, wait_s: float = WAIT_S) -> Iterator[None]:
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
                other = _read_lease(stream)
                raise ResourceError(
                    f"another process is at work on {unit}" + (f": {other.pid} on {other.host}" if other else ""),
                    where=path,
                    hint="wait for it, or end it; the same command goes on",
                )
            time.sleep(POLL_S)
        stream.truncate(0)
        stream.write(json.dumps(asdict(Lease(*_here(), os.getpid(), time.time()))))
        stream.flush()
        _failure_file(folder, unit).unlink(missing_ok=True)
        yield


@functools.cache
def _here() -> tuple[str, str, str | None]:
    return socket.gethostname(), machine(), git_commit()


def current_lease(folder: Path, unit: str) -> Lease | None:
    """Who is at work on it now."""
    try:
        with _lock_file(folder, unit).open() as stream:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_lease(stream)
    except OSError:  # there is none, or no locks on this filesystem
        pass
    return None


def last_lease(folder: Path, unit: str) -> Lease | None:
    """Who began it last, at work or not."""
    try:
        with _lock_file(folder, unit).open() as stream:
            return _read_lease(stream)
    except OSError:
        return None


def _read_lease(stream: IO[str]) -> Lease | None:
    """None while it is just being written."""
    try:
        return Lease(**json.load(stream))
    except (ValueError, TypeError):
        return None


def was_begun(folder: Path, unit: str) -> bool:
    """At any time, by anybody."""
    return _lock_file(folder, unit).exists()


def write_failure(folder: Path, unit: str, message: str, final: bool) -> None:
    write_json(_failure_file(folder, unit), asdict(Failure(message.rstrip(), final)))


def read_failure(folder: Path, unit: str) -> Failure | None:
    """Of a unit which nobody has begun since."""
    path = _failure_file(folder, unit)
    return Failure(**read_json(path)) if path.is_file() else None


def _lock_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.lock"


def _failure_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.failed"


LOCK = "driver.lock"
"""In <runs>/<study>: held by the one that drives it."""


@contextlib.contextmanager
def study_lock(folder: Path) -> Iterator[None]:
    """Raises ResourceError where another process drives the study in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as stream:
        if not lock_file(stream.fileno()):
            raise ResourceError(
                "another process is at work on this study",
                where=folder,
                hint="wait for it, or end it; status tells how far it is",
            )
        yield
