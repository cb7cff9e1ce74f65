"""The files of one part of token shards, written in large blocks and hashed on the way.

In: a unit's documents as ids. Out: .bin, .idx and .rows.npy (`mixtures.tokens.shards`), each under its name only when
it is whole and on the disk, and what they hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import fsync
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixtures.tokens.shards import KINDS, ROWS_DTYPE, id_dtype, index_bytes, part_name
from mixtures.tokens.tokenizer import Tokenizer

BLOCK_TOKENS = 2**20
"""Ids gathered before they are written: large writes, little memory."""


@dataclass(frozen=True)
class Side:
    """What one side of a part or of a source holds."""

    documents: int
    tokens: int
    utf8_bytes: int
    """UTF-8 bytes of the text."""
    eods: int
    min_id: int | None
    """None where there is no document."""
    max_id: int | None
    files: dict[str, dict[str, Any]]
    """Name -> {bytes, sha256}."""

    @classmethod
    def sum(cls, sides: Iterable[Side]) -> Side:
        sides = list(sides)
        ids = [(side.min_id, side.max_id) for side in sides if side.min_id is not None and side.max_id is not None]
        return cls(
            documents=sum(side.documents for side in sides),
            tokens=sum(side.tokens for side in sides),
            utf8_bytes=sum(side.utf8_bytes for side in sides),
            eods=sum(side.eods for side in sides),
            min_id=min((low for low, _ in ids), default=None),
            max_id=max((high for _, high in ids), default=None),
            files={name: entry for side in sides for name, entry in side.files.items()},
        )


class PartFiles(contextlib.AbstractContextManager["PartFiles"]):
    """The three files of a part in one folder; none of them where no document comes."""

    def __init__(self, folder: Path, number: int, tokenizer: Tokenizer) -> None:
        self.tokens = 0
        self._path = folder / part_name(number)
        self._eod = np.array([tokenizer.eod])
        self._dtype = id_dtype(tokenizer.vocab_size)
        self._bin: _HashingFile | None = None
        self._pending: list[npt.NDArray[Any]] = []
        self._pending_rows: list[int] = []
        self._pending_tokens = 0
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._rows: list[npt.NDArray[Any]] = []
        self._utf8_bytes = self._eods = 0
        self._min_id, self._max_id = 2**31, -1

    def add(self, row: int, ids: npt.NDArray[Any], utf8_bytes: int) -> None:
        """Append a document; its end-of-document token follows."""
        self._pending.append(ids)
        self._pending_rows.append(row)
        self._pending_tokens += len(ids) + 1
        self.tokens += len(ids) + 1
        self._utf8_bytes += utf8_bytes
        if self._pending_tokens >= BLOCK_TOKENS:
            self._flush()

    def finish(self) -> Side:
        """Write what is left and give the files their names."""
        self._flush()
        files: dict[str, dict[str, Any]] = {}
        lengths = np.concatenate([np.empty(0, dtype=np.int32), *self._lengths])
        if self._bin is not None:
            rows = io.BytesIO()
            np.save(rows, np.concatenate(self._rows))
            # Not getbuffer(): Python 3.12.1 crashes when it collects such a buffer, as after an error in this frame.
            contents = (None, index_bytes(lengths, self._dtype), rows.getvalue())
            for kind, content in zip(KINDS, contents, strict=True):
                path = self._path.with_suffix(kind)
                if content is None:
                    files[path.name] = self._bin.finish()
                else:
                    with _HashingFile(path) as file:
                        file.write(content)
                        files[path.name] = file.finish()
        known = len(lengths) > 0
        return Side(
            documents=len(lengths),
            tokens=self.tokens,
            utf8_bytes=self._utf8_bytes,
            eods=self._eods,
            min_id=self._min_id if known else None,
            max_id=self._max_id if known else None,
            files=files,
        )

    def _flush(self) -> None:
        if not self._pending:
            return
        pieces = [piece for ids in self._pending for piece in (ids, self._eod)]
        block = np.concatenate(pieces, dtype=self._dtype, casting="unsafe")
        lengths = np.fromiter((len(ids) + 1 for ids in self._pending), dtype=np.int32, count=len(self._pending))
        rows = np.empty(len(lengths), dtype=ROWS_DTYPE)
        rows["row"] = self._pending_rows
        rows["crc32"] = list(checksums(block, lengths))
        if self._bin is None:
            self._bin = _HashingFile(self._path.with_suffix(".bin"))
        self._bin.write(block.data)
        self._lengths.append(lengths)
        self._rows.append(rows)
        self._eods += int(np.count_nonzero(block == self._eod))
        self._min_id = min(self._min_id, int(block.min()))
        self._max_id = max(self._max_id, int(block.max()))
        self._pending, self._pending_rows, self._pending_tokens = [], [], 0

    def __exit__(self, *_: object) -> None:
        if self._bin is not None:
            self._bin.close()


def checksums(ids: npt.NDArray[Any], lengths: npt.NDArray[np.int32]) -> Iterator[int]:
    """CRC-32 of the bytes of each document."""
    start = 0
    for length in lengths.tolist():
        yield zlib.crc32(ids[start : start + length].data)
        start += length


class _HashingFile(contextlib.AbstractContextManager["_HashingFile"]):
    """A file under a temporary name, hashed while it is written; `finish` syncs it and gives it its name."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        self._stream = self._temporary.open("wb")
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, block: memoryview | bytes) -> None:
        self._stream.write(block)
        self._digest.update(block)
        self._bytes += memoryview(block).nbytes

    def finish(self) -> dict[str, Any]:
        """The file's entry in a manifest."""
        self._stream.flush()
        fsync(self._stream.fileno())
        self._stream.close()
        self._temporary.replace(self._path)
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Remove it unless it is finished."""
        with contextlib.suppress(OSError):  # a full disk, already on its way up
            self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()
