"""Every metric against a row-by-row reference, and metrics.parquet as an artefact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from score_rows import row, write_rows
from sklearn.metrics import f1_score, roc_auc_score

from analysis.scores.gather import gather
from analysis.scores.measures import select
from analysis.scores.metrics import compute, read_metrics, write_metrics
from analysis.scores.score_files import read_scores
from analysis.stats.calibration import softmax_and_nll
from analysis.stats.temperature import fold_of
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from configs.metrics import COLUMNS

CONFIDENCES = ("confidence", "confidence_scaled", "confidence_common_scaled")
Write = Callable[..., Path]
Row = Callable[..., dict[str, Any]]


def cell(frame: pd.DataFrame, metric: str, normalisation: str = "sum", **where: Any) -> pd.Series:
    keep = (frame["metric"] == metric) & (frame["normalisation"] == normalisation)
    for name, value in where.items():
        keep &= frame[name] == value
    (index,) = np.flatnonzero(keep)
    return frame.iloc[index]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Two checkpoints, one benchmark with three and four candidates; by hand below."""
    runs = tmp_path_factory.mktemp("runs")
    shared: dict[str, Any] = {"benchmark": "arc_easy", "category": "science"}
    rows = [
        # sum picks 1, char picks 2 (-6/12 = -.5), token picks 2 (-6/6 = -1), byte picks 0, pmi picks 2 (-6+9 = 3)
        row(
            **shared,
            example_id="test/0",
            gold=2,
            logprob_sum=[-5.0, -4.0, -6.0],
            num_chars=[5, 4, 12],
            num_tokens=[2, 2, 6],
            num_bytes=[50, 4, 12],
            logprob_unconditional=[-4.0, -3.0, -9.0],
        ),
        # a tie of 0 and 3: the lowest index is chosen
        row(
            **shared,
            example_id="test/1",
            gold=0,
            logprob_sum=[-2.0, -3.0, -8.0, -2.0],
            num_chars=[1, 1, 1, 1],
            logprob_unconditional=[-1.0, -9.0, -1.0, -1.0],
        ),
        row(
            **shared,
            example_id="test/2",
            gold=2,
            logprob_sum=[-1.0, -7.0, -7.0],
            num_chars=[1, 7, 7],
            logprob_unconditional=[-1.0, -1.0, -1.0],
        ),
    ]
    write_rows(runs / "demo/scores/a.parquet", rows)
    write_rows(
        runs / "demo/scores/b.parquet",
        [{**r, "checkpoint": "d" * 64, "mixture": "V1P1", "variant": "lm_eval/1shot", "gold": 1} for r in rows],
    )
    return compute(gather(read_scores(StudyFolder(runs, "demo"))))


@pytest.mark.parametrize(
    ("normalisation", "right", "ties"),
    [
        ("sum", [0, 1, 0], 1),
        # characters: -5/5 -4/4 -6/12; the raw scores again; -1 -1 -1: all three tie, index 0
        ("char", [1, 1, 0], 2),
        ("token", [1, 1, 0], 1),
        ("byte", [0, 1, 0], 1),
        ("pmi", [1, 0, 0], 0),
    ],
)
def test_accuracy_and_ties_by_hand(example: pd.DataFrame, normalisation: str, right: list[int], ties: int) -> None:
    found = cell(example, "accuracy", normalisation, mixture="V1P0")
    assert found["value"] == pytest.approx(np.mean(right), abs=1e-15) and found["n"] == 3
    assert found["stderr"] == pytest.approx(np.std(right, ddof=1) / np.sqrt(3), abs=1e-15)
    assert cell(example, "ties", normalisation, mixture="V1P0")["value"] == ties


def test_confidence_both_readings_against_softmax(example: pd.DataFrame) -> None:
    lists = [[-5.0, -4.0, -6.0], [-2.0, -3.0, -8.0, -2.0], [-1.0, -7.0, -7.0]]
    a = [softmax(x).max() for x in lists]
    found = cell(example, "confidence", mixture="V1P0")
    assert found["value"] == pytest.approx(np.mean(a), abs=1e-15)
    assert found["stderr"] == pytest.approx(np.std(a, ddof=1) / np.sqrt(3), abs=1e-15)
    b = np.mean(np.exp([-4.0, -2.0, -1.0]))
    assert cell(example, "confidence_joint", mixture="V1P0")["value"] == pytest.approx(b, abs=1e-15)


def test_chance_is_uniform_where_candidates_change_from_row_to_row(example: pd.DataFrame) -> None:
    uniform = (1 / 3 + 1 / 4 + 1 / 3) / 3  # averaged over the rows, not 1 / mean number of candidates
    for mixture in ("V1P0", "V1P1"):  # in V1P1 every gold index is 1: a position, not something to guess
        assert cell(example, "uniform", "", mixture=mixture)["value"] == pytest.approx(uniform, abs=1e-15)
        assert cell(example, "chance", "", mixture=mixture)["value"] == pytest.approx(uniform, abs=1e-15)


