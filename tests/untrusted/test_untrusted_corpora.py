"""Documents, conversations and benchmark rows of strangers: read, dropped with a count, or refused; and bombs."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged, examples, files_below, odd_values, read_or_refuse, retyped, within_memory
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import BenchmarkConfig, SftSpec, SourceSpec
from mixtures.sources import formats
from mixtures.sources.benchmark_rows import read_rows
from mixtures.sources.software_heritage import Blob, _text
from mixtures.sources.source import Dropped, Source
from ray_eval.benchmarks.templates import Template

TEXTS = ["first document", "zweites\nDokument ü", "third " * 50]
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ROWS: list[dict[str, Any]] = [
    {"riddle": f"what is {i}?", "options": ["a", "b", "c"], "answer": i % 3, "more": {"text": ["x"]}} for i in range(4)
]
BENCHMARK = BenchmarkConfig(
    slug="riddles",
    display="Riddles",
    category="wordplay",
    files={"test": "riddles"},
    split="test",
    columns=("riddle", "options", "answer", "more"),
    label="answer",
    labels=(0, 1, 2),
    prompts={"plain": {"context": "{{ riddle }} {{ more.text | join }}", "candidates": "options"}},  # type: ignore[dict-item]
)


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: list[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def as_zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return bytes(out.getvalue())


def every_form(rows: list[Any]) -> dict[str, bytes]:
    lines = as_lines(rows)
    return {
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines, mtime=0),
        ".jsonl.zst": as_zstd(lines),
        ".parquet": as_parquet(rows, compression="snappy"),
    }


DOCUMENTS = {**every_form([{"text": text, "id": 1} for text in TEXTS]), ".txt": TEXTS[1].encode()}
CONVERSATIONS = every_form([{"messages": TALK}] * 3)


def read_documents(path: Path) -> None:
    source = Source("web", SourceSpec(kind="web", display="Web", files=str(path)), None)
    dropped = Dropped()
    for unit in source.units():
        for document in unit.documents(dropped):
            document.text.encode()
    json.dumps(dropped.first)


def read_conversations(path: Path) -> None:
    for unit in Source("talk", SftSpec(files=str(path)), None).units():
        for messages in unit.conversations():
            "".join(message["role"] + message["content"] for message in messages).encode()


def read_benchmark(path: Path) -> None:
    spec = BENCHMARK.model_copy(update={"files": {"test": str(path)}})
    template = Template(spec, "plain")
    rows = read_rows(None, spec)
    for number, row in zip(rows.numbers, rows.table, strict=True):
        template(row, f"{path} row {number}")


READERS: list[tuple[Callable[[Path], None], dict[str, bytes]]] = [
    (read_documents, DOCUMENTS),
    (read_conversations, CONVERSATIONS),
    (read_benchmark, {name: content for name, content in every_form(ROWS).items() if "." not in name[1:]}),
]
CASES = [pytest.param(read, form, id=f"{read.__name__}{form}") for read, forms in READERS for form in forms]
CONTENT = {(read.__name__, form): content for read, forms in READERS for form, content in forms.items()}


@pytest.mark.parametrize(("read", "form"), CASES)
@examples(20)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    read: Callable[[Path], None], form: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("f")
    path = folder / f"file{form}"
    path.write_bytes(data.draw(damaged(CONTENT[read.__name__, form])))
    error = read_or_refuse(lambda: read(path))
    assert error is None or str(path) in str(error)
    assert files_below(folder) == {path}


@pytest.mark.parametrize(("read", "rows"), [(read_conversations, [{"messages": TALK}]), (read_benchmark, ROWS)])
@pytest.mark.parametrize("form", [".jsonl", ".parquet"])
@examples(40)
@given(data=st.data())
def test_values_of_other_types_are_refused(
    read: Callable[[Path], None], rows: list[Any], form: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("f") / f"file{form}"
    changed = data.draw(retyped(rows))
    try:
        path.write_bytes(as_lines(changed) if form == ".jsonl" else as_parquet(changed))
    except (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return  # no table
    read_or_refuse(lambda: read(path))


@examples(60)
@given(odd_values)
@example("[" * 100_000)
@example("9" * 5000)
@example('{"messages": [{"role": ["user"], "content": ""}]}')
@example('{"messages": ' + "[" * 900 + "]" * 900 + "}")
@example('{"riddle": "\\ud800", "options": [1, "\\ud800"], "answer": 1e999, "more": {}}')
@example('{"riddle": "", "options": [], "answer": 123456789012345678901234567890, "more": {}}')
def test_any_line_is_dropped_or_refused(tmp_path_factory: Any, value: Any) -> None:
    path = tmp_path_factory.mktemp("f") / "file.jsonl"
    line = value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(line.encode(errors="surrogatepass") + b"\n")
    for read, _ in READERS:
        read_or_refuse(lambda read=read: read(path))  # type: ignore[misc]


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(as_parquet([{"\x1b[2Jowned\x07": "x"}]))
    with pytest.raises(DataError) as error:
        read_documents(path)
    assert "\\x1b[2Jowned\\x07" in str(error.value) and "\x1b" not in str(error.value)


# ---------------------------------------------------------------------------------------------- bombs

BIG = 8 << 20


def references(count: int) -> pa.Array:
    """One text of 8 MiB, `count` times: a few kilobytes on the disk."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * BIG]))


