"""A study searched for its benchmarks: what the files say, what is done again, and how they join with scores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import ArtifactError, DataError
from configs.load import BENCHMARKS, load_benchmark, load_study
from configs.schema import StudyConfig, StudyScoring
from mixtures.contamination import search as search_module
from mixtures.contamination.__main__ import main
from mixtures.contamination.items import read_items
from mixtures.contamination.report import HITS, lines, read_summary
from mixtures.contamination.search import Rule, open_manifest
from mixtures.contamination.study import search_study
from mixtures.microworld.generate import generate

Writer = Callable[..., Path]
SLUGS = ("copa", "winogrande", "arc_easy", "rte")
PREMISE = "The keeper of the old harbour light counted seventeen grey herons before he rowed home through the fog again"
QUESTION = "Which of these four metals would a smith melt first"
SENTENCE = "The drum did not fit through the narrow cellar door because the _ was much too wide for it"
ROWS: dict[str, list[dict[str, Any]]] = {
    "copa": [{"premise": "It was.", "choice1": "Go.", "choice2": "No.", "question": "cause", "label": 1}],
    "winogrande": [{"sentence": SENTENCE, "option1": "drum", "option2": "door", "answer": "1"}],
    "arc_easy": [
        {"question": QUESTION, "choices": {"text": ["tin", "iron"], "label": ["A", "B"]}, "answerKey": "A"},
        {"question": "What is it?", "choices": {"text": ["tin", "iron"], "label": ["A", "B"]}, "answerKey": "A"},
    ],
    "rte": [
        {"sentence1": PREMISE, "sentence2": "He rowed.", "label": 0},
        {
            "sentence1": PREMISE.upper(),
            "sentence2": "No text holds these quite ordinary words at all",
            "label": 1,
        },
    ],
}


@pytest.fixture
def root(documents_root: Path, write_rows: Writer) -> Path:
    """Random documents; an item each in a web source (part of it), in code, and in the SFT set."""
    for slug, rows in ROWS.items():
        path = documents_root / "benchmarks" / slug / f"{load_benchmark(slug).split_in(local=True)}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    plant(documents_root / "corpora" / "dclm" / "part-00001.parquet", 7, " ".join(PREMISE.split()[:15]))
    plant(documents_root / "corpora" / "starcoder" / "part-00000.parquet", 39, PREMISE.lower().replace(" ", " ... "))
    plant(documents_root / "corpora" / "starcoder" / "part-00000.parquet", 12, SENTENCE.replace("_", "DRUM"))
    user, assistant = f"Q: {QUESTION}?", "Tin."
    messages = [[{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]] * 2
    write_rows(documents_root / "corpora" / "sft" / "part-00000.parquet", messages=messages)
    return documents_root


def plant(path: Path, row: int, text: str) -> None:
    texts = pq.read_table(path)["text"].to_pylist()
    texts[row] += f"\n{text} and more"
    pq.write_table(pa.table({"text": texts}), path)


def study(**overrides: Any) -> StudyConfig:
    return load_study("mini", {"data.kind": "local", "benchmarks": list(SLUGS)} | overrides)


def quiet(_: str) -> None:
    pass


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_every_planted_item_is_found_where_it_is(root: Path, tmp_path: Path) -> None:
    folder = search_study(study(), root, tmp_path / "data", workers=1, log=quiet)
    table = pq.read_table(folder / "hits.parquet")
    assert table.schema.equals(HITS)
    hits = table.to_pylist()
    places = [(h["source"], h["kind"], h["unit"], h["row"], h["benchmark"], h["example_id"], h["field"]) for h in hits]
    assert places == [
        ("dclm", "web", "part-00001.parquet", 7, "rte", "validation/0", "sentence1"),
        ("dclm", "web", "part-00001.parquet", 7, "rte", "validation/1", "sentence1"),
        ("starcoder", "code", "part-00000.parquet", 12, "winogrande", "validation/0", "reading"),
        ("starcoder", "code", "part-00000.parquet", 39, "rte", "validation/0", "sentence1"),
        ("starcoder", "code", "part-00000.parquet", 39, "rte", "validation/1", "sentence1"),
        ("sft", "sft", "part-00000.parquet", 0, "arc_easy", "test/0", "question"),
        ("sft", "sft", "part-00000.parquet", 0, "arc_easy", "test/0", "reading"),
        ("sft", "sft", "part-00000.parquet", 1, "arc_easy", "test/0", "question"),
        ("sft", "sft", "part-00000.parquet", 1, "arc_easy", "test/0", "reading"),
    ]
    words = len(PREMISE.split())
    assert (hits[0]["num_words"], hits[0]["num_ngrams"], hits[0]["positions"]) == (words, words - 12, [0, 1, 2])
    assert hits[0]["overlap"] == 3 / (words - 12)
    assert hits[0]["matched"] == " ".join(PREMISE.lower().split()[:15])
    assert hits[3]["overlap"] == 1 and hits[3]["matched"] == PREMISE.lower()
    assert hits[6]["matched"] == f"{QUESTION} tin".lower()


def test_items_and_summary_count_what_can_be_said(root: Path, tmp_path: Path) -> None:
    folder = search_study(study(), root, tmp_path / "data", workers=1, log=quiet)
    share = 3 / (len(PREMISE.split()) - 12)
    rows = pq.read_table(folder / "items.parquet").to_pylist()
    columns = ("benchmark", "example_id", "assessable", "overlap", "web", "code", "curated", "sft", "fields")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("copa", "test/0", False, None, None, None, None, None, ""),
        ("winogrande", "validation/0", True, 1, 0, 1, 0, 0, "reading"),
        ("arc_easy", "test/0", True, 1, 0, 0, 0, 1, "question, reading"),
        ("arc_easy", "test/1", False, None, None, None, None, None, ""),
        ("rte", "validation/0", True, 1, share, 1, 0, 0, "sentence1"),
        ("rte", "validation/1", True, 1, share, 1, 0, 0, "sentence1"),
    ]
    cells = {
        (c.source, c.benchmark): (c.items, c.assessable, c.touched, c.half, c.whole)
        for c in read_summary(folder).itertuples()
    }
    assert len(cells) == (9 + 1 + 1) * 4
    assert cells["dclm", "rte"] == (2, 2, 2, 0, 0)
    assert cells["starcoder", "rte"] == (2, 2, 2, 2, 2)
    assert cells["books", "arc_easy"] == (2, 1, 0, 0, 0)
    assert cells["all", "arc_easy"] == (2, 1, 1, 1, 1)
    assert cells["all", "copa"] == (1, 0, 0, 0, 0)
    printed = list(lines(read_summary(folder)))
    assert printed[0].split()[:3] == ["benchmark", "items", "assessable"]
    assert printed[1].split()[-2:] == ["0", "-"]
    assert printed[3].split()[-2:] == ["1", "100.0%"]
    read = open_manifest(folder)["read"]
    assert read["dclm"]["documents"] == 80 and read["sft"]["documents"] == 2


def test_the_rule_can_be_stricter_or_looser(root: Path, tmp_path: Path) -> None:
    folder = search_study(study(), root, tmp_path, Rule(13, 11), workers=1, log=quiet)
    assert set(pq.read_table(folder / "hits.parquet")["field"].to_pylist()) == {"sentence1", "reading"}
    folder = search_study(study(), root, tmp_path, Rule(3, 1), workers=1, log=quiet)
    assert pq.read_table(folder / "items.parquet")["assessable"].to_pylist() == [True] * 6


def test_overlap_is_that_of_all_documents_of_a_source_together(root: Path, tmp_path: Path) -> None:
    plant(root / "corpora" / "dclm" / "part-00000.parquet", 3, " ".join(PREMISE.split()[1:]))
    folder = search_study(study(), root, tmp_path, workers=1, log=quiet)
    items = pq.read_table(folder / "items.parquet").to_pylist()
    assert items[4]["web"] == 1
    hits = pq.read_table(folder / "hits.parquet", filters=[("source", "=", "dclm")])["overlap"].to_pylist()
    assert len(hits) == 4 and max(hits) < 1


def test_a_rerun_does_nothing_and_a_changed_file_is_read_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = search_module.search_unit

    def recorded(job: search_module.Job) -> int:
        read.append(f"{job.extract.source}/{job.extract.unit.name}")
        return original(job)

    monkeypatch.setattr(search_module, "search_unit", recorded)
    folder = search_study(study(), root, tmp_path, workers=1, log=quiet)
    assert len(read) == 19
    before, stamps = files(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    read.clear()
    search_study(study(), root, tmp_path, workers=1, log=quiet)
    assert not read and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps

    plant(root / "corpora" / "books" / "part-00001.parquet", 5, PREMISE)
    search_study(study(), root, tmp_path, workers=1, log=quiet)
    assert read == ["books/part-00001.parquet"]
    assert files(folder)["hits.parquet"] != before["hits.parquet"]
    assert len(list((folder / "parts").iterdir())) == 19

    read.clear()
    search_study(study(benchmarks=["rte"]), root, tmp_path, workers=1, log=quiet)
    assert len(read) == 19


def test_an_interrupted_search_goes_on_and_gives_the_same_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search_study(study(), root, tmp_path / "whole", workers=2, log=quiet)
    original, done = search_module.search_unit, 0

    def failing(job: search_module.Job) -> int:
        nonlocal done
        done += 1
        if done == 8:
            raise KeyboardInterrupt
        return original(job)

    monkeypatch.setattr(search_module, "search_unit", failing)
    with pytest.raises(KeyboardInterrupt):
        search_study(study(), root, tmp_path / "killed", workers=1, log=quiet)
    folder = tmp_path / "killed" / "contamination" / "mini"
    with pytest.raises(ArtifactError, match="no finished search here"):
        open_manifest(folder)
    search_study(study(), root, tmp_path / "killed", workers=1, log=quiet)
    assert done == 8 + 12
    assert files(folder) == files(whole)


def test_a_truncated_result_is_named(root: Path, tmp_path: Path) -> None:
    folder = search_study(study(), root, tmp_path, workers=1, log=quiet)
    path = folder / "items.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"items\.parquet: .* bytes found"):
        search_study(study(), root, tmp_path, workers=1, log=quiet)


def test_missing_benchmark_rows_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluation rows of BoolQ are missing"):
        search_study(study(benchmarks=["boolq"]), root, tmp_path, workers=1, log=quiet)


# ---------------------------------------------------------------------------------------------- items


def reading(tmp_path: Path, slug: str, **row: Any) -> dict[str, str]:
    path = tmp_path / "benchmarks" / slug / f"{load_benchmark(slug).split_in(local=True)}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), path)
    (item,) = read_items(load_benchmark(slug), tmp_path)
    return item.texts


def test_every_text_of_a_row_counts_and_markup_does_not(tmp_path: Path) -> None:
    assert reading(
        tmp_path, "hellaswag", activity_label="Digging", ctx_a="[header] Dig [title] Take a spade.", ctx_b="they",
        endings=["dig.", "[step] did n't."], label="1",
    ) == {
        "activity_label": "Digging",
        "ctx_a": "  Dig   Take a spade.",
        "ctx_b": "they",
        "endings[0]": "dig.",
        "endings[1]": "  didn't.",
        "label": "1",
        "reading": "  Dig   Take a spade. they   didn't.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("slug", "row", "expected"),
    [
        ("winogrande", {"sentence": "It rang as _ fell.", "option1": "a", "option2": "b", "answer": "2"},
         "It rang as b fell."),
        ("sciq", {"question": "What?", "distractor1": "x", "distractor2": "y", "distractor3": "z",
                  "correct_answer": "tin", "support": ""}, "What? tin"),
        ("arc_easy", {"question": "A _____ sinks", "choices": {"text": ["cork", "stone"], "label": ["1", "2"]},
                      "answerKey": "2"}, "A stone sinks"),
        ("commonsense_qa", {"question": "Where?", "choices": {"text": list("vwxyz"), "label": list("ABCDE")},
                            "answerKey": "D"}, "Where? y"),
        ("siqa", {"context": "Bo ran.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c",
                  "label": "3"}, "Bo ran. Why? c"),
        ("piqa", {"goal": "Dry", "sol1": "sun", "sol2": "ice", "label": 0}, "Dry sun"),
        ("piqa", {"goal": "Dry", "sol1": "sun", "sol2": "ice", "label": -1}, None),
        ("boolq", {"question": "q", "answer": True, "passage": "p"}, None),
    ],
)  # fmt: skip
def test_the_reading_ends_with_the_right_answer(slug: str, row: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert reading(tmp_path, slug, **row).get("reading") == expected


# ---------------------------------------------------------------------------------------------- whole worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("world") / "microworld", megabytes=0.1)


def test_no_item_of_the_microworld_stands_in_its_sources(world: Path, tmp_path: Path) -> None:
    folder = search_study(load_study("mini"), world, tmp_path, workers=1, log=quiet)
    cells = [cell for cell in read_summary(folder).itertuples() if cell.source not in ("all", "sft")]
    assert len(cells) == 9 * 20
    assert sum(cell.assessable for cell in cells) > 9 * 400
    assert [cell for cell in cells if cell.touched] == []


def test_items_join_with_scores_on_benchmark_and_example(world: Path, tmp_path: Path) -> None:
    from ray_eval.benchmarks import load_examples

    folder = search_study(load_study("mini"), world, tmp_path, workers=1, log=quiet)
    items = pq.read_table(folder / "items.parquet")
    scored = [
        {"benchmark": slug, "example_id": example.example_id, "right": example.gold == 0}
        for slug in BENCHMARKS
        for example in load_examples(load_benchmark(slug), world, StudyScoring(sample=25))
    ]
    scores = pa.Table.from_pylist(scored).join(items, ["benchmark", "example_id"], join_type="inner")
    assert scores.num_rows == len(scored) == 25 * 20
    assert scores["assessable"].null_count == 0
    assert items.num_rows == len(set(zip(items["benchmark"].to_pylist(), items["example_id"].to_pylist(), strict=True)))


@pytest.mark.shared_data
@pytest.mark.slow
def test_the_real_data_hold_known_overlaps(shared_data: Path, tmp_path: Path) -> None:
    folder = search_study(load_study("real_small"), shared_data, tmp_path, workers=2, log=quiet)
    hits = pq.read_table(folder / "hits.parquet").to_pylist()
    # A benchmark's items in the prompts of an evaluation harness, which is code.
    assert {h["example_id"] for h in hits if h["source"] == "starcoder"} == {"test/10"}
    assert {h["benchmark"] for h in hits if h["source"] == "starcoder"} == {"arc_challenge"}
    assert sum(c.touched for c in read_summary(folder).itertuples() if c.source == "all") >= 100


# ---------------------------------------------------------------------------------------------- command line


def test_the_command_prints_the_table(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--documents", str(root), "--data", str(tmp_path / "data"), "--workers", "1"]
    main(["--study", "mini", *options, "data.kind=local", "benchmarks=[rte]"])
    out = capsys.readouterr().out
    assert "2 items of 1 benchmarks" in out
    assert out.splitlines()[-2].split()[:3] == ["rte", "2", "2"]


@pytest.mark.parametrize("options", [["--ngram", "7"], ["--min-words", "0"], ["--min-words", "14"]])
def test_an_impossible_rule_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--study", "mini", *options])
    assert ended.value.code == 2
    assert "min-words" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = {"numpy", "pyarrow", "torch", "ray", "datasets", "tokenizers"}
    script = f"import sys, mixtures.contamination.__main__; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "set()"