def test_chance_is_the_majority_class_of_fixed_candidates(tmp_path: Path, writer: Write, make_row: Row) -> None:
    boolq = {"benchmark": "boolq", "category": "commonsense"}
    rows = [make_row(**boolq, example_id=f"validation/{i}", gold=int(i == 0)) for i in range(4)]
    writer(tmp_path / "demo/scores/a.parquet", rows)
    frame = read_metrics(StudyFolder(tmp_path, "demo"))
    assert cell(frame, "uniform", "")["value"] == 0.5 and cell(frame, "chance", "")["value"] == 0.75


def test_chance_follows_the_prompt_set_and_ones_own_benchmarks_are_scored(
    tmp_path: Path, writer: Write, make_row: Row
) -> None:
    asked = [("piqa", "lm_eval/0shot"), ("piqa", "lettered/0shot"), ("riddles", "own/0shot")]
    rows = [
        make_row(benchmark=slug, variant=variant, example_id=f"validation/{i}", gold=int(i == 0))
        for slug, variant in asked
        for i in range(4)
    ]
    writer(tmp_path / "demo/scores/a.parquet", rows)
    frame = read_metrics(StudyFolder(tmp_path, "demo"))
    found = {
        (slug, variant): cell(frame, "chance", "", benchmark=slug, variant=variant)["value"] for slug, variant in asked
    }
    # Texts that change from row to row; letters, of which B is right in three rows of four; candidates unknown here.
    assert list(found.values()) == [0.5, 0.75, 0.5]


def test_missing_unconditional_scores_give_no_pmi(tmp_path: Path, writer: Write, make_row: Row) -> None:
    rows = [make_row(), make_row(example_id="validation/1", logprob_unconditional=[-1.0, -1.0])]
    writer(tmp_path / "demo/scores/a.parquet", rows)
    frame = read_metrics(StudyFolder(tmp_path, "demo"))
    assert "pmi" not in set(frame["normalisation"]) and "char" in set(frame["normalisation"])


def test_one_example_has_no_standard_error(tmp_path: Path, writer: Write, make_row: Row) -> None:
    writer(tmp_path / "demo/scores/a.parquet", [make_row()])
    assert np.isnan(cell(read_metrics(StudyFolder(tmp_path, "demo")), "accuracy")["stderr"])


def test_multirc_inverted_label_of_the_harness(tmp_path: Path, writer: Write, make_row: Row) -> None:
    multirc = {"benchmark": "multirc", "category": "semantic"}
    rows = [make_row(**multirc, example_id=f"validation/{i}", gold=int(i == 0)) for i in range(4)]
    writer(tmp_path / "demo/scores/a.parquet", rows)
    frame = read_metrics(StudyFolder(tmp_path, "demo"))
    assert cell(frame, "accuracy")["value"] == 0.75 and cell(frame, "accuracy_lm_eval")["value"] == 0.25


def test_whole_study_against_a_row_by_row_reference(demo: Path) -> None:
    frame = read_metrics(StudyFolder(demo, "demo"))
    rng = np.random.default_rng(0)
    files = sorted((demo / "demo/scores").rglob("*.parquet"))
    for path in rng.choice(np.array(files, dtype=object), 3, replace=False):
        rows = pq.read_table(path).to_pylist()
        for slug in ("hellaswag", "winogrande", "cb"):
            mine = [r for r in rows if r["benchmark"] == slug]
            where = {k: mine[0][k] for k in ("scale", "mixture", "seed", "stage", "benchmark")}
            for name, column in (("sum", None), ("char", "num_chars"), ("byte", "num_bytes"), ("token", "num_tokens")):
                right = [
                    int(np.argmax(np.array(r["logprob_sum"]) / (np.array(r[column]) if column else 1)) == r["gold"])
                    for r in mine
                ]
                assert cell(frame, "accuracy", name, **where)["value"] == pytest.approx(np.mean(right), abs=1e-12)
            conf = np.mean([softmax(r["logprob_sum"]).max() for r in mine])
            assert cell(frame, "confidence", **where)["value"] == pytest.approx(conf, abs=1e-12)
            _check_probabilities(frame, mine, where)
            has_pmi = ((frame[list(where)] == pd.Series(where)).all(axis=1) & (frame["normalisation"] == "pmi")).any()
            assert has_pmi == (slug != "winogrande")