def bombs() -> Iterator[tuple[str, bytes]]:
    zeros = b"0" * (136 << 20)
    yield "line.jsonl.gz", gzip.compress(zeros, 1, mtime=0)
    yield "line.jsonl.zst", as_zstd(zeros)
    yield "text.txt", zeros
    talk = pa.StructArray.from_arrays([pa.array(["user"] * 200), references(200)], ["role", "content"])
    columns = {
        "documents.parquet": {"text": references(256)},
        "conversations.parquet": {"messages": pa.ListArray.from_arrays(pa.array([0, 200], pa.int32()), talk)},
        "rows.parquet": {"riddle": references(200), **{name: pa.nulls(200) for name in ("options", "answer", "more")}},
    }
    for name, table in columns.items():
        out = io.BytesIO()
        # Without Arrow's own schema the texts are plain strings, as most writers leave them.
        options: Any = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 1 << 30}
        pq.write_table(pa.table(table), out, **options)
        yield name, out.getvalue()


def test_bombs_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    for name, content in bombs():
        (tmp_path / name).write_bytes(content)
        assert len(content) < 1_000_000 or name == "text.txt"
    code = """
    import gzip, itertools
    from pathlib import Path
    import pyarrow.parquet
    from mixtures.sources.benchmark_rows import _table
    from mixtures.sources.formats import MESSAGES, TEXT, read_rows
    from mixtures.sources.software_heritage import Blob, _text
    folder = Path(sys.argv[1])
    start()
    reads = {
        "line.jsonl.gz": lambda path: list(read_rows(path, {"text": TEXT})),
        "line.jsonl.zst": lambda path: list(read_rows(path, {"text": TEXT})),
        "text.txt": lambda path: list(read_rows(path, {"text": TEXT})),
        "conversations.parquet": lambda path: list(read_rows(path, {"messages": MESSAGES})),
        "rows.parquet": _table,
        # Each of its documents is a large one, and they are read a few at a time.
        "documents.parquet": lambda path: sum(1 for _ in itertools.islice(read_rows(path, {"text": TEXT}), 60)),
    }
    for name, read in reads.items():
        try:
            print(name, read(folder / name))
        except MagicError as error:
            print(" ".join(str(error).split()))
    print(_text((folder / "line.jsonl.gz").read_bytes(), Blob("id", "utf-8")).reason)
    """
    said = within_memory(code, tmp_path, limit_mib=1100).splitlines()
    expected = (
        *["line 1 has more bytes than a document"] * 2,
        "the text has more bytes than a document",
        "a row of 1,677,7",
        "1,677,7",
        "documents.parquet 60",
        "too large",
    )
    for line, part in zip(said, expected, strict=True):
        assert part in line
    assert sum("134,217,728" in line for line in said) == 4 and "536,870,912" in said[4]


def test_what_a_parquet_file_claims_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(as_parquet([{"messages": [None] * 2000}, {"messages": TALK}]))
    monkeypatch.setattr(formats, "LIST_VALUES", 1999)
    with pytest.raises(DataError, match="lists of 2,002 values in a row group"):
        read_conversations(path)
    for dictionary in (True, False):
        path.write_bytes(as_parquet([{"text": "x" * 5000}], use_dictionary=dictionary))
        monkeypatch.setattr(formats, "PAGE_BYTES", 5003)
        with pytest.raises(DataError, match=r"a page of 5,0\d\d bytes"):
            read_documents(path)


def test_a_footer_that_would_end_the_process_is_only_refused(tmp_path: Path) -> None:
    """pyarrow 26.0.1 aborts in `RowGroupMetaData.column` where the histogram of levels has one entry too many."""
    whole = CONTENT["read_benchmark", ".parquet"]
    four, five = b"\x19\x46\0\0\0\x18", b"\x19\x56\0\0\0\0\x18"  # lists of 64-bit numbers: 0, 0, 0, 12 and one 0 more
    assert whole.count(four) == 1
    content = whole.replace(four, five)
    size = int.from_bytes(whole[-8:-4], "little") + 1
    path = tmp_path / "rows.parquet"
    path.write_bytes(content[:-8] + size.to_bytes(4, "little") + content[-4:])
    for read in (read_benchmark, read_conversations, read_documents):
        with pytest.raises(DataError, match=r"rows\.parquet"):
            read(path)


def test_objects_of_several_gzip_members_and_padding_are_read() -> None:
    blob = Blob("id", None)
    packed = gzip.compress(b"one, ") + gzip.compress(b"two")
    assert _text(packed, blob) == "one, two" == _text(packed + b"\0\0", blob)
    for bad in (b"", packed[:-1], packed + b"x", b"x", packed[:20]):
        assert getattr(_text(bad, blob), "reason", "") == "damaged object"
    assert getattr(_text(gzip.compress(b"616263"), Blob("id", "hex")), "reason", "") == "undecodable"
