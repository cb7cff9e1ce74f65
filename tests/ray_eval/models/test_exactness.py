"""Every decision on real rows of the 20 benchmarks is lm-evaluation-harness's own, and so is every log-probability.

The harness runs on the same rows with its own task files and its own model in fp32. What differs on purpose is counted.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
from harness_runs import evaluate, task_config
from random_exports import random_export, save_export

from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import StudyScoring
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import load_examples
from ray_eval.harnesses.lm_eval_results import metrics_of
from ray_eval.results import read_scores
from ray_eval.scoring import ScoreOptions, score_study

pytestmark = [pytest.mark.slow, pytest.mark.shared_data]

ROWS = 200
"""Of each benchmark; CB and WSC have fewer and are scored whole."""
TOLERANCE_NATS = 1e-4
LONG_NATS = -512.0
"""The harness sums in float32, in which numbers beyond this are 6e-5 apart; such rows are compared with its sums in
float64."""
EQUAL_CANDIDATES = {"siqa": [102, 428, 669, 877, 1258], "sciq": [332, 479]}
"""Rows in which two candidates are the same text."""


def real_rows(shared_data: Path, slug: str, split: str | None = None) -> pa.Table:
    split = split or load_benchmark(slug).split_in(local=True)
    return pq.read_table(shared_data / "benchmarks" / slug / f"{split}.parquet")


def score(export: Path, root: Path, **options: Any) -> dict[str, pa.Table]:
    """Our scores of an export, by benchmark."""
    runs, study = export.parents[6], export.parents[5].name
    score_study(StudyFolder(runs, study), ScoreOptions(documents_root=root, use_ray=False, **options))
    (path,) = (runs / study / "scores").rglob("*.parquet")
    table = read_scores(path)
    names = np.asarray(table["benchmark"].to_pylist())
    return {slug: table.filter(pa.array(names == slug)) for slug in dict.fromkeys(names)}


@dataclass(frozen=True)
class Item:
    """One row as we scored it and as the harness did."""

    example_id: str
    ours: np.ndarray
    """Log-probability of each candidate."""
    theirs: np.ndarray
    num_chars: np.ndarray
    gold: int
    """The truth."""
    sample: Mapping[str, Any]
    """The harness's record of the row."""


@dataclass(frozen=True)
class Comparison:
    scores: dict[str, pa.Table]
    results: dict[str, Any]

    def items(self, slug: str) -> Iterator[Item]:
        samples = sorted(self.results["samples"][load_benchmark(slug).lm_eval_task], key=lambda s: s["doc_id"])
        for row, sample in zip(self.scores[slug].to_pylist(), samples, strict=True):
            theirs = np.array([logprob for logprob, _ in sample["filtered_resps"]])
            ours, num_chars = np.array(row["logprob_sum"]), np.array(row["num_chars"])
            yield Item(row["example_id"], ours, theirs, num_chars, row["gold"], sample)


def compare(export: Path, shared_data: Path, scores: dict[str, pa.Table], **options: Any) -> Comparison:
    """The harness on the rows that the scores name."""
    rows = {}
    for slug, table in scores.items():
        numbers = [int(example.split("/")[1]) for example in table["example_id"].to_pylist()]
        rows[slug] = real_rows(shared_data, slug).take(numbers).to_pylist()
    return Comparison(scores, evaluate(export, rows, **options))


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[str]:
    return tiny_models.corpus(shared_data)