def _check_probabilities(frame: pd.DataFrame, rows: list[dict[str, Any]], where: dict[str, Any]) -> None:
    """Every metric of probabilities, one row after another."""
    expected: dict[str, list[float]] = {}
    labels = []
    for one in rows:
        logprob, gold = np.array(one["logprob_sum"]), one["gold"]
        probability = softmax(logprob)
        found = {
            "gold_probability": probability[gold],
            "nll": -np.log(probability[gold]),
            "brier": sum((p - (k == gold)) ** 2 for k, p in enumerate(probability)),
            "margin": logprob[gold] - np.delete(logprob, gold).max(),
        }
        for name, value in found.items():
            expected.setdefault(name, []).append(float(value))
        expected.setdefault("gold_logprob_per_byte", []).append(logprob[gold] / one["num_bytes"][gold])
        labels.append((int(np.argmax(logprob)), gold, float(probability.max())))
    for name, values in expected.items():
        normalisation = "byte" if name == "gold_logprob_per_byte" else "sum"
        found = cell(frame, name, normalisation, **where)
        assert found["value"] == pytest.approx(np.mean(values), abs=1e-12)
        assert found["stderr"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)), abs=1e-12)
    chosen, gold, sure = (np.array(part) for part in zip(*labels, strict=True))
    right = chosen == gold
    if 0 < right.sum() < len(right):
        assert cell(frame, "auroc", **where)["value"] == pytest.approx(roc_auc_score(right, sure))
    if where["benchmark"] == "cb":
        assert cell(frame, "f1_macro", **where)["value"] == pytest.approx(f1_score(gold, chosen, average="macro"))
    bins = [(sure > b / 15) & (sure <= (b + 1) / 15) for b in range(15)]
    ece = sum(abs(sure[b].sum() - right[b].sum()) for b in bins) / len(sure)
    assert cell(frame, "ece", **where)["value"] == pytest.approx(ece, abs=1e-12)
    full = [b for b in bins if b.any()]
    parts = {
        "calibration": sum(b.sum() * (right[b].mean() - sure[b].mean()) ** 2 for b in full) / len(sure),
        "resolution": sum(b.sum() * (right[b].mean() - right.mean()) ** 2 for b in full) / len(sure),
        "uncertainty": right.mean() * (1 - right.mean()),
    }
    for name, expected in parts.items():
        assert cell(frame, f"brier_{name}", **where)["value"] == pytest.approx(expected, abs=1e-12)


def test_label_priors_against_a_row_by_row_reference(demo: Path) -> None:
    """Means over the rows of the other folds, subtracted; only where all rows have the same candidates."""
    frame = read_metrics(StudyFolder(demo, "demo"))
    rows = pq.read_table(sorted((demo / "demo/scores").rglob("*.parquet"))[7]).to_pylist()
    for slug in ("mnli", "boolq", "commonsense_qa"):
        mine = [r for r in rows if r["benchmark"] == slug]
        where = {k: mine[0][k] for k in ("scale", "mixture", "seed", "stage", "benchmark")}
        found: dict[str, list[float]] = {"accuracy": [], "confidence": [], "nll": [], "brier": []}
        for one in mine:
            others = [r["logprob_sum"] for r in mine if fold_of(r["example_id"]) != fold_of(one["example_id"])]
            left = np.array(one["logprob_sum"]) - np.mean(others, axis=0)
            probability = softmax(left)
            found["accuracy"].append(float(left.argmax() == one["gold"]))
            found["confidence"].append(float(probability.max()))
            found["nll"].append(float(-np.log(probability[one["gold"]])))
            found["brier"].append(float(((probability - np.eye(len(left))[one["gold"]]) ** 2).sum()))
        for name, values in found.items():
            value = cell(frame, f"{name}_prior_corrected", **where)
            assert value["value"] == pytest.approx(np.mean(values), abs=1e-5) and value["n"] == 30
        sure, right = np.array(found["confidence"]), np.array(found["accuracy"])
        bins = [(sure > b / 15) & (sure <= (b + 1) / 15) for b in range(15)]
        ece = sum(abs(sure[b].sum() - right[b].sum()) for b in bins) / len(sure)
        assert cell(frame, "ece_prior_corrected", **where)["value"] == pytest.approx(ece, abs=1e-5)
    corrected = frame[frame["metric"].str.endswith("_prior_corrected")]
    fixed = {slug for slug in BENCHMARKS if load_benchmark(slug).fixed_candidates}
    assert set(corrected["benchmark"]) == fixed and "piqa" not in fixed
    assert set(frame.loc[frame["metric"] == "nll_common_scaled", "benchmark"]) == set(BENCHMARKS)


