"""Scores of the shared-prefix scorer against transformers, one unshared row for each candidate; and the score files."""

from __future__ import annotations

import json
import os
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
from eval_rows import write_benchmarks

from configs.artifacts import sha256_files, write_json
from configs.errors import ArtifactError, ConfigError
from configs.layout import PROJECT_ROOT, RunFolder, StudyFolder
from configs.load import BENCHMARKS, load_benchmark, load_study, save
from configs.schema import StudyScoring
from configs.scores import SCHEMA
from ray_eval.benchmarks import DELIMITER, load_examples
from ray_eval.checkpoints.exports import inspect_exports, read_export
from ray_eval.results import metadata_of, read_scores
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, ScoringProgress, Summary, score_study

ExportMaker = Callable[..., Path]
TOLERANCE_NATS = 1e-4


def run_folder(runs: Path, stage: str = "pt", seed: int = 0, scale: str = "mini_s") -> RunFolder:
    return StudyFolder(runs, "trial").run(scale, "V1P0", seed, stage)


def score(runs: Path, root: Path, **options: Any) -> Summary:
    return score_study(StudyFolder(runs, "trial"), ScoreOptions(documents_root=root, **{"use_ray": False, **options}))


def only_scores(runs: Path) -> pa.Table:
    (path,) = (runs / "trial" / "scores").rglob("*.parquet")
    return read_scores(path)


