"""What a Parquet file says of its pages, read without trust and before any of them.

In: a path. Out: row groups and their column chunks. pyarrow tells the same, but of some damaged footers only by ending
the process (26.0.1: `RowGroupMetaData.column` where size statistics contradict the schema). The footer is a struct in
Thrift's compact protocol; numbers of fields are those of parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

MAGIC = b"PAR1"
PAGE_HEAD_BYTES = 16
"""Enough for the first two numbers of a page's header."""


class Chunk(NamedTuple):
    """A column in one row group."""

    column: str
    """Top-level name."""
    nested: bool
    num_values: int
    """Nulls and empty lists included."""
    uncompressed_bytes: int
    """Size of its pages."""
    first_page_bytes: int
    """Uncompressed size of the first page, which is the dictionary where there is one; 0 without rows."""


class RowGroup(NamedTuple):
    num_rows: int
    chunks: list[Chunk]


def read_footer(path: Path) -> list[RowGroup]:
    """Raises pa.ArrowInvalid for what is no footer, and OSError as any reading does."""
    with path.open("rb") as stream:
        end = stream.seek(0, 2)
        stream.seek(max(0, end - 8))
        size, magic = stream.read(4), stream.read(4)
        begin = end - 8 - int.from_bytes(size, "little")
        if magic != MAGIC or begin < len(MAGIC):
            raise pa.ArrowInvalid("it does not end as a Parquet file does")
        stream.seek(begin)
        try:
            groups = _Compact(stream.read(end - 8 - begin)).struct()[4]
            return [RowGroup(int(group[3]), [_chunk(stream, chunk[3]) for chunk in group[1]]) for group in groups]
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(f"its footer is damaged: {error!r:.100}") from None


def _chunk(stream: Any, meta: dict[int, Any]) -> Chunk:
    page = {2: 0}
    if offsets := [offset for offset in (meta.get(11), meta[9]) if offset]:
        stream.seek(min(offsets))
        page = dict(_Compact(stream.read(PAGE_HEAD_BYTES)).fields(2))
    column, *inner = (name.decode() for name in meta[3])
    return Chunk(column, bool(inner), int(meta[5]), int(meta[6]), int(page[2]))


class _Compact:
    """A reader of Thrift's compact protocol. Raises IndexError where the data end, ValueError for what is none."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        return dict(self.fields())

    def fields(self, last: int | None = None) -> Iterator[tuple[int, Any]]:
        """(number, value) of each; last: where to stop."""
        number = 0
        while number != last and (head := self._byte()):
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            # Of a field that is true or false, the kind is the value.
            yield number, head & 15 == 1 if head & 15 < 3 else self._value(head & 15)

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list()
            case 12:
                return self.struct()
        raise ValueError(f"no kind {kind} in Parquet")

    def _list(self) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        return [self._value(head & 15) for _ in range(count)]  # each takes a byte at least: the data bound it

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise IndexError("it ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
