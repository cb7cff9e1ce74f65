"""Work that one process does at a time: it holds a lock file, and writes into the file who it is.

In and out: a lock file, which stays when the work ends. The lock goes with the process, however that ends, and no child
process keeps it. Put the file beside a folder that may be removed, not into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.artifacts import lock_file
from configs.errors import ResourceError
from configs.layout import RunFolder

POLL_S = 0.1
RUN_WAIT_S = 3.0
"""How long to wait for the lock of a training that was just killed and is being taken down."""

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextlib.contextmanager
def held(
    path: Path,
    work: str,
    *,
    wait_s: float = 0.0,
    about: Mapping[str, Any] | None = None,
    hint: str = "wait for it, or end it; the same command goes on",
) -> Iterator[None]:
    """Hold the lock file `path` while `work` (words for the message) is done.

    `about` is written into the file beside process, host and time. `wait_s` is for a process that is just ending.
    Raises ResourceError naming the process that holds the lock. On a filesystem without locks nobody is turned away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _held.add(descriptor)
    try:
        deadline = time.monotonic() + wait_s
        while not lock_file(descriptor):
            if time.monotonic() > deadline:
                other = written_in(path)
                raise ResourceError(
                    f"another process is at work on {work}" + (f": {other['pid']} on {other['host']}" if other else ""),
                    where=path,
                    hint=hint,
                )
            time.sleep(POLL_S)
        here = {"host": socket.gethostname(), "pid": os.getpid(), "began": time.time()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(here | dict(about or {})).encode(), 0)
        yield
    finally:
        if descriptor in _held:  # not in a forked child, which has closed it
            _held.remove(descriptor)
            os.close(descriptor)


def alone_in(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Work in a run folder alone: for whatever writes in it or removes it, by hand or in a study.

    Raises ResourceError as `held` does.
    """
    hint = "wait for it, or end it; --study NAME makes another run beside it"
    return held(run.lock, run.name, wait_s=RUN_WAIT_S, hint=hint)


def holder(path: Path) -> dict[str, Any] | None:
    """What the process that holds a lock file wrote into it (pid, host, began); None where nobody holds it."""
    with contextlib.suppress(OSError), path.open() as stream:  # there is none, or the filesystem knows no locks
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return written_in(path)
    return None


def written_in(path: Path) -> dict[str, Any] | None:
    """What the last holder of a lock file wrote; None where there is no such file, or it is just being written."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"pid", "host", "began"} <= found.keys() else None


def _let_go_in_child() -> None:
    """A forked child shares its parent's open files: it would hold the lock for as long as it lives."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