def test_the_common_temperature_is_one_for_all_benchmarks_of_a_checkpoint(tmp_path: Path, writer: Write) -> None:
    """Log-odds are divided by the same number in both benchmarks, and by one of its own in each."""
    random, rows = np.random.default_rng(0), []
    for slug, sharpness in (("piqa", 0.5), ("copa", 6.0)):
        for i in range(400):
            odds = sharpness * float(random.normal(0.7, 1))
            rows.append(row(benchmark=slug, example_id=f"validation/{i}", logprob_sum=[-20.0, -20.0 - odds]))
    writer(tmp_path / "demo/scores/a.parquet", rows)
    answers = gather(read_scores(StudyFolder(tmp_path, "demo")))
    plain, *corrected = (answers.values[name, "sum"] for name in CONFIDENCES)
    folds = np.array([fold_of(answers.examples[i]) for i in answers.example])
    sure = (plain > 0.55) & (plain < 0.95) & (folds == 0)
    own, common = (
        [
            np.log(plain / (1 - plain))[at] / np.log(scaled / (1 - scaled))[at]
            for at in (sure & (answers.cell == c) for c in (0, 1))
        ]
        for scaled in corrected
    )
    for temperatures in (*own, *common):
        assert len(temperatures) > 5 and np.allclose(temperatures, temperatures[0], rtol=5e-3)
    assert common[0][0] == pytest.approx(common[1][0], rel=5e-3)
    assert own[0][0] > 1.1 * common[0][0] > 1.5 * own[1][0]


def test_same_bytes_again_and_fingerprint_of_the_files(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study_maker(tmp_path, mixtures=("V1P0", "V1P1"), benchmarks=("piqa", "cb"), n=5)
    path = write_metrics(StudyFolder(tmp_path, "demo"))
    first = path.read_bytes()
    path.unlink()
    assert write_metrics(StudyFolder(tmp_path, "demo")).read_bytes() == first
    stamp = path.stat().st_mtime_ns
    write_metrics(StudyFolder(tmp_path, "demo"))
    assert path.stat().st_mtime_ns == stamp  # made from these files already
    frame = pq.read_table(path).to_pandas()
    assert tuple(frame.columns) == COLUMNS
    assert frame.groupby(["scale", "mixture", "stage"])["fingerprint"].nunique().eq(1).all()
    assert frame["fingerprint"].nunique() == 8

    victim = sorted((tmp_path / "demo/scores").rglob("*.parquet"))[0]
    victim.unlink()
    assert len(read_metrics(StudyFolder(tmp_path, "demo"))) < len(frame)


def test_published_metrics_are_enough_and_a_damaged_file_is_refused(
    tmp_path: Path, study_maker: Callable[..., Path]
) -> None:
    import shutil

    study = study_maker(tmp_path, mixtures=("V1P0",), benchmarks=("piqa",), n=5)
    whole = read_metrics(StudyFolder(tmp_path, "demo"))
    shutil.rmtree(study / "scores")
    pd.testing.assert_frame_equal(read_metrics(StudyFolder(tmp_path, "demo")), whole)
    path = study / "metrics.parquet"
    content = path.read_bytes()
    place = pq.ParquetFile(path).metadata.row_group(0).column(COLUMNS.index("value")).data_page_offset + 100
    for damaged in (content[:100], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"metrics\.parquet"):
            read_metrics(StudyFolder(tmp_path, "demo"))


logprobs = st.lists(st.floats(-200, -0.01), min_size=2, max_size=6)


def confidence(logprob: np.ndarray) -> np.ndarray:
    """The share of the likeliest candidate, as measures take it, [rows]."""
    return np.asarray(softmax_and_nll(logprob, np.zeros(len(logprob), int))[0].max(axis=1))


@given(st.lists(logprobs, min_size=1, max_size=8))
def test_confidence_lies_between_one_over_k_and_one(rows: list[list[float]]) -> None:
    widest = max(map(len, rows))
    matrix = np.array([r + [-np.inf] * (widest - len(r)) for r in rows])
    value = confidence(matrix)
    k = np.array([len(r) for r in rows])
    assert (value >= 1 / k - 1e-12).all() and (value <= 1).all()
    assert np.allclose(value, [softmax(r).max() for r in rows], atol=1e-12, rtol=0)


@given(logprobs, st.floats(-50, 0))
def test_a_common_shift_changes_neither_choice_nor_confidence(row: list[float], shift: float) -> None:
    matrix, moved = np.array([row]), np.array([row]) + np.floor(shift)
    assert np.allclose(confidence(moved), confidence(matrix), atol=1e-9)
    if np.ptp(np.sort(row)[-2:]) > 1e-6:  # equal up to rounding may become equal
        assert select(moved)[0] == select(matrix)[0]


@given(logprobs, st.randoms())
def test_order_of_candidates_does_not_matter_without_ties(row: list[float], random: Any) -> None:
    if len(set(row)) < len(row):
        return
    order = list(range(len(row)))
    random.shuffle(order)
    shuffled = np.array([[row[i] for i in order]])
    assert order[select(shuffled)[0][0]] == select(np.array([row]))[0][0]
    assert confidence(shuffled)[0] == pytest.approx(confidence(np.array([row]))[0], abs=1e-12)
