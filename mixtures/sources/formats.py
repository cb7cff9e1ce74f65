"""Formats of corpora: Parquet, JSON lines (plain, gzip, zstd) and plain text, streamed in constant memory.

In: a file and the columns that are wanted. Out: its rows as tuples of those columns. A value that is no document comes
as `Unusable` with its reason, so that the rows after it keep their numbers; a file that is damaged as a whole
(truncated, wrong format) is refused by name.

Text is taken byte for byte: null bytes, carriage returns and every other character stay. Only a byte-order mark at the
start of a .txt or JSON lines file is removed, because it marks the encoding and is no part of the text.

No value is larger than `configs.untrusted.checks.DOCUMENT_BYTES` once it is decompressed: a file that holds one is
refused before it is in memory.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.untrusted.checks import DOCUMENT_BYTES, parse_json
from configs.untrusted.parquet import dense_bytes, readable, strings
from configs.untrusted.parquet_footer import RowGroup, read_footer

ROLES = {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"}
"""Role of a message -> the special token that opens it."""

CHUNK_BYTES = 1 << 20
BATCH_BYTES = 8 << 20
"""Uncompressed size of the rows that are decoded at a time."""
BATCH_ROWS = 256
"""At most: a dictionary page, which counts once, can hold a megabyte for every row."""
PAGE_BYTES = 2 * DOCUMENT_BYTES
"""Most of a column chunk's first page; writers begin another after a megabyte, and a value."""
LIST_VALUES = 50_000_000
"""Most values of a column of lists in a row group: a run of nulls is stored in a few bytes."""
DAMAGED = "it is truncated or damaged: copy it again"


class Unusable(NamedTuple):
    """Stands for a value that is no document. `reason` is counted; `detail` says more about this one."""

    reason: str
    detail: str = ""


class Kind(NamedTuple):
    """What a column must hold: for messages, and as a test of its Arrow type."""

    name: str
    fits: Callable[[pa.DataType], bool]


Columns = Mapping[str, Kind]
Row = tuple[Any, ...]
"""A value or `Unusable` for each wanted column."""


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def list_of(*fields: str) -> Kind:
    """A list of records that have at least these fields."""

    def fits(kind: pa.DataType) -> bool:
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
            return False
        return set(fields) <= {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}

    return Kind(f"a list of struct<{', '.join(fields)}>", fits)


TEXT = Kind("text", _is_text)
MESSAGES = list_of("role", "content")


def format_of(path: Path) -> str | None:
    """The ending that names its format; None where it is read by none."""
    return next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)


def read_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Raises DataError naming the file where it is damaged or lacks a column in every row."""
    suffix = format_of(path)
    assert suffix is not None, "only readable files are found"
    return READERS[suffix](path, columns)


# ---------------------------------------------------------------------------------------------- Parquet


def parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    with readable(path, DataError, DAMAGED):
        metadata, groups = pq.read_metadata(path), read_footer(path)
        # Texts of lists stay in their dictionaries until it is known how long they are in all.
        inner = [leaf for leaf in strings(metadata) if "." in leaf and leaf.partition(".")[0] in columns]
        # Buffered: pages of a column chunk are read as they are needed, however large its row group.
        parquet = pq.ParquetFile(path, metadata=metadata, buffer_size=CHUNK_BYTES, read_dictionary=inner)
        schema = parquet.schema_arrow
    with parquet:
        check_columns(schema, columns, path)
        for number, group in enumerate(groups):
            rows = _batch_rows(path, group, columns)
            batches = parquet.iter_batches(batch_size=rows, row_groups=[number], columns=list(columns))
            while True:
                with readable(path, DataError, DAMAGED):
                    batch = next(batches, None)
                if batch is None:
                    break
                if inner:
                    _check_size(batch, path)
                yield from arrow_rows(batch, columns)


def check_columns(schema: pa.Schema, columns: Columns, where: object) -> None:
    """Raises DataError for a column that is missing or of another kind."""
    for name, kind in columns.items():
        if name not in schema.names:
            raise DataError(f"no column {name!r}", where=where, valid=f"found: {', '.join(schema.names)}")
        if not kind.fits(schema.field(name).type):
            raise DataError(f"column {name!r} holds {schema.field(name).type}", where=where, valid=kind.name)


def arrow_rows(batch: pa.RecordBatch | pa.Table, columns: Columns) -> Iterator[Row]:
    return zip(*(_values(batch.column(name)) for name in columns), strict=True)


def _values(column: pa.Array | pa.ChunkedArray) -> Iterator[Any]:
    """Python values of a column. pyarrow does not check UTF-8, so a bad value is found here, alone."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        for value in column.cast(pa.large_binary()).to_pylist():
            yield None if value is None else decoded(value)
        return
    for scalar in column:
        try:
            yield scalar.as_py()
        except UnicodeDecodeError:
            yield Unusable("not UTF-8")


