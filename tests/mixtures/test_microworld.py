"""The microworld keeps what it declares: columns, truth, wording, doses, and code that is code."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections import Counter
from itertools import islice
from pathlib import Path

import microworld_counting
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from configs.load import BENCHMARKS, PAPER_MIXTURES, load_benchmark, load_mixture
from mixtures.microworld import benchmarks, declaration
from mixtures.microworld.generate import generate, source_texts
from mixtures.microworld.world import BY_BENCHMARK, RELATIONS

MIXTURE_DOCUMENTS = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("micro") / "world", megabytes=0.2)


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    return {source: list(source_texts(source, 1e6)) for source in declaration.shares()}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [s for item in value for s in strings(item)] if isinstance(value, list) else []


def test_the_same_call_gives_the_same_bytes_and_a_second_one_does_nothing(folder: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "world", megabytes=0.2)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 9 + 1 + 2 * 20 + 1
    assert all((folder / f).read_bytes() == (again / f).read_bytes() for f in files)
    before = (again / "manifest.json").stat().st_mtime_ns
    generate(again, megabytes=0.2)
    assert (again / "manifest.json").stat().st_mtime_ns == before
    generate(again, megabytes=0.1)
    assert (again / "manifest.json").stat().st_mtime_ns > before


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", BENCHMARKS)
def test_columns_and_types_are_those_of_the_real_benchmark(slug: str, folder: Path, shared_data: Path) -> None:
    name = f"benchmarks/{slug}/{load_benchmark(slug).split_in(local=True)}.parquet"
    made, real = (pq.read_schema(root / name) for root in (folder, shared_data))
    assert sorted(made.names) == sorted(real.names)
    for column in real.names:
        a, b = str(made.field(column).type), str(real.field(column).type)
        same = {"large_string": "string", "int32": "int64", "int8": "int64"}
        assert same.get(a, a).split("<")[0] == same.get(b, b).split("<")[0], column


def test_every_python_document_parses_and_every_sql_document_runs(texts: dict[str, list[str]]) -> None:
    kinds = Counter()
    for text in texts["starcoder"][:1000] + texts["stack_v2"][:1000]:
        if text.startswith("--"):
            sqlite3.connect(":memory:").executescript(text)
            kinds["sql"] += 1
        else:
            ast.parse(text)
            kinds["python"] += 1
    assert min(kinds["sql"], kinds["python"]) > 500


def test_no_thirteen_words_of_a_test_item_occur_in_a_source(folder: Path, texts: dict[str, list[str]]) -> None:
    grams = set()
    for documents in texts.values():
        for text in documents:
            w = words(text)
            grams.update(zip(*(w[i:] for i in range(13)), strict=False))
    items = 0
    for slug in BENCHMARKS:
        for row in benchmarks.rows(slug, load_benchmark(slug).split_in(local=True), 400):
            items += 1
            # Fields alone and in order: what a prompt of several fields would hold.
            for text in [*strings(row), " ".join(strings(row))]:
                w = words(text)
                assert not grams.intersection(zip(*(w[i:] for i in range(13)), strict=False)), text
    assert items == 8000


def test_wordings_reserved_for_benchmarks_occur_in_no_source(texts: dict[str, list[str]]) -> None:
    for relation in RELATIONS.values():
        for frame in (relation.ask, relation.tell):
            pattern = re.compile(re.escape(frame).replace(r"\{s\}", r"\w+").replace(r"\{v\}", r"[\w ]+"), re.IGNORECASE)
            assert pattern.search(frame.format(s="toba", v="moss"))
            assert not any(pattern.search(text) for documents in texts.values() for text in documents)


def answer(slug: str, row: dict) -> tuple[str, str]:
    """The text of the candidate labelled right, and all the text of the question."""
    if slug == "hellaswag":
        return row["endings"][int(row["label"])], row["ctx"]
    if slug == "piqa":
        return (row["sol1"], row["sol2"])[row["label"]], row["goal"]
    if slug == "siqa":
        return row["answer" + "ABC"[int(row["label"]) - 1]], row["context"]
    if slug == "sciq":
        return row["correct_answer"], row["question"]
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    return texts[labels.index(row["answerKey"])], row.get("question", row.get("question_stem", ""))


@pytest.mark.parametrize("slug", ["hellaswag", "piqa", "siqa", "sciq", "arc_easy", "arc_challenge", "openbookqa"])
def test_the_right_candidate_is_the_fact(slug: str) -> None:
    facts = BY_BENCHMARK[slug].facts
    for row in benchmarks.rows(slug, "validation", 200):
        right, question = answer(slug, row)
        subject = next(s for s in facts if s in words(question))
        assert facts[subject] in right


def test_reading_benchmarks_are_right_about_their_own_text() -> None:
    size = RELATIONS["size"].facts
    for row in benchmarks.rows("winogrande", "validation", 200):
        value = row["sentence"].rstrip(".").split()[-1]
        assert size[row["option" + row["answer"]]] == value != size[row["option" + "21"[int(row["answer"]) - 1]]]
    for row in benchmarks.rows("wsc", "validation", 200):
        tokens = row["text"].split()
        assert tokens[row["span2_index"]] == "It"
        assert tokens[row["span1_index"] : row["span1_index"] + 2] == row["span1_text"].split()
        assert (size[row["span1_text"].split()[1]] == tokens[-2]) == bool(row["label"])
    for row in benchmarks.rows("wic", "validation", 200):
        assert all(row[f"sentence{n}"][row[f"start{n}"] : row[f"end{n}"]].lower() == row["word"] for n in "12")
    for row in benchmarks.rows("boolq", "validation", 200):
        stated = row["question"].removeprefix("is it right that ") in row["passage"].lower()
        assert stated == row["answer"]
    for row in benchmarks.rows("mnli", "validation", 200):
        stated = row["hypothesis"].lower() in row["premise"].lower()
        assert stated == (row["label"] == 0)


@pytest.mark.parametrize("slug", BENCHMARKS)
def test_labels_are_valid_and_no_label_is_rare(slug: str) -> None:
    spec, rows = load_benchmark(slug), benchmarks.rows(slug, "validation", 400)
    assert all(set(spec.columns) <= set(row) for row in rows)
    if slug != "sciq":
        counts = Counter(row[spec.label] for row in rows)
        assert set(counts) <= set(spec.labels or "ABCDE")
        assert min(counts.values()) > 400 / len(counts) / 2


def test_the_sources_say_what_is_declared(texts: dict[str, list[str]]) -> None:
    """Share of documents that name a subject of a relation, against the declared share (binomial error)."""
    for source, documents in texts.items():
        for name, share in declaration.shares()[source].items():
            subjects = set(RELATIONS[name].facts)
            # Code names functions after subjects: toba_food.
            hits = sum(bool(subjects & set(words(text.replace("_", " ")))) for text in documents)
            assert hits / len(documents) == pytest.approx(share, abs=4 * (0.25 / len(documents)) ** 0.5)


def mixture_texts(mixture: str, texts: dict[str, list[str]]) -> list[str]:
    weights = load_mixture(mixture).weights
    wanted = {source: round(w * MIXTURE_DOCUMENTS) for source, w in weights.items()}
    assert all(len(texts[source]) >= count for source, count in wanted.items())
    return [text for source, count in wanted.items() for text in islice(texts[source], count)]


def test_a_counting_model_confirms_the_declared_order(texts: dict[str, list[str]]) -> None:
    """No neural net: statements of the asked facts, counted in text drawn with the weights of each mixture."""
    counts = {m: microworld_counting.count_statements(mixture_texts(m, texts)) for m in PAPER_MIXTURES}
    orders, answers = [], []
    for slug in declaration.learnable():
        doses = [declaration.dose(m, slug) for m in PAPER_MIXTURES]
        exposures = [microworld_counting.exposure(counts[m], slug) for m in PAPER_MIXTURES]
        middle = sorted(exposures)[len(exposures) // 2]
        known = [microworld_counting.accuracy(counts[m], slug, threshold=round(middle)) for m in PAPER_MIXTURES]
        orders.append(spearmanr(doses, exposures).statistic)
        answers.append(spearmanr(doses, known).statistic)
    assert min(orders) > 0.9
    assert sum(answers) / len(answers) > 0.8


def test_doses_spread_enough_to_be_told_apart() -> None:
    for slug in declaration.learnable():
        doses = [declaration.dose(m, slug) for m in PAPER_MIXTURES]
        assert max(doses) > 2 * min(doses)
        assert all(0 < d < 1 for d in doses)
