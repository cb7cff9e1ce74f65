"""Imported scores against our own scorer's, from files that lm-evaluation-harness wrote; and lighteval's format."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_rows import ROWS
from harness_runs import run_harness
from random_exports import random_export

from configs.artifacts import sha256_file
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.harnesses.lm_eval_results import export_results
from ray_eval.import_results import main
from ray_eval.results import metadata_of, read_scores
from ray_eval.scoring import ScoreOptions, score_study

TOLERANCE_NATS = 1e-4
ONE = ("--study", "bench", "--scale", "240m", "--mixture", "V1P0", "--step", "10", "--tokens", "12e9")
ONE_FILE = "bench/scores/240m/V1P0/seed0/pt/step-0000010.parquet"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    folder = StudyFolder(tmp_path_factory.mktemp("runs"), "own").run("mini_s", "V1P0", 0, "pt").export(1)
    return random_export(folder, tokenizer)


@pytest.fixture(scope="module")
def harness(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """lm-eval's files and results for all 20 tasks."""
    return run_harness(export, ROWS, tmp_path_factory.mktemp("lm_eval"))


@pytest.fixture(scope="module")
def own(export: Path, benchmark_root: Path) -> pa.Table:
    runs = export.parents[6]
    score_study(StudyFolder(runs, "own"), ScoreOptions(documents_root=benchmark_root, use_ray=False))
    (path,) = (runs / "own" / "scores").rglob("*.parquet")
    return read_scores(path)


def imported(runs: Path, *arguments: object) -> pa.Table:
    main([*map(str, arguments), "--runs", str(runs), *ONE])
    return read_scores(runs / ONE_FILE)


def by_row(table: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["benchmark"], int(row["example_id"].split("/")[1])): row for row in table.to_pylist()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a refused command prints; asserts exit code 2."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- lm-eval


