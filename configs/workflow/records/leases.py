"""Who is at work on a unit, and how it failed: what a status shows beside the records.

In and out: <runs>/<study>/units/<unit>.lock, held locked by the process at work, which wrote into it who it is; one
that nobody holds tells that the unit was begun once. <unit>.failed: the error that ended it, until it is begun again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import read_json, write_json
from configs.runtime import locks
from configs.runtime.versions import git_commit, machine
from configs.workflow.records.records import units_dir

LOCK = "driver.lock"
"""File in <runs>/<study> that its driver holds locked."""
WAIT_S = 20.0
"""How long to wait for the lock of a process that is just ending."""


@dataclass(frozen=True)
class Lease:
    """The process at work on a unit."""

    host: str
    hardware: str
    git_commit: str | None
    """The commit of the code at work."""
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
    with locks.held(_lock_file(folder, unit), unit, wait_s=wait_s, about=_here()):
        _failure_file(folder, unit).unlink(missing_ok=True)
        yield


@functools.cache
def _here() -> dict[str, str | None]:
    return {"hardware": machine(), "git_commit": git_commit()}


def current_lease(folder: Path, unit: str) -> Lease | None:
    """The process that is at work on the unit now."""
    return _lease(locks.holder(_lock_file(folder, unit)))


def last_lease(folder: Path, unit: str) -> Lease | None:
    """The process that began the unit last, whether it is still at work or not."""
    return _lease(locks.written_in(_lock_file(folder, unit)))


def _lease(found: dict[str, Any] | None) -> Lease | None:
    """The content of a lock file; None where it is empty or of another version."""
    try:
        return Lease(**found) if found else None
    except TypeError:
        return None


def was_begun(folder: Path, unit: str) -> bool:
    """Has anybody ever begun the unit?"""
    return _lock_file(folder, unit).exists()


def write_failure(folder: Path, unit: str, message: str, final: bool) -> None:
    write_json(_failure_file(folder, unit), asdict(Failure(message.rstrip(), final)))


def read_failure(folder: Path, unit: str) -> Failure | None:
    """How a unit failed, if nobody has begun it since."""
    path = _failure_file(folder, unit)
    return Failure(**read_json(path)) if path.is_file() else None


def _lock_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.lock"


def _failure_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.failed"


@contextlib.contextmanager
def study_lock(folder: Path) -> Iterator[None]:
    """Raises ResourceError where another process drives the study in this folder."""
    with locks.held(folder / LOCK, "this study", hint="wait for it, or end it; status tells how far it is"):
        yield
