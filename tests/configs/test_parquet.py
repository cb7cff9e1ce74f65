"""Parquet read without trust: the footer is that of pyarrow, the table is the one that was written, sizes are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.untrusted.parquet import dense_bytes, read_parquet
from configs.untrusted.parquet_footer import read_footer

VALUES: dict[pa.DataType, Any] = {
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(st.characters(codec="utf-8"), max_size=9),
    pa.large_string(): st.text(st.characters(codec="utf-8"), max_size=9),
    pa.string_view(): st.text(st.characters(codec="utf-8"), max_size=20),
    pa.binary(): st.binary(max_size=9),
    pa.list_(pa.string()): st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=3),
    pa.struct([("a", pa.list_(pa.int8())), ("b", pa.string())]): st.fixed_dictionaries(
        {"a": st.lists(st.integers(-128, 127), max_size=3), "b": st.none() | st.sampled_from("xyz")}
    ),
    pa.map_(pa.string(), pa.string()): st.dictionaries(st.sampled_from("xyz"), st.sampled_from("uvw"), max_size=2).map(
        lambda pairs: list(pairs.items())
    ),
    pa.list_(pa.string(), 2): st.lists(st.sampled_from("xyz"), min_size=2, max_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    columns = {
        f"c{number}": pa.array(draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows)), kind)
        for number, kind in enumerate(kinds)
    }
    return pa.table(columns)


@settings(max_examples=60, deadline=None)
@given(
    tables(),
    st.integers(1, 8),
    st.sampled_from(["none", "snappy", "zstd"]),
    st.booleans(),
    st.sampled_from(["1.0", "2.0"]),
)
def test_footer_and_table_are_those_of_pyarrow(
    tmp_path_factory: Any, table: pa.Table, row_group: int, codec: str, dictionary: bool, pages: Any
) -> None:
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=row_group,
        compression=codec,
        use_dictionary=dictionary,
        data_page_version=pages,
        write_batch_size=2,
        dictionary_pagesize_limit=8,  # after so many bytes texts are written out
    )
    metadata = pq.read_metadata(path)
    groups = read_footer(path)
    assert [group.num_rows for group in groups] == [metadata.row_group(i).num_rows for i in range(len(groups))]
    assert len(groups) == metadata.num_row_groups
    for i, group in enumerate(groups):
        for j, chunk in enumerate(group.chunks):
            theirs = metadata.row_group(i).column(j)
            name, *inner = theirs.path_in_schema.split(".")
            assert chunk[:3] == (name, bool(inner), theirs.num_values)
            assert 0 <= chunk.first_page_bytes <= chunk.uncompressed_bytes == theirs.total_uncompressed_size
    found = read_parquet(path, DataError, hint="")
    assert found.to_pylist() == pq.read_table(path).to_pylist()
    assert found.schema.names == table.schema.names
    flat = [name for name in table.schema.names if not pa.types.is_nested(table.schema.field(name).type)]
    assert found.select(flat).schema.types == pq.read_table(path).select(flat).schema.types


def test_only_the_columns_asked_for_count(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": range(10), "b": ["x" * 1000] * 10}), path)
    assert read_parquet(path, DataError, hint="", columns=["a", "none"], limit=200).column_names == ["a"]
    with pytest.raises(DataError, match="10,080 bytes in memory, from"):
        read_parquet(path, DataError, hint="", columns=["b"], limit=10_000)
    with pytest.raises(
        DataError, match=r"3,\d\d\d bytes in memory"
    ):  # as its footer says: the text once, and in the statistics
        read_parquet(path, DataError, hint="", columns=["b"], limit=1000)


def test_sizes_without_dictionaries() -> None:
    words = pa.array(["abc", None, "abc", "de"]).dictionary_encode()
    assert dense_bytes(words) == 4 * 8 + 3 + 3 + 2
    lists = pa.ListArray.from_arrays(pa.array([0, 3, 3, 4], pa.int32()), words)
    assert dense_bytes(lists) == 3 * 8 + dense_bytes(words)
    assert dense_bytes(lists.slice(2)) == 8 + 8 + 2
    assert dense_bytes(pa.StructArray.from_arrays([words, words], ["a", "b"])) == 2 * dense_bytes(words)
    beyond = pa.DictionaryArray.from_arrays(pa.array([7], pa.int32()), pa.array(["a"]), safe=False)
    with pytest.raises(pa.ArrowException):
        dense_bytes(beyond)
