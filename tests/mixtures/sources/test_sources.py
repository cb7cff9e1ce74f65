"""Reading local sources: every format, what is dropped with its place, what is refused, and what the refusal says."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import SftSpec, SourceSpec
from mixtures.sources.formats import CHUNK_BYTES, TEXT, read_rows
from mixtures.sources.local_files import find_globs
from mixtures.sources.source import Dropped, Source, Unit

Writer = Callable[..., Path]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def spec(**fields: Any) -> SourceSpec:
    return SourceSpec(kind="web", display="Web", **fields)


def web(root: Path | None, **fields: Any) -> Source:
    return Source("web", spec(**fields or {"hub": "org/web", "text_column": "content"}), root)


def chat(root: Path) -> Source:
    return Source("chat", SftSpec(hub="org/chat"), root)


def corpus(root: Path, name: str, content: bytes | None = None) -> Path:
    path = root / "corpora" / "web" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    return path


def texts(source: Source, dropped: Dropped | None = None) -> list[str]:
    return [document.text for unit in source.units() for document in unit.documents(dropped)]


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def not_utf8(*values: bytes) -> pa.Array:
    """A string column with bytes that are not UTF-8, as a careless writer leaves it."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


# ---------------------------------------------------------------------------------------------- files


def test_a_folder_is_read_in_name_order_whatever_its_formats(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(corpus(tmp_path, "c/part-00000.parquet"), text=["fourth", "fifth"])
    corpus(tmp_path, "a.jsonl", lines({"text": "first"}, {"text": "second"}))
    corpus(tmp_path, "b.txt", b"third\r\nof three lines\x00\n")
    corpus(tmp_path, "d.jsonl.gz", gzip.compress(lines({"text": "sixth"})))
    corpus(tmp_path, "e.JSONL.ZST", COMPRESSIONS[".jsonl.zst"](lines({"text": "seventh"})))
    corpus(tmp_path, "f.json.gz", gzip.compress(lines({"text": "eighth"})))
    for ignored in ("README.md", ".hidden.txt", ".hidden/x.txt"):
        corpus(tmp_path, ignored, b"not a document")
    units = web(tmp_path).units()
    names = ["a.jsonl", "b.txt", "c/part-00000.parquet", "d.jsonl.gz", "e.JSONL.ZST", "f.json.gz"]
    assert [unit.name for unit in units] == names
    assert [unit.size_bytes for unit in units] == [corpus(tmp_path, name).stat().st_size for name in names]
    third = "third\r\nof three lines\x00\n"
    wanted = ["first", "second", third, "fourth", "fifth", "sixth", "seventh", "eighth"]
    assert texts(web(tmp_path)) == wanted


def test_units_travel_between_processes(tmp_path: Path) -> None:
    corpus(tmp_path, "a.jsonl", lines({"text": "first"}))
    (unit,) = web(tmp_path).units()
    copy: Unit = pickle.loads(pickle.dumps(unit))
    assert copy == unit and hash(copy) == hash(unit)
    assert list(copy.documents()) == [(0, "first")]


def test_globs_may_lie_anywhere_and_keep_names_apart_from_places(tmp_path: Path) -> None:
    for root in ("one", "two"):
        for name in ("a/x.jsonl", "b/x.jsonl", "b/y.txt"):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lines({"content": f"text of {name}"}))
    for root in ("one", "two"):
        anywhere = web(None, files=str(tmp_path / root / "**" / "*.jsonl"), text_column="content")
        assert [unit.name for unit in anywhere.units()] == ["a/x.jsonl", "b/x.jsonl"]
        assert texts(anywhere) == ["text of a/x.jsonl", "text of b/x.jsonl"]
        relative = web(tmp_path / root, files=["b/*.jsonl", "a"], text_column="content")
        assert [unit.inputs() for unit in relative.units()] == [unit.inputs() for unit in anywhere.units()]
    with pytest.raises(DataError, match=r"the pattern 'b/\*' is relative"):
        web(None, files="b/*").units()
    with pytest.raises(DataError, match=r"nowhere.*: no file matches"):
        web(None, files=str(tmp_path / "nowhere*")).units()
    (tmp_path / "table.csv").write_text("x")
    with pytest.raises(DataError, match=r"table\.csv: not a format that is read here\n  valid: \.parquet, \.jsonl"):
        web(None, files=str(tmp_path / "*.csv")).units()


