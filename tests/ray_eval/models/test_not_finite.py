"""Log-probabilities that are NaN or infinite: the model is refused by name, and nothing of them is kept or believed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from eval_rows import words
from foreign_tokenizers import save_tokenizer
from random_models import random_model

from configs.artifacts import read_json, sha256_files, write_json
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.schema import StudyScoring
from ray_eval.harnesses.lm_eval_results import export_results
from ray_eval.models.forward_counts import ForwardCounts
from ray_eval.models.llama import Llama
from ray_eval.results import metadata_of, open_scores, read_scores, write_scores
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, score_study
from ray_eval.workers.parts import Parts

ExportMaker = Callable[..., Path]
HALF = StudyScoring(precision="fp16")


def multiply(folder: Path, factor: float, wanted: str = "mlp") -> None:
    """Multiply the weights whose name contains `wanted`."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    scaled = {name: weight * factor if wanted in name else weight for name, weight in weights.items()}
    save_file(scaled, path, metadata={"format": "pt"})
    if (folder / "export.json").is_file():
        about = read_json(folder / "export.json")
        write_json(folder / "export.json", about | {"checkpoint": sha256_files([path])})


def folder(runs: Path, seed: int) -> Path:
    return StudyFolder(runs, "trial").run("mini_s", "V1P0", seed, "pt").export(1)


@pytest.fixture
def runs(make_export: ExportMaker, tmp_path: Path) -> Path:
    """Two exports, of which the second overflows in fp16."""
    for seed in (0, 1):
        make_export(folder(tmp_path, seed), seed=seed)
    multiply(folder(tmp_path, 1), 300)
    return tmp_path


def score(runs: Path, root: Path, scoring: StudyScoring = HALF, **options: Any) -> None:
    options = {"benchmarks": ["piqa", "wic"], "use_ray": False, **options}
    score_study(StudyFolder(runs, "trial"), ScoreOptions(documents_root=root, scoring=scoring, **options))


def scored(runs: Path) -> list[str]:
    return sorted(path.parts[-3] for path in (runs / "trial" / "scores").rglob("*.parquet"))


def refusal(runs: Path, root: Path, **options: Any) -> str:
    with pytest.raises(ArtifactError, match=r"1 of [12] checkpoints were not scored") as error:
        score(runs, root, **options)
    return str(error.value)


@pytest.mark.parametrize("unit_work", [None, 1e6], ids=["one unit", "many units"])
def test_a_model_that_overflows_is_named_and_the_other_is_scored(
    unit_work: float | None, runs: Path, benchmark_root: Path
) -> None:
    message = refusal(runs, benchmark_root, unit_work=unit_work)
    said = rf"{folder(runs, 1)}: (\d+) of (\d+) log-probabilities are NaN or infinite in fp16; none is written"
    found = re.search(said, message)
    assert found and 0 < int(found[1]) <= int(found[2]) and "--precision bf16 or fp32" in message
    assert scored(runs) == ["seed0"] and not list((runs / "trial" / "scores").rglob("*.part"))
    assert f"{folder(runs, 1)}: " in refusal(runs, benchmark_root, unit_work=unit_work)  # and it stays said
    score(runs, benchmark_root, StudyScoring(precision="bf16"))
    assert scored(runs) == ["seed0", "seed1"]
    for path in (runs / "trial" / "scores").rglob("*.parquet"):
        assert metadata_of(read_scores(path))["dtype"] == "bf16"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_is_enough(value: float, runs: Path, benchmark_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-inf too: a candidate that a model calls impossible has no margin, no confidence and no mean."""
    right = Llama.log_probabilities
    calls: list[None] = []

    def log_probabilities(self: Llama, batches: Any) -> Any:
        found = right(self, batches).clone()
        found[-1] = found[-1] if calls else value
        calls.append(None)
        return found

    monkeypatch.setattr(Llama, "log_probabilities", log_probabilities)
    shutil.rmtree(folder(runs, 1))
    message = refusal(runs, benchmark_root, scoring=StudyScoring())
    assert re.search(r"1 of \d+ log-probabilities are NaN or infinite in fp32", message)
    assert "its training diverged, or its files are damaged" in message and not scored(runs)


def test_weights_too_large_for_a_precision_are_not_called_damaged(runs: Path, benchmark_root: Path) -> None:
    multiply(folder(runs, 1), 1e4)
    message = refusal(runs, benchmark_root)
    assert re.search(r"safetensors: weight \S+mlp\S+ holds \d+ numbers that are too large for fp16", message)
    assert "--precision bf16 or fp32" in message and scored(runs) == ["seed0"]


# ---------------------------------------------------------------------------------------------- models of others


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Our own Llama, one that transformers runs, and their copies that overflow in fp16."""
    for name, family in (("llama", "Llama 3"), ("qwen2", "Qwen2")):
        vocab = save_tokenizer(tmp_path / name, "gpt2", words())
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}} if name == "llama" else {}
        random_model(tmp_path / name, family, vocab, max_position_embeddings=256, **plain)
        shutil.copytree(tmp_path / name, tmp_path / f"{name}_large")
        multiply(tmp_path / f"{name}_large", 1000)
    return tmp_path