def test_lm_eval_samples_are_our_own_scores(
    harness: tuple[Path, dict[str, Any]], own: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = harness
    table = imported(tmp_path, folder)
    theirs, ours = by_row(table), by_row(own)
    assert theirs.keys() == ours.keys() and len(theirs) == sum(map(len, ROWS.values()))
    for key, row in theirs.items():
        expected = ours[key]
        assert row["logprob_sum"] == pytest.approx(expected["logprob_sum"], abs=TOLERANCE_NATS)
        assert np.argmax(row["logprob_sum"]) == np.argmax(expected["logprob_sum"])
        for column in ("gold", "num_chars", "num_bytes", "category", "variant"):
            assert row[column] == expected[column], (key, column)
        assert row["num_tokens"] is row["logprob_unconditional"] is row["truncated"] is None
        split = {"copa": "validation", "sciq": "test"}.get(row["benchmark"], load_benchmark(row["benchmark"]).split)
        assert row["example_id"] == f"{split}/{key[1]}"  # COPA and SciQ: lm-eval's split, not that of our rows
    identity = {"study": "bench", "scale": "240m", "mixture": "V1P0", "stage": "PT", "recipe": "", "seed": 0}
    identity |= {"step": 10, "tokens": 12_000_000_000}
    assert all(identity.items() <= row.items() for row in theirs.values())
    assert [row["example_id"] for row in table.to_pylist()][:2] == ["validation/0", "validation/1"]
    assert table["benchmark"].unique().to_pylist() == list(BENCHMARKS)

    metadata = metadata_of(table)
    assert metadata["source"] == "lm_eval 0.4.13" and metadata["dtype"] == "fp32"
    assert metadata["checkpoint"] == table["checkpoint"][0].as_py() and metadata["checkpoint"].startswith("imported-")
    files = json.loads(metadata["files"])
    assert len(files) == len(BENCHMARKS) and metadata["model"] == results["model_name"]
    boolq = files[samples(folder, "boolq").name]
    assert boolq["dataset"] == "aps/super_glue/boolq, validation, version 2.0 of boolq"
    assert boolq["sha256"] == sha256_file(samples(folder, "boolq"))
    assert "hellaswag" in capsys.readouterr().out


def test_multirc_gold_is_turned_into_the_truth(harness: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, results = harness
    rows = [row for row in imported(tmp_path, folder).to_pylist() if row["benchmark"] == "multirc"]
    assert [row["gold"] for row in rows] == [1 - row["label"] for row in ROWS["multirc"]]
    right = np.mean([np.argmax(row["logprob_sum"]) == row["gold"] for row in rows])
    assert results["results"]["multirc"]["acc,none"] == 1 - right


def rescale(path: Path, factor: float) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for logged in lines:
        logged["resps"] = [[[str(float(score) * factor), greedy]] for [[score, greedy]] in logged["resps"]]
    path.write_text("".join(json.dumps(logged) + "\n" for logged in lines))


def test_an_imported_study_has_tables(
    harness: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two scales x two stages x two mixtures from one model's files: `analysis.tables` runs and finds every cell."""
    from analysis.scores.metrics import read_metrics
    from analysis.tables.__main__ import main as tables

    lines = []
    for scale, mixture, stage in itertools.product(("240m", "1b"), ("V1P0", "V2P0"), ("PT", "SFT")):
        name = f"{scale}-{mixture}-{stage}"
        folder = Path(shutil.copytree(harness[0], tmp_path / "lm_eval" / name))
        for results in folder.glob("results_*.json"):
            results.write_text(json.dumps(json.loads(results.read_text()) | {"model_name": name}))
        for path in folder.glob("samples_*.jsonl"):  # other scores, the same decisions
            rescale(path, 1 + len(lines) / 16)
        recipe = "tulu" if stage == "SFT" else ""
        lines.append(f"{name},{scale},{mixture},{stage},{recipe},,{10 + len(recipe)},{100 + len(scale)}")
    models = tmp_path / "models.csv"
    models.write_text("model,scale,mixture,stage,recipe,seed,step,tokens\n" + "\n".join(lines) + "\n")
    main([str(tmp_path / "lm_eval"), "--runs", str(tmp_path), "--study", "bench", "--models", str(models)])
    assert len(list((tmp_path / "bench" / "scores").rglob("*.parquet"))) == 8
    tables(["--runs", str(tmp_path), "--study", "bench"])
    shown = capsys.readouterr().out
    assert "Study bench: 160 of 160 evaluations of last checkpoints measured, 0 missing" in shown
    assert "Table 11" in shown
    metrics = read_metrics(StudyFolder(tmp_path, "bench"))
    assert set(metrics["normalisation"]) == {"", "sum", "char", "byte"}  # no tokens, no bare prefix: no row
    main([str(tmp_path / "lm_eval" / "1b-V2P0-PT"), "--runs", str(tmp_path), *ONE, "--seed", "7"])
    with pytest.raises(SystemExit):  # one model's files as two checkpoints
        tables(["--runs", str(tmp_path), "--study", "bench"])
    assert "one checkpoint was scored for two places in the study" in capsys.readouterr().err

    acc = metrics[(metrics["metric"] == "accuracy") & (metrics["scale"] == "1b") & (metrics["mixture"] == "V2P0")]
    acc = acc[acc["stage"] == "SFT"]
    theirs = harness[1]["results"]
    for slug in set(BENCHMARKS) - {"multirc"}:
        numbers = theirs[load_benchmark(slug).lm_eval_task]
        for normalisation, metric in (("sum", "acc,none"), ("char", "acc_norm,none")):
            (value,) = acc[(acc["benchmark"] == slug) & (acc["normalisation"] == normalisation)]["value"]
            assert value == numbers.get(metric, value), slug


def test_shots_chat_and_limit(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {slug: ROWS[slug] for slug in ("piqa", "winogrande", "copa", "arc_easy")}
    folder, _ = run_harness(export, rows, tmp_path / "shots", num_fewshot=1, limit=1)
    table = imported(tmp_path / "a", folder)
    assert set(table["variant"].to_pylist()) == {"lm_eval/1shot"} and table.num_rows == len(rows)
    assert "1 of 2 " in capsys.readouterr().out
    chat, _ = run_harness(export, rows, tmp_path / "chat", apply_chat_template=True)
    both = imported(tmp_path / "b", folder, chat)  # two variants of one model
    assert sorted(set(both["variant"].to_pylist())) == ["lm_eval/0shot/chat", "lm_eval/1shot"]
    table = imported(tmp_path / "c", chat)
    assert table.num_rows == 2 * 3 + 4 == both.num_rows - len(rows)
    gold = {(row["benchmark"], row["example_id"]): row["gold"] for row in table.to_pylist()}
    assert gold["arc_easy", "test/0"] == 1 and gold["copa", "validation/1"] == 1
    assert {len(row["num_chars"]) for row in table.to_pylist() if row["benchmark"] == "arc_easy"} == {2, 3, 4, 5}


@pytest.fixture
def copied(harness: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(harness[0], tmp_path / "out" / "model"))


def samples(folder: Path, task: str) -> Path:
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return path


def edit(path: Path, line: int, change: Callable[[dict[str, Any]], object]) -> None:
    lines = path.read_text().splitlines()
    logged = json.loads(lines[line - 1])
    change(logged)
    path.write_text("\n".join([*lines[: line - 1], json.dumps(logged), *lines[line:]]) + "\n")


def test_lines_come_in_any_order(copied: Path, tmp_path: Path) -> None:
    """As processes of a data-parallel run leave them."""
    before = imported(tmp_path / "a", copied)
    for path in copied.glob("samples_*"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after = imported(tmp_path / "b", copied)
    assert after.drop_columns(["checkpoint"]).equals(before.drop_columns(["checkpoint"]))


def swap(logged: dict[str, Any]) -> None:
    """Another order of the candidates."""
    arguments = logged["arguments"]
    arguments["gen_args_0"], arguments["gen_args_1"] = arguments["gen_args_1"], arguments["gen_args_0"]
    logged["resps"].reverse()


BAD_LINES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no number": (lambda s: s["resps"].__setitem__(0, [["nan", "False"]]), "log-probability nan"),
    "minus infinity": (lambda s: s["resps"].__setitem__(0, [["-inf", "False"]]), "log-probability -inf"),
    "a score less": (lambda s: s["resps"].pop(), "1 numbers for 2 candidates"),
    "a request less": (lambda s: s["arguments"].pop("gen_args_1"), "request 0 of 1 is not the prompt"),
    "no row": (lambda s: s.pop("doc"), "not a sample of piqa as lm-eval 0.4.13 logs it"),
    "a hidden label": (lambda s: s["doc"].update(label=-1), "label label=-1 is out of range"),
    "another label": (lambda s: s["doc"].update(label=0), "acc is .* has the highest score and 0 is right"),
    "twice": (lambda s: s.update(doc_id=0), "doc_id 0 comes twice, first in line 1"),
    "another filter": (lambda s: s.update(filter="strict-match"), "filter 'strict-match'"),
    "another prompt": (lambda s: s["doc"].update(goal="fly"), "request 0 of 2 is not the prompt of lm-eval 0.4.13"),
    "another order": (swap, "request 0 of 2 is not the prompt of lm-eval 0.4.13"),
}


@pytest.mark.parametrize("change", BAD_LINES)
def test_bad_lines_are_named_and_nothing_is_written(
    change: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(samples(copied, "piqa"), 2, BAD_LINES[change][0])
    message = refusal(capsys, copied, "--runs", tmp_path, *ONE)
    assert f"{samples(copied, 'piqa')}, line 2: " in message and re.search(BAD_LINES[change][1], message), message
    assert not (tmp_path / "bench").exists()


def test_cut_and_incomplete_files_are_named(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples(copied, "qqp")
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert f"{path}, line 3: not a sample of qqp" in refusal(capsys, copied, "--runs", tmp_path, *ONE)
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:2]))  # cut between two lines
    assert f"{path}: 2 samples, its results count 3" in refusal(capsys, copied, "--runs", tmp_path, *ONE)
    (results,) = copied.glob("results_*.json")
    saved = results.read_text()
    results.write_text(saved[:100])
    assert f"{results}: not valid JSON" in refusal(capsys, copied, "--runs", tmp_path, *ONE)
    results.unlink()
    message = refusal(capsys, copied, "--runs", tmp_path, *ONE)
    assert f"{results}: the results of these samples are missing" in message
    assert not (tmp_path / "bench").exists()


def test_other_tasks_are_named_and_skipped_and_doubles_refused(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    date = samples(copied, "piqa").name.removeprefix("samples_piqa_")
    other = copied / f"samples_lambada_openai_{date}"
    shutil.copy(samples(copied, "piqa"), other)
    assert imported(tmp_path, copied).num_rows == sum(map(len, ROWS.values()))
    assert f"not imported: {other} (lambada_openai: none of our benchmarks)" in capsys.readouterr().out
    assert "nothing to import: lambada_openai" in refusal(capsys, other, "--runs", tmp_path, *ONE)

    second = copied / "samples_piqa_2030-01-01T00-00-00.000001.jsonl"
    shutil.copy(samples(copied, "piqa"), second)
    shutil.copy(next(copied.glob("results_*.json")), copied / "results_2030-01-01T00-00-00.000001.json")
    message = refusal(capsys, copied, "--runs", tmp_path / "doubled", *ONE)
    assert f"{second}: a second file of piqa (lm_eval/0shot)" in message and not (tmp_path / "doubled").exists()
    assert "no samples are here" in refusal(capsys, tmp_path / "bench", "--runs", tmp_path, *ONE)


def test_scores_that_are_there_are_kept(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, copied)
    path = tmp_path / ONE_FILE
    before = path.read_bytes()
    imported(tmp_path, copied)  # the same files: the same bytes
    assert path.read_bytes() == before
    message = refusal(capsys, samples(copied, "rte"), "--runs", tmp_path, *ONE)
    assert f"{path}: other scores of this checkpoint are there" in message and path.read_bytes() == before
    table = imported(tmp_path, samples(copied, "rte"), "--replace")
    assert table["benchmark"].unique().to_pylist() == ["rte"]


def test_one_bad_model_does_not_stop_the_others(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path(shutil.copytree(copied, copied.parent / "bad"))
    for folder in (copied, bad):
        (path,) = folder.glob("results_*.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_name": f"org/{folder.name}"}))
    edit(samples(bad, "wic"), 1, lambda s: s["resps"].pop())
    models = tmp_path / "models.yaml"
    common = "scale: 240m, mixture: V1P0, tokens: 12e9"
    models.write_text(f"models:\n  model: {{{common}, step: 10}}\n  org/bad: {{{common}, step: 20}}\n")
    given = (copied.parent, "--runs", tmp_path, "--study", "bench", "--models", models)
    message = refusal(capsys, *given)
    assert "1 of 2 models were not imported" in message and f"{samples(bad, 'wic')}, line 1" in message
    assert [path.name for path in (tmp_path / "bench").rglob("*.parquet")] == ["step-0000010.parquet"]

    models.write_text(f"models:\n  model: {{{common}, step: 10}}\n")
    assert "model 'org/bad' is missing" in refusal(capsys, *given)
    models.write_text(f"models:\n  model: {{{common}, step: 10}}\n  bad: {{{common}, step: 10}}\n")
    assert "are the same checkpoint of the study" in refusal(capsys, *given)
    assert "--models and --scale, --mixture, --step, --tokens" in refusal(capsys, *given, *ONE)
    assert "samples of 2 models: org/bad, org/model" in refusal(capsys, copied.parent, "--runs", tmp_path, *ONE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {m: {scale: 240m, mixture: V1P0, step: 1}}", "models.m.tokens: required, but missing"),
        ("models: {m: {scale: ../x, mixture: b, step: 1, tokens: 1}}", "models.m.scale: string should match pattern"),
        ("models: {m: {scale: a, mixture: b, step: 1, tokens: 1, stage: SFT}}", "SFT needs a recipe"),
        ("models: {m: {scale: a, mixture: b, step: 1, tokens: 1, recipe: x}}", "PT has none"),
        ("models: {m: {scale: a, mixture: b, step: -1, tokens: 1}}", "models.m.step"),
        ("models: {m: {scale: a, mixture: b, step: 1, tokens: 1, size: 2}}", "size: unknown key"),
        ("models: {}", "models"),
    ],
)
def test_what_a_model_is_must_be_said_rightly(
    text: str, message: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models.yaml"
    models.write_text(text)
    shown = refusal(capsys, copied, "--runs", tmp_path, "--study", "bench", "--models", models)
    assert str(models) in shown and message in shown


def test_help_is_quick_and_shows_examples() -> None:
    from time import perf_counter

    for module in ("ray_eval.import_results", "ray_eval.export_results"):
        begin = perf_counter()
        command = [sys.executable, "-m", module, "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT_ROOT).stdout
        assert perf_counter() - begin < 1.0 and "examples:" in shown and f"python -m {module}" in shown
        heavy = "('torch', 'ray', 'pyarrow', 'pydantic')"
        code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
        assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=PROJECT_ROOT) == "[]\n"


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_rows_give_our_own_scores(shared_data: Path, tmp_path: Path, make_export: Callable[..., Path]) -> None:
    """The first 40 rows of each benchmark, as `--limit 40` takes them."""
    export = make_export(
        StudyFolder(tmp_path, "own").run("mini_s", "V1P0", 0, "pt").export(1), max_position_embeddings=1024
    )
    rows, root = {}, tmp_path / "documents"
    for slug in BENCHMARKS:
        name = f"benchmarks/{slug}/{load_benchmark(slug).split_in(local=True)}.parquet"
        table = pq.read_table(shared_data / name).slice(0, 60)
        (root / name).parent.mkdir(parents=True)
        pq.write_table(table, root / name)
        rows[slug] = table.to_pylist()
    # In float64, because the harness sums as it computes: in float32 sums beyond 512 nats are 6e-5 apart.
    folder, results = run_harness(export, rows, tmp_path / "lm_eval", softmax_dtype="float64", limit=40)
    theirs = by_row(imported(tmp_path, folder))
    score_study(StudyFolder(tmp_path, "own"), ScoreOptions(documents_root=root, use_ray=False))
    (path,) = (tmp_path / "own" / "scores").rglob("*.parquet")
    ours = by_row(read_scores(path))
    assert len(theirs) == 40 * len(BENCHMARKS) and len(ours) == sum(map(len, rows.values()))
    for key, row in theirs.items():
        assert row["logprob_sum"] == pytest.approx(ours[key]["logprob_sum"], abs=TOLERANCE_NATS, rel=2**-23), key
        assert row["gold"] == ours[key]["gold"] and row["num_chars"] == ours[key]["num_chars"], key
        assert np.argmax(row["logprob_sum"]) == np.argmax(ours[key]["logprob_sum"]), key
    assert results["n-samples"]["qqp"] == {"original": 60, "effective": 40}
    (path,) = export_results([tmp_path / ONE_FILE], tmp_path / "back")  # and back: the harness's own numbers
    back = json.loads(path.read_text())["results"]
    for task, expected in results["results"].items():
        numbers = {key: value for key, value in expected.items() if not key.startswith("f1_stderr")}
        assert {key: back[task][key] for key in numbers} == pytest.approx(numbers, abs=1e-6), task


# ---------------------------------------------------------------------------------------------- lighteval
# No file that lighteval wrote was at hand: these are made to the format of its source (Doc, ModelResponse,
# EvaluationTracker.save_details, version 0.13).

DATE = "2026-03-01T10-20-30.123456"


def doc(row: int, query: str, choices: list[str], gold: Any, task: str) -> dict[str, Any]:
    return {
        "query": query, "choices": choices, "gold_index": gold, "instruction": None, "unconditioned_query": None,
        "id": str(row), "task_name": task, "fewshot_samples": [], "num_samples": 1,
    }  # fmt: skip


def response(logprobs: list[float], tokens: list[list[int]]) -> dict[str, Any]:
    return {
        "input": None, "input_tokens": [1, 2, 3], "text": [], "output_tokens": tokens, "logprobs": logprobs,
        "argmax_logits_eq_gold": [False] * len(logprobs), "unconditioned_logprobs": None,
        "truncated_tokens_count": 0, "padded_tokens_count": 0,
    }  # fmt: skip


def write_lighteval(out: Path, task: str, details: list[dict[str, Any]], **config: Any) -> Path:
    model = "org/base"
    folder = out / "details" / model / DATE
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"details_{task}_{DATE}.parquet"
    pq.write_table(pa.Table.from_pylist(details), path)
    results = out / "results" / model / f"results_{DATE}.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(results.read_text()) if results.exists() else {"config_tasks": {}, "results": {}}
    settings = {"name": task.split("|")[0], "hf_repo": "r", "hf_subset": "s", "version": 0}
    settings |= {"evaluation_splits": ["validation"], "original_num_docs": 9, "effective_num_docs": len(details)}
    content["config_tasks"][task] = settings | config
    content["config_general"] = {"model_name": model, "lighteval_sha": "abc", "model_config": {"dtype": "bfloat16"}}
    results.write_text(json.dumps(content))
    return path


def arc_details(task: str = "arc:easy|0") -> list[dict[str, Any]]:
    """Shuffled rows, token lists padded with -1 as several processes leave them, one gold in a list."""
    return [
        {
            "doc": doc(7, "Question: a?\nAnswer:", [" one", " two, too"], [1], task),
            "metric": {"acc": 1},
            "model_response": response([-3.5, -2.25], [[4, -1, -1], [5, 6, 7]]),
        },
        {
            "doc": doc(2, "Question: b?\nAnswer:", [" x", " é", " z"], [0], task),
            "metric": {"acc": 0},
            "model_response": response([-9.0, -2.0, -4.0], [[4, -1], [5, 6], [7, -1]]),
        },
    ]


def test_lighteval_details_become_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lighteval"
    write_lighteval(out, "arc:easy|0", arc_details(), evaluation_splits=["test"])
    task = "super_glue:multirc|2"
    right = doc(
        4, "p\nQuestion: q\nAnswer:", [" a\nIs the answer correct? yes", " a\nIs the answer correct? no"], 0, task
    )
    write_lighteval(out, task, [{"doc": right, "metric": {"acc": 1}, "model_response": response([-1.0, -2.0], [])}])
    mnli = doc(1, "q", [" True", " Neither", " False"], [2], "glue:mnli|0")
    write_lighteval(
        out, "glue:mnli|0", [{"doc": mnli, "metric": {"acc": 1}, "model_response": response([-1.0] * 3, [[1]] * 3)}]
    )
    generated = doc(0, "q", [" A", " B"], [0], "hellaswag|0")
    hellaswag = write_lighteval(
        out, "hellaswag|0", [{"doc": generated, "metric": {"acc": 1}, "model_response": response([], [[3]])}]
    )
    table = imported(tmp_path, out)
    columns = ["benchmark", "example_id", "variant", "gold", "logprob_sum", "num_tokens", "num_chars", "num_bytes"]
    rows = [tuple(row[column] for column in columns) for row in table.to_pylist()]
    assert rows == [
        ("arc_easy", "test/2", "lighteval/0shot", 0, [-9.0, -2.0, -4.0], [1, 2, 1], [1, 1, 1], [1, 2, 1]),
        ("arc_easy", "test/7", "lighteval/0shot", 1, [-3.5, -2.25], [1, 3], [3, 8], [3, 8]),
        ("mnli", "validation_matched/1", "lighteval/0shot", 2, [-1.0] * 3, [1, 1, 1], [4, 7, 5], [4, 7, 5]),
        ("multirc", "validation/4", "lighteval/2shot", 0, [-1.0, -2.0], None, [28, 27], [28, 27]),
    ]
    assert table["truncated"].null_count == table["logprob_unconditional"].null_count == 4
    assert metadata_of(table)["source"] == "lighteval abc" and metadata_of(table)["dtype"] == "bf16"
    assert f"not imported: {hellaswag} (hellaswag: no log-probabilities)" in capsys.readouterr().out


def test_lighteval_pmi_after_our_prefix_is_kept(tmp_path: Path) -> None:
    details = arc_details()[:1]
    details[0]["doc"]["unconditioned_query"] = "Answer:"
    details[0]["model_response"] = response([-3.5, -2.25, -7.0, -8.0], [[4], [5]])
    write_lighteval(tmp_path / "out", "arc:easy|0", details)
    (row,) = imported(tmp_path, tmp_path / "out").to_pylist()
    assert row["logprob_sum"] == [-3.5, -2.25] and row["logprob_unconditional"] == [-7.0, -8.0]


def test_lighteval_files_that_cannot_be_placed_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(name: str, details: list[dict[str, Any]], **config: Any) -> str:
        path = write_lighteval(tmp_path / name, "arc:easy|0", details, **config)
        message = refusal(capsys, tmp_path / name, "--runs", tmp_path, *ONE)
        assert str(path) in message and not (tmp_path / "bench").exists()
        return message

    two = refused("two", arc_details(), evaluation_splits=["validation", "test"])
    assert "rows of several splits bear the same numbers" in two
    assert "2 samples, its results count 5" in refused("short", arc_details(), effective_num_docs=5)
    old = [{"full_prompt": "q", "predictions": "[-1.0]", "gold_index": "[0]"}]
    assert "column doc is missing" in refused("old", old)
    assert "row 1: doc.id 7 comes twice" in refused("twice", [arc_details()[0]] * 2)
    unknown = arc_details()
    unknown[1]["model_response"] = response([-1.0, float("nan"), -4.0], [[4]] * 3)
    assert "row 1: log-probability nan" in refused("unknown", unknown)
    many = arc_details()
    many[1]["doc"]["gold_index"] = [0, 1]
    assert "row 1: not a detail of lighteval" in refused("many", many)
    path = write_lighteval(tmp_path / "cut", "arc:easy|0", arc_details())
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: not a readable Parquet file" in refusal(capsys, path, "--runs", tmp_path, *ONE)
    (tmp_path / "short" / "results" / "org/base" / f"results_{DATE}.json").unlink()
    message = refusal(capsys, tmp_path / "short", "--runs", tmp_path, *ONE)
    assert "the results of these details are missing" in message
