"""Score files: what is refused, and that the refusal names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.scores.answers import Answers
from analysis.scores.gather import gather
from analysis.scores.score_files import TYPES, read_scores
from configs.errors import ArtifactError
from configs.layout import StudyFolder

Write = Callable[..., Path]
Row = Callable[..., dict[str, Any]]


def read(runs: Path) -> Answers:
    return gather(read_scores(StudyFolder(runs, "demo")))


def scores_file(runs: Path, name: str = "a") -> Path:
    return runs / "demo" / "scores" / "deep" / f"{name}.parquet"


def test_reads_any_depth_and_strings_with_or_without_dictionary(tmp_path: Path, writer: Write, make_row: Row) -> None:
    writer(scores_file(tmp_path), [make_row()])
    other = [make_row(checkpoint="d" * 64, mixture="V2P0")]
    path = writer(scores_file(tmp_path, "deeper/b"), other)
    plain = pq.read_table(path)
    pq.write_table(pa.table({n: plain[n].cast(t) if t == pa.string() else plain[n] for n, t in TYPES.items()}), path)
    writer(scores_file(tmp_path, ".half.tmp"), [make_row(gold=7)])  # still being written: not read
    answers = read(tmp_path)
    assert len(answers.cells) == len(answers.gold) == 2 and set(answers.cells["mixture"]) == {"V1P0", "V2P0"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 2}, "gold is not the index of a candidate"),
        ({"gold": -1}, "gold is not the index of a candidate"),
        ({"num_chars": [1]}, "num_chars and logprob_sum differ in length"),
        ({"num_tokens": [0, 1]}, "num_tokens holds 0"),
        ({"logprob_sum": [float("nan"), -1.0]}, "logprob_sum holds nan"),
        ({"logprob_sum": [0.5, -1.0]}, "logprob_sum holds 0.5"),
        ({"logprob_sum": [float("-inf"), -1.0]}, "logprob_sum holds -inf"),
        ({"logprob_sum": [-1.0]}, "fewer than two candidates"),
        ({"logprob_unconditional": [-1.0]}, "logprob_unconditional and logprob_sum differ in length"),
        ({"stage": "DPO", "recipe": "x"}, "stage is 'DPO'"),
        ({"stage": "SFT"}, "a recipe belongs to SFT"),
        ({"category": "nli"}, "category of piqa is 'nli'"),
        ({"study": "other"}, "study is 'other'"),
        ({"mixture": None}, "mixture is null"),
    ],
)
def test_impossible_row_is_refused_by_name(
    tmp_path: Path, writer: Write, make_row: Row, change: dict[str, Any], message: str
) -> None:
    path = writer(scores_file(tmp_path), [make_row(), make_row(example_id="validation/1", **change)])
    with pytest.raises(ArtifactError) as error:
        read(tmp_path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_row_number_of_the_problem(tmp_path: Path, writer: Write, make_row: Row) -> None:
    rows = [make_row(example_id=f"validation/{i}", gold=2 if i == 3 else 0) for i in range(5)]
    path = writer(scores_file(tmp_path), rows)
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=2)  # rows are counted over row groups
    with pytest.raises(ArtifactError, match="row 3"):
        read(tmp_path)


def _chunks(path: Path) -> list[Any]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    return [group.column(i) for i in range(group.num_columns)]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no column", "wrong type", "extra", "version"])
def test_damaged_file_is_refused_by_name_and_left_alone(
    tmp_path: Path, writer: Write, make_row: Row, damage: str
) -> None:
    path = writer(scores_file(tmp_path), [make_row(example_id=f"validation/{i}") for i in range(50)])
    table, raw = pq.read_table(path), path.read_bytes()
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        pq.write_table(table, path, write_page_checksum=True)
        body = bytearray(path.read_bytes())
        chunk = next(c for c in _chunks(path) if c.path_in_schema.startswith("logprob_sum"))
        body[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0x01
        path.write_bytes(bytes(body))
    elif damage == "empty":
        pq.write_table(table.slice(0, 0), path)
    elif damage == "no column":
        pq.write_table(table.drop_columns(["truncated"]), path)
    elif damage == "wrong type":
        pq.write_table(table.set_column(table.column_names.index("seed"), "seed", table["seed"].cast("int64")), path)
    elif damage == "extra":
        pq.write_table(table.append_column("mood", table["seed"]), path)
    else:
        pq.write_table(table.replace_schema_metadata({"schema_version": "2"}), path)
    found = path.read_bytes()
    with pytest.raises(ArtifactError) as error:
        read(tmp_path)
    assert str(path) in str(error.value) and path.read_bytes() == found


def test_doubled_rows_are_refused_with_both_files(tmp_path: Path, writer: Write, make_row: Row) -> None:
    first = writer(scores_file(tmp_path, "a"), [make_row()])
    second = writer(scores_file(tmp_path, "b"), [make_row()])
    with pytest.raises(ArtifactError) as error:
        read(tmp_path)
    assert str(first) in str(error.value) and str(second) in str(error.value)


def test_another_variant_of_the_same_example_is_no_double(tmp_path: Path, writer: Write, make_row: Row) -> None:
    writer(scores_file(tmp_path), [make_row(), make_row(variant="lm_eval/5shot")])
    assert len(read(tmp_path).cells) == 2


def test_two_checkpoints_in_one_place_are_refused_with_both_files(tmp_path: Path, writer: Write, make_row: Row) -> None:
    first = writer(scores_file(tmp_path, "a"), [make_row()])
    second = writer(scores_file(tmp_path, "b"), [make_row(checkpoint="d" * 64)])
    with pytest.raises(ArtifactError, match="two checkpoints were scored for the same place") as error:
        read(tmp_path)
    assert str(first) in str(error.value) and str(second) in str(error.value)


def test_one_checkpoint_in_two_places_is_refused_with_both_files(tmp_path: Path, writer: Write, make_row: Row) -> None:
    first = writer(scores_file(tmp_path, "a"), [make_row()])
    second = writer(scores_file(tmp_path, "b"), [make_row(mixture="V2P0")])
    with pytest.raises(ArtifactError, match="one checkpoint was scored for two places") as error:
        read(tmp_path)
    assert str(first) in str(error.value) and str(second) in str(error.value)


def test_rows_of_a_cell_may_come_in_any_order_and_from_several_files(
    tmp_path: Path, writer: Write, make_row: Row
) -> None:
    rows = [make_row(example_id=f"validation/{i}", gold=i % 2, logprob_sum=[-1.0 - i, -2.0]) for i in range(12)]
    writer(tmp_path / "one/demo/scores/a.parquet", rows)
    writer(tmp_path / "two/demo/scores/a.parquet", rows[7:])
    writer(tmp_path / "two/demo/scores/b.parquet", rows[6::-1])
    whole, parts = read(tmp_path / "one"), read(tmp_path / "two")
    assert whole.examples == parts.examples and len(parts.cells) == 1
    for key, values in whole.values.items():
        assert np.array_equal(values, parts.values[key], equal_nan=True)
    assert np.array_equal(whole.gold, parts.gold) and whole.fingerprint != parts.fingerprint


def test_cell_scored_on_fewer_examples_is_refused(tmp_path: Path, writer: Write, make_row: Row) -> None:
    writer(scores_file(tmp_path, "a"), [make_row(example_id=f"validation/{i}") for i in range(3)])
    short = writer(scores_file(tmp_path, "b"), [make_row(checkpoint="d" * 64, mixture="V1P1")])
    with pytest.raises(ArtifactError, match="1 examples here, the study has 3") as error:
        read(tmp_path)
    assert str(short) in str(error.value)


def test_no_score_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no score file"):
        read(tmp_path)


def test_the_scorer_writes_what_is_read_here() -> None:
    from analysis.scores.score_files import _schema_problems
    from configs.scores import SCHEMA

    assert set(SCHEMA.names) == set(TYPES) and list(_schema_problems(SCHEMA)) == []


def test_examples_are_in_the_order_of_their_rows(tmp_path: Path, writer: Write, make_row: Row) -> None:
    ids = ("validation/10", "validation/2", "test/3", "validation/x")
    writer(scores_file(tmp_path), [make_row(example_id=name) for name in ids])
    assert read(tmp_path).examples == ("test/3", "validation/x", "validation/2", "validation/10")


def test_rows_without_tokens_beside_rows_with_them(tmp_path: Path, writer: Write, make_row: Row) -> None:
    """A benchmark without bare prefixes and one without the candidates' tokens, of different numbers of candidates."""
    rows = [
        make_row(num_tokens=None, logprob_unconditional=[-1.0, -5.0]),
        make_row(benchmark="boolq", logprob_sum=[-9.0, -1.0, -2.0], num_tokens=[9, 1, 2], gold=1),
    ]
    writer(scores_file(tmp_path), rows)
    answers = read(tmp_path)
    assert list(answers.cells["benchmark"]) == ["boolq", "piqa"]
    for name, wanted in (("token", [0.0, np.nan]), ("pmi", [np.nan, 0.0]), ("sum", [1.0, 1.0])):
        assert np.array_equal(answers.values["accuracy", name], wanted, equal_nan=True), name