def _batch_rows(path: Path, group: RowGroup, columns: Columns) -> int:
    """Rows of about BATCH_BYTES, so that neither large documents nor large row groups fill the memory.

    Raises DataError where the file itself says that they do.
    """
    wanted = [chunk for chunk in group.chunks if chunk.column in columns]
    size = sum(chunk.uncompressed_bytes for chunk in wanted)
    rows = min(BATCH_ROWS, BATCH_BYTES * group.num_rows // max(1, size))
    for chunk in wanted:
        if chunk.first_page_bytes > PAGE_BYTES:
            raise too_large(path, f"a page of {chunk.first_page_bytes:,} bytes", PAGE_BYTES)
        if chunk.nested and chunk.num_values > LIST_VALUES:
            raise too_large(path, f"lists of {chunk.num_values:,} values in a row group", LIST_VALUES)
        # A value of the dictionary may be as large as its page, and every row may refer to it.
        rows = min(rows, PAGE_BYTES // max(1, chunk.first_page_bytes))
    return max(1, rows)


def _check_size(batch: pa.RecordBatch, path: Path) -> None:
    """Refuse a row that is larger than any document once its texts are written out."""
    with readable(path, DataError, DAMAGED):
        if dense_bytes(batch) > DOCUMENT_BYTES:
            largest = max(dense_bytes(batch.slice(row, 1)) for row in range(len(batch)))
            if largest > DOCUMENT_BYTES:
                raise too_large(path, f"a row of {largest:,} bytes")


def too_large(path: Path, what: str, limit: int = DOCUMENT_BYTES) -> DataError:
    hint = "where such a document is meant, cut it; else the file is a decompression bomb"
    return DataError(what, where=path, valid=f"at most {limit:,}", hint=hint)


# ---------------------------------------------------------------------------------------------- lines and text


def json_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """One object a line. A line that is none is `Unusable`; a field that no line has is refused, like a column."""
    missing = Unusable("no such field")
    lines = lacking = 0
    found: list[str] = []
    for line in _lines(path):
        lines += 1
        value = _parsed(line)
        if isinstance(value, dict):
            row = tuple(value.get(name, missing) for name in columns)
            if missing in row:
                lacking += 1
                found = found or list(value)
        else:
            row = (value,) * len(columns)
        yield row
    if lines and lacking == lines:
        raise DataError(
            f"no line has the field {' or '.join(map(repr, columns))}", where=path, valid=f"found: {', '.join(found)}"
        )


def _parsed(line: bytes) -> dict[str, Any] | Unusable:
    text = decoded(line)
    if isinstance(text, Unusable):
        return text
    if not text.strip():
        return Unusable("blank")
    try:
        value = parse_json(text)
    except ValueError as error:
        return Unusable("not JSON", str(error))
    return value if isinstance(value, dict) else Unusable("not a JSON object")


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their end, which is a line feed and nothing else."""
    head: list[bytes] = []
    size = number = 0
    for chunk in _chunks(path):
        first, *rest = chunk.split(b"\n")
        head.append(first)
        size += len(first)
        if size > DOCUMENT_BYTES:
            raise too_large(path, f"line {number + 1} has more bytes than a document")
        if rest:
            yield b"".join(head)
            yield from rest[:-1]
            head, size, number = [rest[-1]], len(rest[-1]), number + len(rest)
    if last := b"".join(head):
        yield last


def _chunks(path: Path) -> Iterator[bytes]:
    """The content, decompressed as the file's name says, without a byte-order mark."""
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    form = codec or "text"
    with readable(path, DataError, DAMAGED, form):
        stream = pa.OSFile(str(path))
        if codec:
            if not stream.size():
                raise OSError("it is empty")  # which the decompressor takes for no content
            stream = pa.CompressedInputStream(stream, codec)
    with stream:
        start = True
        while True:
            with readable(path, DataError, DAMAGED, form):
                chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk.removeprefix(codecs.BOM_UTF8) if start else chunk
            start = False


def text_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """The whole file is one document."""
    (kind,) = columns.values()
    if kind is not TEXT:
        raise DataError("a text file cannot hold this", where=path, valid=f"{kind.name}, in Parquet or JSON lines")
    parts, size = [], 0
    for chunk in _chunks(path):
        parts.append(chunk)
        size += len(chunk)
        if size > DOCUMENT_BYTES:
            raise too_large(path, "the text has more bytes than a document")
    yield (decoded(b"".join(parts)),)


def decoded(value: bytes) -> str | Unusable:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return Unusable("not UTF-8", f"byte {error.start}")


READERS: dict[str, Callable[[Path, Columns], Iterator[Row]]] = {
    ".parquet": parquet_rows,
    ".jsonl": json_rows,
    ".jsonl.gz": json_rows,
    ".jsonl.zst": json_rows,
    ".json.gz": json_rows,  # JSON lines by the custom of Dolma
    ".txt": text_rows,
}
