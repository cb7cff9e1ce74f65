"""Documents that hold benchmark items are left out of the shards, counted, and known to the search afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import load_benchmark, load_study
from configs.schema import StudyConfig
from mixtures.contamination.clean import contamination_filter
from mixtures.contamination.report import read_summary
from mixtures.contamination.study import search_study
from mixtures.sources.source import Document
from mixtures.tokenize import tokenize_study
from mixtures.tokens.shards import Shards

PASSAGE = " ".join(f"passage{n}" for n in range(32))  # twenty 13-grams
THRESHOLD = 0.5


def quiet(_: str) -> None:
    pass


@pytest.fixture
def root(documents_root: Path) -> Path:
    path = documents_root / "benchmarks" / "rte" / f"{load_benchmark('rte').split_in(local=True)}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"sentence1": PASSAGE, "sentence2": "Short.", "label": 0}]), path)
    corpus = documents_root / "corpora" / "books" / "part-00001.parquet"
    texts = pq.read_table(corpus)["text"].to_pylist()
    texts[3] += f"\n{PASSAGE.upper()}"
    texts[8] += " " + " ".join(PASSAGE.split()[:22])  # ten of the twenty
    texts[9] += " " + " ".join(PASSAGE.split()[:21])
    pq.write_table(pa.table({"text": texts}), corpus)
    return documents_root


def study(**overrides: Any) -> StudyConfig:
    small = {"tokenizer.name": "tiny", "tokenizer.vocab": 400, "tokenizer.sample_megabytes": 0.01}
    local = {"data.kind": "local", "benchmarks": ["rte"], "checkpoint_tokens": {}}
    return load_study("mini", small | local | {"overrides": {"model.context_tokens": 512}} | overrides)


def rows(shards: Shards, unit: str) -> set[int]:
    assert shards.validation is not None
    sides = (shards, shards.validation)
    places = (side.origin(i) for side in sides for i in range(side.num_documents))
    return {row for name, row in places if name == unit}


def test_cleaning_leaves_out_whole_documents_from_the_threshold_on(root: Path, tmp_path: Path) -> None:
    texts = pq.read_table(root / "corpora" / "books" / "part-00001.parquet")["text"].to_pylist()
    documents = [Document(row, text) for row, text in enumerate(texts)]
    for threshold, expected in ((0.01, [3, 8, 9]), (THRESHOLD, [3, 8]), (1.0, [3])):
        cleaning = contamination_filter([load_benchmark("rte")], root, tmp_path, threshold)
        dropped: list[int] = []
        kept = list(cleaning(documents, dropped.append))
        assert dropped == expected
        assert kept == [document for document in documents if document.row not in expected]


def test_contaminated_documents_are_not_in_the_shards(root: Path, tmp_path: Path) -> None:
    plain, clean = tmp_path / "plain", tmp_path / "clean"
    tokenize_study(study(), root, plain, quiet)
    before = Shards.open(plain / "tokens" / "tiny" / "books")
    assert rows(before, "part-00001.parquet") == set(range(40))
    assert before.manifest["cleaning"] is None

    cleaned = study(**{"data.decontaminate": THRESHOLD})
    tokenize_study(cleaned, root, clean, quiet)
    after = Shards.open(clean / "tokens" / "tiny" / "books", deep=True)
    folder = search_study(study(), root, plain, workers=1, log=quiet)
    hits = pq.read_table(folder / "hits.parquet").to_pylist()
    contaminated = {hit["row"] for hit in hits if hit["overlap"] >= THRESHOLD}
    assert contaminated == {3, 8}
    assert rows(after, "part-00001.parquet") == set(range(40)) - contaminated
    assert rows(after, "part-00000.parquet") == set(range(40))
    assert after.manifest["dropped"] == {"contaminated": 2}
    assert after.manifest["cleaning"]["threshold"] == THRESHOLD
    assert after.manifest["inputs"] != before.manifest["inputs"]
    arxiv = [Shards.open(data / "tokens" / "tiny" / "arxiv") for data in (plain, clean)]
    assert arxiv[0].fingerprint == arxiv[1].fingerprint

    # What is searched afterwards is what is left: the document below the threshold.
    left = search_study(cleaned, root, clean, workers=1, log=quiet)
    assert pq.read_table(left / "hits.parquet")["row"].to_pylist() == [9]
    assert {cell.touched for cell in read_summary(left).itertuples() if cell.source != "all"} == {0, 1}


def test_another_threshold_or_benchmark_makes_new_shards(root: Path, tmp_path: Path) -> None:
    def made(**overrides: Any) -> list[str]:
        lines: list[str] = []
        tokenize_study(study(**overrides), root, tmp_path, lines.append)
        return [line for line in lines if "tokenizing" in line and "SFT" not in line]

    assert len(made(**{"data.decontaminate": THRESHOLD})) == 9
    assert made(**{"data.decontaminate": THRESHOLD}) == []
    assert len(made(**{"data.decontaminate": 1.0})) == 9
    assert Shards.open(tmp_path / "tokens" / "tiny" / "books").manifest["dropped"] == {"contaminated": 1}
    path = root / "benchmarks" / "rte" / "validation.parquet"
    pq.write_table(pa.Table.from_pylist([{"sentence1": "Other.", "sentence2": "Short.", "label": 0}]), path)
    assert len(made(**{"data.decontaminate": 1.0})) == 9
    assert Shards.open(tmp_path / "tokens" / "tiny" / "books").manifest["dropped"] == {}
