"""Score files, metrics and tables of others: read, or refused by name; their words stay words where they are shown."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged, examples, files_below, read_or_refuse, within_memory
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.panel.held_out import read_lines
from analysis.panel.load import load_panel
from analysis.panel.studies import study_of_scores
from analysis.rendering.writers import as_csv, as_latex, as_markdown, as_text
from analysis.scores.gather import gather
from analysis.scores.metrics import read_described, read_metrics
from analysis.scores.score_files import TYPES, read_metadata, read_score_file, read_scores
from analysis.tables.catalogue import build_tables
from analysis.tidy.table import read_tidy, write_tidy
from configs.errors import ArtifactError, MagicError
from configs.layout import StudyFolder
from configs.metrics import COLUMNS
from ray_eval import results


def row(number: int, **given: Any) -> dict[str, Any]:
    base = {name: "x" for name, kind in TYPES.items() if kind == pa.string()}
    base |= {"study": "demo", "stage": "PT", "recipe": "", "benchmark": "riddles", "example_id": f"test/{number}"}
    numbers = {"seed": 0, "step": 10, "tokens": 1000, "gold": number % 2, "truncated": False}
    lists = {name: [1, 2] for name in ("num_tokens", "num_chars", "num_bytes")}
    return base | numbers | lists | {"logprob_sum": [-1.0, -2.0], "logprob_unconditional": None} | given


def content(rows: list[dict[str, Any]], metadata: dict[Any, Any] | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(TYPES.items()), metadata or {"schema_version": "1"}))
    pq.write_table(table, out, **options)
    return out.getvalue()


WHOLE = content([row(i) for i in range(6)], compression="snappy")


def file_of(runs: Path, data: bytes) -> Path:
    path = runs / "demo" / "scores" / "a.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@examples(60)
@given(data=st.data())
def test_a_damaged_score_file_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    runs = tmp_path_factory.mktemp("s")
    path = file_of(runs, data.draw(damaged(WHOLE)))
    for read in (
        lambda: gather(read_scores(StudyFolder(runs, "demo"))),
        lambda: read_metadata((path,)),
        lambda: results.metadata_of(results.read_scores(path)),
    ):
        error = read_or_refuse(read)
        assert error is None or str(path) in str(error)
    assert files_below(runs) == {path}


NAMES = st.text(max_size=6) | st.sampled_from(
    ("../../x", "/x", "a/b", "<script>alert(1)</script>", "\x1b[2J", "a\nb", "\\write18{id}", "=1+1", "a\0b")
)


@examples(60)
@given(
    st.sampled_from(["study", "scale", "mixture", "recipe", "benchmark", "category", "variant", "checkpoint"]), NAMES
)
def test_words_of_a_score_file_are_names(tmp_path_factory: Any, column: str, name: str) -> None:
    runs = tmp_path_factory.mktemp("s")
    stage = {"stage": "SFT"} if column == "recipe" and name else {}
    path = file_of(runs, content([row(i, **{column: name}, **stage) for i in range(3)]))
    error = read_or_refuse(lambda: read_score_file(path))
    plain = re.fullmatch(r"\w[\w.-]*", name, re.ASCII) or (column == "recipe" and not name)
    if column in ("variant", "checkpoint"):
        plain = plain or not re.search(r"[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", name)  # type: ignore[assignment]
    assert (error is None) == bool(plain)
    # Wherever the files lie, the study that they name cannot lead elsewhere.
    if column == "study":
        before = files_below(runs)
        try:
            with study_of_scores(path.parent) as study:
                assert study.path.resolve().is_relative_to(study.runs.resolve())
        except MagicError:
            pass
        assert files_below(runs) == before


@pytest.mark.parametrize("metadata", [{b"\xff": b"1"}, {b"schema_version": b"\xff"}, {"schema_version": "2"}])
def test_metadata_that_are_no_text(metadata: dict[Any, Any], tmp_path: Path) -> None:
    path = file_of(tmp_path, content([row(0), row(1)], metadata))
    read_or_refuse(lambda: read_score_file(path))
    read_or_refuse(lambda: results.read_scores(path))
    assert all(text.isprintable() for key, values in read_metadata((path,)).items() for text in (key, *values))


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, WHOLE.replace(b"riddles", b"ridd\xffes"))
    with pytest.raises(ArtifactError, match="UTF"):
        read_score_file(path)


# ---------------------------------------------------------------------------------------------- metrics and tables

TIDY = pd.DataFrame(
    [
        {"model": f"m{m}", "stage": stage, "benchmark": b, "value": (m + 1) / 9 + (0.01 if stage == "SFT" else 0)}
        for m in range(5)
        for stage in ("PT", "SFT")
        for b in ("riddles", "piqa")
    ]
)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@examples(40)
@given(data=st.data())
def test_a_damaged_tidy_table_is_read_or_refused(form: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("t")
    out = io.BytesIO()
    TIDY.to_csv(out, index=False) if form == "csv" else TIDY.to_parquet(out, index=False)
    path = folder / f"numbers.{form}"
    path.write_bytes(data.draw(damaged(out.getvalue())))

    def read() -> None:
        write_tidy(path, StudyFolder(folder / "runs", "ours"))
        read_metrics(StudyFolder(folder / "runs", "ours"))
        read_described(StudyFolder(folder / "runs", "ours"))

    error = read_or_refuse(read)
    assert error is None or str(folder) in str(error)


@examples(60)
@given(
    st.sampled_from(
        ["model", "benchmark", "group", "category", "scale", "stage", "metric", "value", "stderr", "n", "seed"]
    ),
    NAMES | st.sampled_from(("nan", "inf", "-1", "1e999", "0.5", "9" * 5000, "2147483648")),
)
@example("seed", "1e300")
@example("seed", "NAN")
def test_any_cell_is_believed_or_refused(tmp_path_factory: Any, column: str, cell: str) -> None:
    path = tmp_path_factory.mktemp("t") / "numbers.csv"
    frame = TIDY.assign(group="", category="", scale="all", metric="accuracy", stderr="", n="", seed=0).astype(object)
    frame.loc[3, column] = cell
    path.write_text(frame.to_csv(index=False), encoding="utf-8", errors="replace")
    if read_or_refuse(lambda: read_tidy(path)) is None:
        read_or_refuse(lambda: write_tidy(path, StudyFolder(path.parent, "ours")))


def write_tidy_frame(runs: Path, frame: pd.DataFrame) -> Path:
    runs.mkdir(exist_ok=True)
    frame.to_csv(runs / "numbers.csv", index=False)
    return write_tidy(runs / "numbers.csv", StudyFolder(runs, "ours"))


@examples(60)
@given(data=st.data())
def test_altered_metrics_are_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    runs = tmp_path_factory.mktemp("m")
    path = write_tidy_frame(runs, TIDY)
    table = pq.read_table(path)
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    else:
        column = data.draw(st.sampled_from(COLUMNS))
        kind = table.schema.field(column).type
        cell = data.draw(NAMES if kind == pa.string() else st.sampled_from((float("nan"), -1, float("inf"))))
        values = table[column].to_pylist()
        try:
            values[0] = cell
            place, field = table.schema.names.index(column), table.schema.field(column)
            table = table.set_column(place, field, pa.array(values, kind))
        except (pa.ArrowException, OverflowError, UnicodeError):
            return
        groups = ("{}", "[" * 99_999, "[1]", '{"m0": "\\u001b"}', '{"m0": [1]}')
        bad = {"groups": data.draw(st.sampled_from(groups))}
        metadata = {**table.schema.metadata, **{key: value.encode() for key, value in bad.items()}}
        pq.write_table(table.replace_schema_metadata(metadata), path)
    read_or_refuse(lambda: read_metrics(StudyFolder(runs, "ours")))
    read_or_refuse(lambda: read_described(StudyFolder(runs, "ours")))


@examples(40)
@given(st.lists(st.binary(max_size=12) | st.sampled_from((b"1", b"[]", b'{"step": 1}', b"[" * 5000)), max_size=4))
def test_any_metrics_jsonl_is_read_or_refused(tmp_path_factory: Any, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("j") / "metrics.jsonl"
    path.write_bytes(b"\n".join(lines))
    read_or_refuse(lambda: read_lines(path))


def test_bombs_of_scores_are_refused(tmp_path: Path) -> None:
    """A few kilobytes that stand for gigabytes: one long text in every row, and lists that are stored as one run."""
    count = 200
    long = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * (32 << 20)]))
    table = pa.Table.from_pylist([row(i) for i in range(count)], schema=pa.schema(list(TYPES.items())))
    table = table.set_column(table.schema.names.index("example_id"), "example_id", long)
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 100_000
    code = """
    from pathlib import Path
    import pandas, pyarrow.parquet
    from analysis.scores.score_files import read_score_file
    from analysis.tidy.table import read_tidy
    from ray_eval.results import read_scores
    path = Path(sys.argv[1])
    start()
    for read in (read_score_file, read_scores, read_tidy):
        try:
            read(path)
        except MagicError as error:
            print(" ".join(str(error).split()))
    """
    said = within_memory(code, path, limit_mib=400).splitlines()
    assert len(said) == 3 and all("6,710,9" in line and "bytes in memory" in line for line in said)


# ---------------------------------------------------------------------------------------------- what people see

EVIL = '<script>alert(1)</script><img src=x onerror=alert(1)>"&\\write18{id}|[a](javascript:alert(1))'


class Elements(HTMLParser):
    """Names of the elements of a page, and its attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.handlers += [
            name for name, value in attrs if name.startswith("on") or (value or "").strip().startswith("javascript:")
        ]


