"""Reading pieces of more files than a process may have open.

In: a file, a place and a size. Out: the bytes there. At most OPEN_FILES files of all that are read here stay open; the
one that was read longest ago is closed for the next. Nothing is mapped: Linux allows a process 65,530 maps and commonly
1,024 descriptors, and a corpus may have more files than either.
"""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path

from configs.errors import ArtifactError


def _at_most() -> int:
    """A quarter of the descriptors that this process may have: sockets, libraries and caches need some, too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(8, min(4096, soft // 4))


OPEN_FILES = _at_most()
HINT = "delete the source's folder and rerun"


class PieceReader:
    """One file, opened when it is read. Threads and forked processes may share a reader: it has no position."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset`. Raises ArtifactError where the file ends before that, or has gone."""
        descriptor = _opened(self)
        found = os.pread(descriptor.number, size, offset)
        while len(found) < size:  # a signal may cut a read short, and some file systems do
            more = os.pread(descriptor.number, size - len(found), offset + len(found))
            if not more:
                raise ArtifactError("it ends before the last document of its index", where=self.path, hint=HINT)
            found += more
        return found


class _Descriptor:
    """An open file; it is closed when nobody holds this object, so that no reader in another thread loses it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(maxsize=OPEN_FILES)
def _opened(reader: PieceReader) -> _Descriptor:
    """By reader, not by path: a folder that was made again has new readers, and new files."""
    try:
        return _Descriptor(reader.path)
    except FileNotFoundError:
        raise ArtifactError("file is missing", where=reader.path, hint=HINT) from None