def test_folders_behind_links_are_found(tmp_path: Path) -> None:
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    (elsewhere / "a.txt").write_text("linked")
    corpus(tmp_path, "here").parent.joinpath("there").symlink_to(elsewhere)
    assert texts(web(tmp_path)) == ["linked"]
    assert list(find_globs(str(corpus(tmp_path, "**") / "*.txt"), None).files) == ["a.txt"]


def test_inputs_follow_content_not_path(tmp_path: Path, write_rows: Writer) -> None:
    inputs = []
    for root, text in (("a", "same"), ("b", "same"), ("c", "Same")):
        write_rows(corpus(tmp_path / root, "part-00000.parquet"), text=[text])
        inputs.append([unit.inputs() for unit in web(tmp_path / root).units()])
    assert inputs[0] == inputs[1] != inputs[2]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no data folder with corpora/"):
        web(tmp_path / "nowhere").units()
    (tmp_path / "corpora" / "books").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no folder for source 'web'\n.*found: books"):
        web(tmp_path).units()
    corpus(tmp_path, "table.csv", b"x")
    with pytest.raises(DataError, match=r"no file of source 'web'\n.*\.parquet, \.jsonl \(\.gz, \.zst\), \.txt"):
        web(tmp_path).units()
    with pytest.raises(DataError, match="source 'web' is not on the Hub"):
        web(None, folder="web").units()


# ---------------------------------------------------------------------------------------------- rows that are dropped


def test_unusable_rows_are_counted_with_their_places(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(corpus(tmp_path, "a.parquet"), text=pa.array(["kept", None, " \n", ""]))
    write_rows(corpus(tmp_path, "b.parquet"), text=not_utf8(b"kept", b"\xff\xfe", b"kept"))
    bad = [b'{"text": "kept"}', b"{", b'{"text": null}', b'{"text": 7}', b'{"other": "x"}', b'["text"]', b""]
    bad += [b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"text": "\x00"}', b'{"text": "last, without line feed"}']
    corpus(tmp_path, "c.jsonl", b"\n".join(bad))
    corpus(tmp_path, "d.txt", b"\xff\xfet\x00e\x00x\x00t\x00")  # UTF-16
    corpus(tmp_path, "e.txt", b"\n")
    dropped = Dropped()
    found = [(unit.name, *document) for unit in web(tmp_path).units() for document in unit.documents(dropped)]
    assert found == [
        ("a.parquet", 0, "kept"),
        *(("b.parquet", row, "kept") for row in (0, 2)),
        ("c.jsonl", 0, "kept"),
        ("c.jsonl", 10, "last, without line feed"),
    ]
    places = {reason: [where.partition(" (")[0] for where in wheres] for reason, wheres in dropped.first.items()}
    assert places == {
        "null": ["a.parquet row 1", "c.jsonl line 3"],
        "blank": ["a.parquet row 2", "a.parquet row 3", "c.jsonl line 7", "e.txt"],
        "not UTF-8": ["b.parquet row 1", "c.jsonl line 9", "d.txt"],
        "not JSON": ["c.jsonl line 2", "c.jsonl line 10"],
        "not text": ["c.jsonl line 4"],
        "no such field": ["c.jsonl line 5"],
        "not a JSON object": ["c.jsonl line 6"],
        "lone surrogate": ["c.jsonl line 8"],
    }
    assert dropped.counts == {reason: len(wheres) for reason, wheres in places.items()}


def test_many_unusable_rows_leave_few_examples(tmp_path: Path) -> None:
    corpus(tmp_path, "a.jsonl", lines(*[{"text": None}] * 100, {"text": "kept"}))
    dropped = Dropped()
    assert texts(web(tmp_path), dropped) == ["kept"]
    assert dropped.counts == {"null": 100} and len(dropped.first["null"]) == 5


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_other_arrow_text_types_are_text(tmp_path: Path, write_rows: Writer, kind: pa.DataType) -> None:
    write_rows(corpus(tmp_path, "a.parquet"), text=pa.array(["a", None, "b", "a"]).cast(kind))
    assert texts(web(tmp_path)) == ["a", "b", "a"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(), max_size=8), st.sampled_from(sorted(COMPRESSIONS)), st.booleans(), st.booleans())