def reference(export: Path, context: str, continuation: str, max_length: int) -> tuple[float, int, bool]:
    """Summed log-probability, tokens and truncation of one request as lm-evaluation-harness's HF model makes it."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(export)
    model = LlamaForCausalLM.from_pretrained(export, dtype=torch.float32)
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    if context:
        before = tokenizer(context, add_special_tokens=False)["input_ids"]
        after = tokenizer(context + continuation, add_special_tokens=False)["input_ids"][len(before) :]
    else:
        before, after = [0], tokenizer(continuation, add_special_tokens=False)["input_ids"]
    whole = before + after
    ids = torch.tensor([whole[-(max_length + 1) :]])
    with torch.no_grad():
        logp = model(ids[:, :-1]).logits.double().log_softmax(-1)[0]
    count = len(after)
    chosen = logp[-count:].gather(1, ids[0, -count:, None])
    return float(chosen.sum()), count, len(whole) > max_length + 1


@pytest.fixture
def fast_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load model and tokenizer once, not for every request."""
    import functools

    import transformers

    for kind in (transformers.AutoTokenizer, transformers.LlamaForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", functools.cache(kind.from_pretrained))


SHAPES: dict[str, dict[str, Any]] = {
    "as exported by training": {},
    "grouped heads, output layer of its own, GeGLU": {
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
        "rms_norm_eps": 1e-3,
    },
    "short context: most prompts are truncated": {"max_position_embeddings": 24},
}


@pytest.mark.usefixtures("fast_reference")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scores_equal_unshared_transformers(
    shape: dict[str, Any], make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    export = make_export(run_folder(tmp_path).export(1), **shape)
    max_length = shape.get("max_position_embeddings", 256)
    score(tmp_path, benchmark_root)
    rows = {(row["benchmark"], row["example_id"]): row for row in only_scores(tmp_path).to_pylist()}

    num_truncated = compared = 0
    for slug in BENCHMARKS:
        for example in load_examples(load_benchmark(slug), benchmark_root):
            row = rows.pop((slug, example.example_id))
            expected = [
                reference(export, example.context(i), DELIMITER + text, max_length)
                for i, text in enumerate(example.candidates)
            ]
            assert row["logprob_sum"] == pytest.approx([r[0] for r in expected], abs=TOLERANCE_NATS)
            assert row["num_tokens"] == [r[1] for r in expected]
            assert row["truncated"] == any(r[2] for r in expected)
            assert row["num_chars"] == [len(text) for text in example.candidates]
            assert row["num_bytes"] == [len(text.encode()) for text in example.candidates]
            assert row["gold"] == example.gold
            if example.unconditional is None:
                assert row["logprob_unconditional"] is None
            else:
                alone = [
                    reference(export, example.unconditional, DELIMITER + t, max_length)[0] for t in example.candidates
                ]
                assert row["logprob_unconditional"] == pytest.approx(alone, abs=TOLERANCE_NATS)
            num_truncated += row["truncated"]
            compared += len(expected)
    assert not rows and compared > 100
    assert (num_truncated > 20) == (max_length == 24)


def test_bf16_stays_near_fp32_and_is_recorded(make_export: ExportMaker, benchmark_root: Path, tmp_path: Path) -> None:
    make_export(run_folder(tmp_path / "a").export(1), initializer_range=0.05)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    score(tmp_path / "a", benchmark_root)
    score(tmp_path / "b", benchmark_root, scoring=StudyScoring(precision="bf16"))
    fp32, bf16 = only_scores(tmp_path / "a"), only_scores(tmp_path / "b")
    assert (metadata_of(fp32)["dtype"], metadata_of(bf16)["dtype"]) == ("fp32", "bf16")
    difference = np.abs(flat(fp32) - flat(bf16)) / np.abs(flat(fp32))
    assert 0 < difference.max() < 0.02


def flat(table: pa.Table) -> np.ndarray:
    return np.concatenate(table["logprob_sum"].to_pylist())


# ---------------------------------------------------------------------------------------------- files


def test_the_file_is_what_the_design_says(make_export: ExportMaker, benchmark_root: Path, tmp_path: Path) -> None:
    folder = make_export(run_folder(tmp_path, "sft-text", seed=3).export(20), step=20)
    score(tmp_path, benchmark_root, scoring=StudyScoring(sample=2))
    path = tmp_path / "trial/scores/mini_s/V1P0/seed3/sft-text/step-0000020.parquet"
    table = pq.read_table(path, partitioning=None)
    assert table.schema.names == [
        *(
            "study",
            "scale",
            "mixture",
            "stage",
            "recipe",
            "benchmark",
            "category",
            "variant",
            "example_id",
            "checkpoint",
        ),
        *("seed", "step", "tokens", "gold", "logprob_sum", "num_tokens", "num_chars", "num_bytes"),
        *("logprob_unconditional", "truncated"),
    ]
    strings = pa.dictionary(pa.int32(), pa.string())
    expected = dict.fromkeys(table.schema.names[:10], strings) | {"example_id": pa.string()}
    expected |= {
        "seed": pa.int32(),
        "step": pa.int64(),
        "tokens": pa.int64(),
        "gold": pa.int32(),
        "truncated": pa.bool_(),
    }
    expected |= {name: pa.list_(pa.int32()) for name in ("num_tokens", "num_chars", "num_bytes")}
    expected |= {name: pa.list_(pa.float64()) for name in ("logprob_sum", "logprob_unconditional")}
    assert {field.name: field.type for field in table.schema} == expected
    checkpoint = sha256_files(list(folder.glob("*.safetensors")))
    first = table.to_pylist()[0]
    assert {key: first[key] for key in table.schema.names[:14]} == {
        "study": "trial",
        "scale": "mini_s",
        "mixture": "V1P0",
        "stage": "SFT",
        "recipe": "text",
        "benchmark": "hellaswag",
        "category": "commonsense",
        "variant": "lm_eval/0shot",
        "example_id": "validation/0",
        "checkpoint": checkpoint,
        "seed": 3,
        "step": 20,
        "tokens": 20_000,
        "gold": 0,
    }
    assert table["benchmark"].unique().to_pylist() == list(BENCHMARKS)
    assert table.num_rows == 2 * len(BENCHMARKS)
    metadata = metadata_of(table)
    assert metadata["schema_version"] == "1" and metadata["checkpoint"] == checkpoint and metadata["dtype"] == "fp32"
    assert len(metadata["plan_hash"]) == len(metadata["tokenizer_sha256"]) == 64
    assert metadata["bos_policy"].startswith("none") and set(json.loads(metadata["versions"])) >= {"torch", "pyarrow"}


def test_an_exact_tie_is_stored_as_a_tie(make_export: ExportMaker, tmp_path: Path) -> None:
    from eval_rows import ROWS

    root = tmp_path / "documents"
    path = root / "benchmarks" / "piqa" / "validation.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([ROWS["piqa"][0] | {"sol2": ROWS["piqa"][0]["sol1"]}]), path)
    make_export(run_folder(tmp_path).export(1))
    score(tmp_path, root, benchmarks=["piqa"])
    first, second = only_scores(tmp_path)["logprob_sum"].to_pylist()[0]
    assert first == second


def test_a_second_call_skips_and_a_lost_file_comes_back_the_same(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        make_export(run_folder(tmp_path, seed=seed).export(1), seed=seed)
    seen: list[ScoringProgress] = []
    first = score(tmp_path, benchmark_root, progress=seen.append)
    assert (first.scored, first.skipped) == (2, 0)
    assert [(p.done, p.total) for p in seen] == [(0, 2), (1, 2), (2, 2)]
    assert seen[0].eta_s is None and seen[1].eta_s and seen[2].eta_s == 0 and seen[2].tokens_per_s > 0
    files = {path: path.read_bytes() for path in (tmp_path / "trial").rglob("*.parquet")}
    assert len(files) == 2

    again = score(tmp_path, benchmark_root)
    assert (again.scored, again.skipped) == (0, 2)
    lost = next(iter(files))
    lost.unlink()
    (lost.parent / f".{lost.name}.0a1b2c3d.tmp").write_bytes(files[lost][:100])  # what kill -9 leaves behind
    resumed = score(tmp_path, benchmark_root)
    assert (resumed.scored, resumed.skipped) == (1, 1)
    assert {path: path.read_bytes() for path in files} == files


def test_what_changed_is_scored_again(make_export: ExportMaker, tokenizer: Any, tmp_path: Path) -> None:
    root = write_benchmarks(tmp_path / "documents")
    folder = run_folder(tmp_path).export(1)
    make_export(folder, seed=0)
    score(tmp_path, root)
    before = flat(only_scores(tmp_path))
    shutil.rmtree(folder)
    make_export(folder, seed=1)  # trained anew
    assert score(tmp_path, root, replace=False).scored == 1
    assert not np.allclose(flat(only_scores(tmp_path)), before)

    narrow = StudyScoring(sample=1)
    with pytest.raises(ConfigError, match=r"step-0000001.parquet: scores of this checkpoint exist.*plan_hash"):
        score(tmp_path, root, scoring=narrow, replace=False)
    assert score(tmp_path, root, scoring=narrow).scored == 1
    assert only_scores(tmp_path).num_rows == len(BENCHMARKS)


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "columns", "version"])
def test_a_bad_score_file_is_refused_and_left_alone(
    damage: str, make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    make_export(run_folder(tmp_path).export(1))
    score(tmp_path, benchmark_root)
    (path,) = (tmp_path / "trial" / "scores").rglob("*.parquet")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flip":
        column = pq.ParquetFile(path).metadata.row_group(0).column(14)  # logprob_sum
        content[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size // 2] ^= 1
        path.write_bytes(content)
    elif damage == "foreign":
        path.write_text("not parquet")
    elif damage == "columns":
        table = read_scores(path)
        pq.write_table(table.drop_columns(["gold"]), path)
    else:
        table = read_scores(path)
        pq.write_table(table.replace_schema_metadata(metadata_of(table) | {"schema_version": "0"}), path)
    damaged = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"step-0000001\.parquet"):
        score(tmp_path, benchmark_root)
    assert path.read_bytes() == damaged


def test_a_corrupt_checkpoint_is_named_and_the_others_are_scored(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    bad, good = (make_export(run_folder(tmp_path, seed=seed).export(1), seed=seed) for seed in (0, 1))
    weights = bad / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match="1 of 2 checkpoints were not scored") as error:
        score(tmp_path, benchmark_root)
    assert str(bad) in str(error.value) and str(good) not in str(error.value)
    assert [path.parts[-3] for path in (tmp_path / "trial" / "scores").rglob("*.parquet")] == ["seed1"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "qwen2"}, "model_type 'qwen2' cannot be loaded"),
        ("config.json", {"attention_bias": True}, "attention_bias True cannot be loaded"),
        ("config.json", {"hidden_size": 64}, "weight model.embed_tokens.weight is"),
        ("config.json", {"num_hidden_layers": 3}, "weight model.layers.2.input_layernorm.weight is missing"),
        ("export.json", {"checkpoint": None}, "key 'checkpoint' is missing"),
    ],
)
def test_unusable_exports_are_refused(
    file: str, change: dict[str, Any], message: str, make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    path = make_export(run_folder(tmp_path).export(1)) / file
    content = json.loads(path.read_text()) | change
    write_json(path, {key: value for key, value in content.items() if value is not None})
    with pytest.raises(ArtifactError, match=message):
        score(tmp_path, benchmark_root)


def test_exports_are_named_by_their_run_folder(make_export: ExportMaker, tmp_path: Path) -> None:
    folder = make_export(run_folder(tmp_path, "sft-equal", seed=2).export(7), step=7)
    (export,) = inspect_exports(StudyFolder(tmp_path, "trial"))[0]
    assert export == read_export(folder)
    assert export.run == run_folder(tmp_path, "sft-equal", seed=2)
    assert (export.columns["stage"], export.columns["recipe"]) == ("SFT", "equal")
    with pytest.raises(ArtifactError, match="not the export of a run"):
        read_export(tmp_path / "somewhere")


# ---------------------------------------------------------------------------------------------- command


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = PROJECT_ROOT / "ray_eval" / "score.py"
    return subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, check=False, env=on_path())