@pytest.fixture(scope="module", params=["byte_level", "metaspace"])
def tokenizer(request: pytest.FixtureRequest, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return getattr(tiny_models, request.param)(texts, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module", params=["random", "trained"])
def export(
    request: pytest.FixtureRequest, tokenizer: Tokenizer, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = StudyFolder(tmp_path_factory.mktemp("runs"), "exact").run("mini_s", "V1P0", 0, "pt").export(1)
    random_export(folder, tokenizer, **tiny_models.SHAPE)
    if request.param == "trained":
        model, loss = tiny_models.trained(folder, tokenizer, texts)
        assert loss < 6  # ln 1024 = 6.93
        save_export(model, folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def comparison(export: Path, shared_data: Path) -> Comparison:
    scoring = StudyScoring(sample=ROWS, unconditional=False)
    return compare(export, shared_data, score(export, shared_data, scoring=scoring))


def decisions(slug: str, item: Item) -> list[str]:
    """Where our decisions are not the harness's."""
    gold = 1 - item.gold if slug == "multirc" else item.gold  # the harness inverts it
    found = []
    for metric, length in (("acc", 1), ("acc_norm", item.num_chars)):
        if metric in item.sample:
            ours, theirs = item.ours / length, item.theirs / length
            right = float(np.argmax(ours) == gold)
            if np.argmax(ours) != np.argmax(theirs) or right != item.sample[metric]:
                found.append(f"{slug} {item.example_id} {metric}: {ours}, harness {theirs}, gold {gold}")
    return found


def test_decisions_are_the_harness_own(comparison: Comparison) -> None:
    assert comparison.scores.keys() == set(BENCHMARKS)
    for slug in BENCHMARKS:
        items = list(comparison.items(slug))
        assert len(items) == min(ROWS, load_benchmark(slug).examples)
        assert all(len(item.ours) == len(item.theirs) for item in items)
    differing = [line for slug in BENCHMARKS for item in comparison.items(slug) for line in decisions(slug, item)]
    assert differing == []


def test_log_probabilities_are_the_harness_own(comparison: Comparison, export: Path, shared_data: Path) -> None:
    long: dict[str, pa.Table] = {}
    for slug in BENCHMARKS:
        items = list(comparison.items(slug))
        is_long = [item.theirs.min() < LONG_NATS for item in items]
        if any(is_long):
            long[slug] = comparison.scores[slug].filter(pa.array(is_long))
        assert largest(item for item, skip in zip(items, is_long, strict=True) if not skip) < TOLERANCE_NATS, slug
    assert "hellaswag" in long
    summed_well = compare(export, shared_data, long, softmax_dtype="float64")
    for slug in long:
        assert largest(summed_well.items(slug)) < TOLERANCE_NATS, slug


def largest(items: Iterable[Item]) -> float:
    return max((float(np.abs(item.ours - item.theirs).max()) for item in items), default=0.0)


def test_figures_are_the_harness_own(comparison: Comparison) -> None:
    for slug in BENCHMARKS:
        theirs = comparison.results["results"][load_benchmark(slug).lm_eval_task]
        ours = metrics_of(slug, comparison.scores[slug])
        for metric in ("acc", "acc_norm", "f1"):
            assert (metric in ours) == (f"{metric},none" in theirs)
            if metric in ours:
                assert ours[metric][0] == pytest.approx(theirs[f"{metric},none"], abs=1e-12), slug


def test_multirc_is_the_harness_figure_turned_round(comparison: Comparison) -> None:
    right = [np.argmax(item.ours) == item.gold for item in comparison.items("multirc")]
    figure = comparison.results["results"]["multirc"]["acc,none"]
    assert figure == pytest.approx(1 - np.mean(right), abs=1e-12) and 0 < figure < 1


def test_equal_candidates_tie_to_the_last_bit_and_the_first_wins(
    export: Path, shared_data: Path, tmp_path: Path
) -> None:
    for slug, numbers in EQUAL_CANDIDATES.items():
        path = tmp_path / "benchmarks" / slug / "validation.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(real_rows(shared_data, slug).take(numbers), path)
    folder = StudyFolder(tmp_path / "runs", "ties").run("mini_s", "V1P0", 0, "pt").export(1)
    shutil.copytree(export, folder)
    found = compare(folder, tmp_path, score(folder, tmp_path, benchmarks=list(EQUAL_CANDIDATES)))
    for slug, numbers in EQUAL_CANDIDATES.items():
        items = list(found.items(slug))
        assert len(items) == len(numbers)
        for item in items:
            texts = [continuation for _, continuation in item.sample["arguments"]]
            for a, b in itertools.combinations(range(len(texts)), 2):
                if texts[a] == texts[b]:
                    assert item.ours[a] == item.ours[b] and item.theirs[a] == item.theirs[b], (slug, item.example_id)
            assert len(set(item.ours)) == len(set(item.theirs)) == len(set(texts)) == len(texts) - 1, (
                slug,
                item.example_id,
            )
            assert decisions(slug, item) == []


def test_what_differs_on_purpose_has_these_numbers(shared_data: Path) -> None:
    """The figures of docs/benchmarks.md; no model is needed."""
    for slug, harness, here in (
        ("boolq", ("aps/super_glue", "boolq"), ("google/boolq", None)),
        ("copa", ("aps/super_glue", "copa"), ("pkavumba/balanced-copa", None)),
        ("wsc", ("aps/super_glue", "wsc.fixed"), ("aps/super_glue", "wsc.fixed")),
    ):
        config, spec = task_config(slug), load_benchmark(slug)
        assert (config["dataset_path"], config["dataset_name"]) == harness and (spec.hub, spec.config) == here

    assert "test_split" not in task_config("copa") and load_benchmark("copa").split == "test"
    assert [real_rows(shared_data, "copa", split).num_rows for split in ("test", "validation")] == [500, 100]

    assert task_config("sciq")["test_split"] == "test" and load_benchmark("sciq").split_in(local=True) == "validation"
    sciq = load_examples(load_benchmark("sciq"), shared_data)
    assert [example.gold for example in sciq] == [3] * 1000

    for slug, numbers in EQUAL_CANDIDATES.items():
        examples = load_examples(load_benchmark(slug), shared_data)
        assert [e.row for e in examples if len(set(e.candidates)) < len(e.candidates)] == numbers

    passages = real_rows(shared_data, "boolq")["passage"].to_pylist()  # super_glue's begin "Title -- "
    assert len(passages) == 3270 and sum(" -- " in passage[:60] for passage in passages) < 0.01 * 3270

    choices = task_config("multirc")["doc_to_choice"]  # the harness takes the label, 1 for right, as index
    assert choices.index("no") > choices.index("yes") and task_config("multirc")["doc_to_target"] == "label"
    multirc = load_examples(load_benchmark("multirc"), shared_data)
    labels = real_rows(shared_data, "multirc")["label"].to_pylist()
    assert [example.gold for example in multirc] == [1 - label for label in labels] and len(labels) == 4848

    moved = [row["idx"] for row in real_rows(shared_data, "wsc").to_pylist() if not _spans_are_there(row)]
    assert len(moved) == 9


def _spans_are_there(row: dict[str, Any]) -> bool:
    """Do the words at a WSC row's indices read as its spans do, but for punctuation?"""
    words = row["text"].split()
    for span in ("span1", "span2"):
        text, start = row[f"{span}_text"], row[f"{span}_index"]
        found = " ".join(words[start : start + len(text.split())])
        if found.rstrip(".,;") != text.rstrip(".,;"):
            return False
    return True