def test_json_lines_give_back_any_text(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], suffix: str, ascii_only: bool, mark: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / f"x{suffix}"
    ends = b"\r\n" if ascii_only else b"\n"
    rows = (json.dumps({"text": value}, ensure_ascii=ascii_only).encode("utf-8") + ends for value in values)
    path.write_bytes(COMPRESSIONS[suffix]((b"\xef\xbb\xbf" if mark else b"") + b"".join(rows)))
    assert [text for (text,) in read_rows(path, {"text": TEXT})] == values


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1), st.booleans())
def test_a_text_file_is_one_document_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, text: str, mark: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "x.txt"
    mark = mark or text.startswith("\ufeff")  # only the first mark is no text
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    assert list(read_rows(path, {"text": TEXT})) == [(text,)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.text(max_size=30), max_size=40), st.integers(1, 20), st.booleans())
def test_parquet_rows_are_those_of_pyarrow(
    tmp_path_factory: pytest.TempPathFactory, values: list[str | None], row_group: int, dictionary: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.parquet"
    table = pa.table({"id": range(len(values)), "text": pa.array(values, pa.string())})
    pq.write_table(table, path, row_group_size=row_group, use_dictionary=dictionary)
    assert [text for (text,) in read_rows(path, {"text": TEXT})] == pq.read_table(path)["text"].to_pylist()


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".txt", ".parquet"])
def test_a_document_of_50_megabytes_passes(tmp_path: Path, write_rows: Writer, suffix: str) -> None:
    huge = ("A line of a very long document.\n" * (50 * 2**20 // 32)) + "its end"
    path = corpus(tmp_path, f"huge{suffix}")
    match suffix:
        case ".parquet":
            write_rows(path, text=["before", huge, "after"])
        case ".txt":
            path.write_text(huge)
        case _:
            path.write_bytes(COMPRESSIONS[suffix](lines({"text": "before"}, {"text": huge}, {"text": "after"})))
    assert texts(web(tmp_path)) == ([huge] if suffix == ".txt" else ["before", huge, "after"])


def test_lines_meet_chunks_everywhere(tmp_path: Path) -> None:
    """A line feed on either side of a chunk's border, and lines longer than a chunk."""
    frame = len(lines({"text": ""}))
    for shift in (-1, 0, 1):
        values = ["x" * (CHUNK_BYTES - frame + shift), "y" * (2 * CHUNK_BYTES), "z"]
        corpus(tmp_path, "a.jsonl", lines(*({"text": value} for value in values)))
        assert texts(web(tmp_path)) == values


# ---------------------------------------------------------------------------------------------- files that are refused


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_compressed_file_that_was_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESSIONS[suffix](lines(*({"text": f"document {n}"} for n in range(3000))))
    path = corpus(tmp_path, f"part{suffix}")
    for damaged in (*(whole[: len(whole) * cut // 40] for cut in range(40)), whole[:-1], whole + b"rest", b"plain"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"part{suffix}: not a readable (gzip|zstd) file"):
            texts(web(tmp_path))
    path.write_bytes(whole + whole)  # as `cat` joins files
    assert len(texts(web(tmp_path))) == 6000


def test_damaged_parquet_is_refused_wherever_the_damage_is(tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(corpus(tmp_path, "a.parquet"), text=[f"document {n} " + "word " * 50 for n in range(5000)])
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[2000:6000] = bytes(4000)
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", b"not parquet at all", bytes(middle)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
            texts(web(tmp_path))


def test_a_missing_column_lists_what_is_there(tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(corpus(tmp_path, "a.parquet"), body=["x"], id=[1])
    with pytest.raises(DataError, match=r"a\.parquet: no column 'text'\n.*found: body, id"):
        texts(web(tmp_path))
    path.unlink()
    corpus(tmp_path, "a.jsonl", lines({"body": "x", "id": 1}, {"body": "y"}))
    with pytest.raises(DataError, match=r"a\.jsonl: no line has the field 'text'\n.*found: body, id"):
        texts(web(tmp_path))


def test_a_column_of_numbers_is_refused(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(corpus(tmp_path, "a.parquet"), text=[1, 2])
    with pytest.raises(DataError, match=r"column 'text' holds int64\n  valid: text"):
        texts(web(tmp_path))


# ---------------------------------------------------------------------------------------------- conversations

GOOD = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]


def set_of(root: Path, write_rows: Writer, rows: list[Any], name: str) -> Path:
    path = root / "corpora" / "chat" / name
    if path.suffix == ".parquet":
        return write_rows(path, messages=rows)
    path.parent.mkdir(parents=True)
    path.write_bytes(lines(*({"messages": row, "dataset": "x"} for row in rows)))
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_conversations_round_trip(tmp_path: Path, write_rows: Writer, name: str) -> None:
    rows = [GOOD, [{"role": "system", "content": "b"}]]
    set_of(tmp_path, write_rows, rows, name)
    (unit,) = chat(tmp_path).units()
    assert list(unit.conversations()) == rows


@pytest.mark.parametrize(("name", "place"), [("a.parquet", "row 2"), ("a.jsonl", "line 3")])
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (None, "expected a list of messages, found None"),
        ([], r"expected a list of messages, found \[\]"),
        ([{"role": "user", "content": None}], "message 0 has no text content"),
        ([{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}], "message 1 has the unknown role 'bot'"),
        ([{"role": None, "content": "a"}], "message 0 has the unknown role None"),
    ],
)
def test_a_malformed_conversation_is_refused_with_its_place(
    tmp_path: Path, write_rows: Writer, name: str, place: str, row: Any, problem: str
) -> None:
    set_of(tmp_path, write_rows, [GOOD, GOOD, row], name)
    (unit,) = chat(tmp_path).units()
    with pytest.raises(DataError, match=rf"{name} {place}: messages: {problem}"):
        list(unit.conversations())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "message 0 has a lone surrogate"),
        (b'{"messages": "hello"}', "expected a list of messages, found 'hello'"),
    ],
)
def test_a_malformed_line_of_conversations_is_refused(
    tmp_path: Path, write_rows: Writer, line: bytes, problem: str
) -> None:
    path = set_of(tmp_path, write_rows, [GOOD], "a.jsonl")
    path.write_bytes(path.read_bytes() + line)
    (unit,) = chat(tmp_path).units()
    with pytest.raises(DataError, match=rf"a\.jsonl line 2: messages: {problem}"):
        list(unit.conversations())


def test_messages_of_another_type_are_refused(tmp_path: Path, write_rows: Writer) -> None:
    path = set_of(tmp_path, write_rows, ["hello"], "a.parquet")
    with pytest.raises(DataError, match=r"column 'messages' holds string\n.*a list of struct<role, content>"):
        list(chat(tmp_path).units()[0].conversations())
    path.rename(path.with_name("a.txt"))
    with pytest.raises(DataError, match=r"a\.txt: a text file cannot hold this"):
        list(chat(tmp_path).units()[0].conversations())
