"""Whole Parquet tables that somebody else may have written, within a stated amount of memory.

In: a path. Out: an Arrow table whose every value is what its type says (UTF-8 included), or an error that names the
file. A Parquet file of a few kilobytes can stand for terabytes: pages are compressed, a value of a dictionary counts
once however often it is referred to, and a run of nulls takes no room. What a file says of its pages is looked at
before they are read, and strings stay in their dictionaries until it is known how large the table is without them.
`mixtures.sources.formats` streams corpora instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import MagicError, one_line
from configs.untrusted.checks import JSON_BYTES
from configs.untrusted.parquet_footer import read_footer

TABLE_BYTES = 4 << 30
"""Most of a table in memory."""
VALUE_BYTES = 8
"""Least memory of any value once it is read, however it is stored: a number, or a place in a list."""


@contextlib.contextmanager
def readable(path: Path, kind: type[MagicError], hint: str, form: str = "Parquet") -> Iterator[None]:
    """While pyarrow reads `path`, its errors become ours; form: what the file should be."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise kind(f"not a readable {form} file ({one_line(error)})", where=path, hint=hint) from error


def read_parquet(
    path: Path, kind: type[MagicError], *, hint: str, columns: Sequence[str] | None = None, limit: int = TABLE_BYTES
) -> pa.Table:
    """The table in `path`; columns: of all those that are there. Types are those of the file.

    Raises `kind` for a file that is damaged, no Parquet, or more than `limit` bytes in memory.
    """
    with readable(path, kind, hint), pq.ParquetFile(path) as file:
        kinds, metadata = file.schema_arrow, file.metadata
        wanted = [name for name in kinds.names if columns is None or name in columns]
        if (size := _claimed_bytes(path, wanted)) > limit:
            raise _too_large(size, path, kind, hint, limit)
    with (
        readable(path, kind, hint),
        pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=strings(metadata)) as file,
    ):
        # pyarrow cannot read several row groups at once where strings of a list stay in their dictionaries.
        groups = [file.read_row_group(number, columns=wanted) for number in range(file.num_row_groups)]
        table = pa.concat_tables(groups) if groups else file.read(columns=wanted)
        table.validate(full=True)
    if (size := dense_bytes(table)) > limit:
        raise _too_large(size, path, kind, hint, limit)
    with readable(path, kind, hint):
        plain = [
            column.cast(column.type.value_type).cast(wanted.type)
            if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(wanted.type)
            else column
            for column, wanted in zip(table.columns, map(kinds.field, wanted), strict=True)
        ]
        return pa.table(plain, names=wanted).replace_schema_metadata(kinds.metadata)


def read_schema(path: Path, kind: type[MagicError], *, hint: str) -> pa.Schema:
    """The schema of the table in `path`, with its metadata. Raises as `read_parquet`."""
    with readable(path, kind, hint):
        return pq.read_schema(path)


def metadata_of(schema: pa.Schema) -> dict[str, str]:
    """Text kept beside a table; bytes that are no UTF-8 are spelt out, Arrow's and pandas' own are left out."""
    pairs = (schema.metadata or {}).items()
    return {
        key.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
        for key, value in pairs
        if not key.startswith((b"ARROW:", b"pandas")) and len(value) <= JSON_BYTES
    }


def _claimed_bytes(path: Path, columns: Sequence[str]) -> int:
    """Bytes these columns need in memory, as the Parquet footer claims, with their dictionaries kept."""
    chunks = (chunk for group in read_footer(path) for chunk in group.chunks if chunk.column in columns)
    return sum(max(chunk.uncompressed_bytes, VALUE_BYTES * chunk.num_values) for chunk in chunks)


def dense_bytes(values: pa.Table | pa.RecordBatch | pa.ChunkedArray | pa.Array) -> int:
    """Bytes that values take once each has a string of its own, instead of a place in a dictionary.

    Raises pa.ArrowException for a place that no dictionary has: pyarrow does not look before it is followed.
    """
    if isinstance(values, (pa.Table, pa.RecordBatch)):
        return sum(dense_bytes(column) for column in values.columns)
    if isinstance(values, pa.ChunkedArray):
        return sum(dense_bytes(chunk) for chunk in values.chunks)
    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(values.dictionary).cast(pa.int64())
        return VALUE_BYTES * len(values) + int(pc.sum(lengths.take(values.indices)).as_py() or 0)
    if pa.types.is_map(values.type):
        return VALUE_BYTES * len(values) + dense_bytes(values.keys) + dense_bytes(values.items)
    if pa.types.is_struct(values.type):
        return sum(dense_bytes(field) for field in values.flatten())
    if pa.types.is_nested(values.type):
        return VALUE_BYTES * len(values) + dense_bytes(values.flatten())
    return int(values.nbytes)


def strings(metadata: pq.FileMetaData) -> list[str]:
    """Paths of the columns, at any depth, whose values can be of any length."""
    leaves = (metadata.schema.column(i) for i in range(metadata.num_columns))
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def _too_large(size: int, path: Path, kind: type[MagicError], hint: str, limit: int) -> MagicError:
    return kind(
        f"{size:,} bytes in memory, from {path.stat().st_size:,}", where=path, valid=f"at most {limit:,}", hint=hint
    )