def on_path() -> dict[str, str]:
    """The environment with this Python's folder first on PATH, as an activated one has it."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a refused command prints; asserts exit code 2."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_the_command_finds_studies_and_their_settings(
    make_export: ExportMaker,
    benchmark_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"
    make_export(run_folder(runs).export(1))
    monkeypatch.chdir(tmp_path)
    lost = refusal(capsys, "--no-ray")
    assert "study.json: where the benchmarks of this study lie is not recorded" in lost

    write_json(runs / "trial" / "study.json", {"documents_root": str(benchmark_root)})
    done = command("--no-ray", "--limit", 1, "--benchmarks", "piqa,wic")  # as a script, every other in this process
    assert done.returncode == 0, done.stderr
    assert "scoring trial: 1/1 checkpoints" in done.stdout and "tokens/s" in done.stdout and "ETA" in done.stdout
    assert only_scores(runs).num_rows == 2

    widened = refusal(capsys, "--no-ray", "--runs", runs, "--study", "trial", "--data-root", benchmark_root)
    assert "--replace overwrites them" in widened
    main(["--no-ray", "--runs", str(runs), "--data-root", str(benchmark_root), "--replace"])
    assert "1 checkpoints scored" in capsys.readouterr().out
    main(["--no-ray", "--exports", str(run_folder(runs).export(1))])
    assert "1 were up to date" in capsys.readouterr().out


def test_the_command_reads_the_study_that_was_saved(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path
) -> None:
    make_export(run_folder(tmp_path).export(1))
    study = load_study("mini", {"benchmarks": ["rte", "cb"], "scoring.sample": 1, "scoring.unconditional": False})
    save(study, tmp_path / "trial" / "study.yaml")
    write_json(tmp_path / "trial" / "study.json", {"documents_root": str(benchmark_root)})
    main(["--no-ray", "--runs", str(tmp_path)])
    table = only_scores(tmp_path)
    assert table["benchmark"].to_pylist() == ["rte", "cb"] and table["logprob_unconditional"].null_count == 2


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "--runs", tmp_path).startswith(f"error: {tmp_path}: no complete export is here")
    assert "not the export of a run" in refusal(capsys, "--exports", tmp_path)


def test_help_is_quick_and_shows_examples() -> None:
    from time import perf_counter

    begin = perf_counter()
    shown = command("--help")
    assert shown.returncode == 0 and "examples:" in shown.stdout and "ray job submit ray_eval/score.py" in shown.stdout
    assert perf_counter() - begin < 1.0
    heavy = "('torch', 'ray', 'pyarrow', 'pydantic')"
    code = f"import sys, ray_eval.score; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=PROJECT_ROOT) == "[]\n"


def test_the_schema_has_no_more_columns_than_the_design() -> None:
    assert len(SCHEMA) == 20