def test_models_of_others_that_overflow_are_named(
    models: Path, benchmark_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(models / name) for name in ("llama_large", "llama", "qwen2_large", "qwen2")]
    options = ["--no-ray", "--data-root", str(benchmark_root), "--benchmarks", "piqa,wic", "--out", str(models)]
    with pytest.raises(SystemExit) as end:
        main([*options, "--precision", "fp16", "--model", *named])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and "2 of 4 checkpoints were not scored" in err
    assert re.search(rf"{named[0]}: \d+ of \d+ log-probabilities are NaN or infinite in fp16; none is written", err)
    assert re.search(rf"{named[2]}: \d+ of \d+ logits are NaN or infinite in fp16, on random tokens", err)
    assert err.count("--precision bf16 or fp32") == 2
    found = [path.parts[-5] for path in (models / "models" / "scores").rglob("*.parquet")]
    assert sorted(found) == ["llama", "qwen2"]
    assert "llama  (lm_eval/0shot)" in out and "large  (" not in out


# ---------------------------------------------------------------------------------------------- what is there


def spoil(path: Path, column: str) -> None:
    """Write NaN into a score file, as earlier versions did."""
    table = open_scores(path)
    values = table[column].to_pylist()
    values[1] = [float("nan"), *values[1][1:]]
    at = table.schema.get_field_index(column)
    write_scores(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), path)


@pytest.mark.parametrize("column", ["logprob_sum", "logprob_unconditional"])
def test_an_old_score_file_with_nan_is_refused_and_scored_again(
    column: str, runs: Path, benchmark_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder(runs, 1))
    score(runs, benchmark_root)
    (path,) = (runs / "trial" / "scores").rglob("*.parquet")
    right = path.read_bytes()
    spoil(path, column)
    for read in (lambda: read_scores(path), lambda: export_results([path], runs / "exported")):
        with pytest.raises(ArtifactError, match="1 log-probabilities are NaN or infinite") as error:
            read()
        assert str(error.value).startswith(str(path)) and not (runs / "exported").exists()
    score(runs, benchmark_root, replace=False)
    assert path.read_bytes() == right


def test_an_old_score_file_with_nan_is_not_shown_as_a_result(
    runs: Path, benchmark_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal(runs, benchmark_root)
    (path,) = (runs / "trial" / "scores").rglob("*.parquet")
    shutil.copytree(path.parents[1], path.parents[2] / "seed1")
    old = path.parents[2] / "seed1" / "pt" / path.name
    checkpoint = read_json(folder(runs, 1) / "export.json")["checkpoint"]
    table = open_scores(old)
    write_scores(table.replace_schema_metadata(metadata_of(table) | {"checkpoint": checkpoint}), old)
    spoil(old, "logprob_sum")
    options = ["--no-ray", "--data-root", str(benchmark_root), "--benchmarks", "piqa,wic", "--runs", str(runs)]
    with pytest.raises(SystemExit):
        main([*options, "--precision", "fp16"])
    out, err = capsys.readouterr()
    assert f"{folder(runs, 1)}: " in err and "seed 0" in out and "seed 1" not in out


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_part_with_such_a_number_is_removed(value: float, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "step-1.parquet", {"plan": "p"})
    parts.write(range(3), np.array([-1.0, value]), ForwardCounts())
    assert parts.path(range(3)).exists()
    assert parts.read(range(3)) is None and not parts.path(range(3)).exists()