@pytest.fixture(scope="session")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose models, benchmarks, groups and categories are called what nobody should be called."""
    runs = tmp_path_factory.mktemp("evil")
    frame = TIDY.assign(model=TIDY["model"] + EVIL, group=EVIL, category=EVIL)
    frame["benchmark"] = ["riddles" + EVIL if b == "riddles" else "puzzles" + EVIL for b in frame["benchmark"]]
    write_tidy_frame(runs, frame)
    return runs


def test_words_stay_words_in_tables(evil: Path) -> None:
    tables = build_tables(load_panel(StudyFolder(evil, "ours")))
    shown = [table for table in tables if any(EVIL in word for row in table.rows for word in row.keys)]
    seen = 0
    for table in shown:
        cells = "".join(line for line in as_markdown(table).splitlines() if line.startswith("|"))
        assert not re.search(r"(?<!\\)(<script|\]\(javascript)", cells)
        latex = "".join(line for line in as_latex(table).splitlines() if not line.startswith("%"))
        assert "\\write" not in latex
        seen += latex.count(r"\textbackslash{}write18\{id\}")
        assert EVIL in " ".join(cell for line in csv.reader(io.StringIO(as_csv(table))) for cell in line)
        assert not re.search(r"[\0-\x08\x0b-\x1f\x7f]", as_text(table))
    assert seen


def test_words_stay_words_in_the_report(evil: Path) -> None:
    from analysis.report.page import build_report

    page = build_report(StudyFolder(evil, "ours")).read_text()
    assert "&lt;script&gt;alert(1)" in page
    found = Elements()
    found.feed(page)
    assert (found.scripts, found.images, found.handlers) == (2, 0, [])  # its own two scripts
    for figure in (evil / "ours/report").rglob("*.svg"):
        drawn = Elements()
        drawn.feed(figure.read_text())
        assert (drawn.scripts, drawn.images, drawn.handlers) == (0, 0, [])


def test_messages_show_control_characters_spelt_out(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    TIDY.assign(**{"\x1b]0;owned\x07": 1}).to_csv(path, index=False)
    with pytest.raises(ArtifactError) as error:
        read_tidy(path)
    assert "\\x1b]0;owned\\x07" in str(error.value) and str(error.value).replace("\n", "").isprintable()
    long = ArtifactError("x" * 10**6)
    assert len(str(long)) < 11_000 and "990,000 characters more" in str(long)
