"""Checkpoints that must not be scored: each is named with its reason, the others are scored, and the command fails."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval_rows import words

from configs.artifacts import read_json, sha256_file, sha256_files, write_json
from configs.errors import ArtifactError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import BENCHMARKS
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.checkpoints.exports import inspect_exports, read_export
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, score_study

ExportMaker = Callable[..., Path]


def folder(runs: Path, seed: int, study: str = "trial") -> Path:
    return StudyFolder(runs, study).run("mini_s", "V1P0", seed, "pt").export(1)


def score(runs: Path, root: Path) -> None:
    score_study(
        StudyFolder(runs, "trial"), ScoreOptions(documents_root=root, benchmarks=["piqa", "wic"], use_ray=False)
    )


def scored(runs: Path, study: str = "trial") -> list[str]:
    return sorted(path.parts[-3] for path in (runs / study / "scores").rglob("*.parquet"))


def change_weights(export: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the weights; export.json states their new hash, as if training had exported them."""
    from safetensors.torch import load_file, save_file

    path = export / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    restate(export, checkpoint=sha256_files([path]))


def restate(export: Path, name: str = "export.json", **values: Any) -> None:
    write_json(export / name, read_json(export / name) | values)


class Payload:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def nan(export: Path, _: Path) -> None:
    change_weights(export, lambda w: w["model.norm.weight"].fill_(float("nan")))


def infinite(export: Path, _: Path) -> None:
    change_weights(export, lambda w: w["model.layers.1.mlp.up_proj.weight"][3, 5:7].fill_(float("-inf")))


def unfinished(export: Path, _: Path) -> None:
    (export / "export.json").unlink()


def pickled(export: Path, mark: Path) -> None:
    (export / "model.safetensors").unlink()
    (export / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))


def disguised(export: Path, mark: Path) -> None:
    path = export / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload(mark)))
    restate(export, checkpoint=sha256_files([path]))


def no_weights(export: Path, _: Path) -> None:
    (export / "model.safetensors").unlink()


def own_code(export: Path, mark: Path) -> None:
    (export / "modeling.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    restate(export, "config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})


def trusting(export: Path, _: Path) -> None:
    restate(export, "config.json", trust_remote_code=True)


def larger_tokenizer(export: Path, _: Path) -> None:
    tokenizer = read_json(export / "tokenizer.json")
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 420, "content": "<|more|>"})
    write_json(export / "tokenizer.json", tokenizer)
    restate(export, tokenizer_sha256=sha256_file(export / "tokenizer.json"))


def other_tokenizer(export: Path, _: Path) -> None:
    """As large as the right one: only the hash tells."""
    other = train_tokenizer([*words(), "quite another text " * 50], 420, export.parent / "other", {})
    shutil.copyfile(other.folder / "tokenizer.json", export / "tokenizer.json")


def no_tokenizer(export: Path, _: Path) -> None:
    (export / "tokenizer.json").unlink()


def half_tokenizer(export: Path, _: Path) -> None:
    path = export / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])
    restate(export, tokenizer_sha256=None)


def cut_file(export: Path, _: Path) -> None:
    sizes = {path.name: {"bytes": path.stat().st_size} for path in export.iterdir() if path.name != "export.json"}
    restate(export, files=sizes)
    path = export / "tokenizer_config.json"
    path.write_bytes(path.read_bytes()[:-1])


def half_config(export: Path, _: Path) -> None:
    (export / "config.json").write_text('{"model_type": "llama",')


def no_context(export: Path, _: Path) -> None:
    restate(export, "config.json", max_position_embeddings=None)


BAD: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "NaN": (nan, "model.safetensors", "weight model.norm.weight holds 32 NaN or infinite numbers"),
    "infinite": (infinite, "model.safetensors", "weight model.layers.1.mlp.up_proj.weight holds 2 NaN or infinite"),
    "being written": (unfinished, "export.json", "incomplete export"),
    "pickle": (pickled, "", "weights in pytorch_model.bin only: reading a pickle runs whatever code it holds"),
    "pickle in disguise": (disguised, "model.safetensors", "not a readable safetensors file"),
    "no weights": (no_weights, "", "no weights"),
    "code of its own": (own_code, "config.json", "auto_map is {'AutoModelForCausalLM': 'modeling.Model'}"),
    "asks for trust": (trusting, "config.json", "trust_remote_code is True"),
    "larger tokenizer": (larger_tokenizer, "tokenizer.json", "ids up to 420, but vocab_size is 420"),
    "other tokenizer": (other_tokenizer, "tokenizer.json", "not the tokenizer of these weights"),
    "no tokenizer": (no_tokenizer, "tokenizer.json", "the export has no tokenizer"),
    "half a tokenizer": (half_tokenizer, "tokenizer.json", "not a tokenizer of Hugging Face"),
    "a file cut": (cut_file, "tokenizer_config.json", "(truncated or altered)"),
    "half a config": (half_config, "config.json", "not valid JSON"),
    "no context length": (no_context, "config.json", "max_position_embeddings is None"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_named_and_the_others_are_scored(
    case: str, make_export: ExportMaker, tokenizer: Tokenizer, benchmark_root: Path, tmp_path: Path
) -> None:
    assert tokenizer.vocab_size == 420
    for seed in (0, 1, 2):
        make_export(folder(tmp_path, seed), seed=seed)
    spoil, file, reason = BAD[case]
    bad, mark = folder(tmp_path, 1), tmp_path / "the code ran"
    spoil(bad, mark)
    with pytest.raises(ArtifactError, match="1 of 3 checkpoints were not scored") as error:
        score(tmp_path, benchmark_root)
    message = str(error.value)
    assert f"{bad / file if file else bad}: " in message and reason in message, message
    assert scored(tmp_path) == ["seed0", "seed2"] and not mark.exists()

    with pytest.raises(ArtifactError, match="1 of 1 checkpoints were not scored"):  # and it stays said
        score(tmp_path, benchmark_root)


def test_the_command_finishes_the_rest_and_fails(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over two studies and over named exports."""
    for study in ("a", "b"):
        for seed in (0, 1):
            make_export(folder(tmp_path, seed, study), seed=seed)
    unfinished(folder(tmp_path, 0, "a"), tmp_path)
    options = ["--no-ray", "--runs", str(tmp_path), "--data-root", str(benchmark_root), "--benchmarks", "piqa"]

    def failed(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            main([*options, *map(str, arguments)])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert f"{folder(tmp_path, 0, 'a') / 'export.json'}: incomplete export" in failed()
    assert scored(tmp_path, "a") == ["seed1"] and scored(tmp_path, "b") == ["seed0", "seed1"]
    shutil.rmtree(tmp_path / "b" / "scores")
    named = [folder(tmp_path, 0, "a"), folder(tmp_path, 0, "b")]
    assert "incomplete export" in failed("--exports", *named) and scored(tmp_path, "b") == ["seed0"]


def test_nothing_but_bad_checkpoints(make_export: ExportMaker, benchmark_root: Path, tmp_path: Path) -> None:
    unfinished(make_export(folder(tmp_path, 0)), tmp_path)
    with pytest.raises(ArtifactError, match="1 of 1 checkpoints were not scored"):
        score(tmp_path, benchmark_root)


def test_an_unknown_benchmark_is_named_with_the_valid_ones(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_export(folder(tmp_path, 0))
    options = ["--no-ray", "--runs", str(tmp_path), "--data-root", str(benchmark_root)]
    with pytest.raises(SystemExit) as end:
        main([*options, "--benchmarks", "piqa,hellaswagg"])
    message = capsys.readouterr().err
    assert end.value.code == 2 and "unknown benchmark 'hellaswagg'" in message
    assert f"valid: {', '.join(BENCHMARKS)}" in message and not (tmp_path / "trial" / "scores").exists()


def test_the_right_tokenizer_is_accepted(make_export: ExportMaker, tmp_path: Path) -> None:
    path = make_export(folder(tmp_path, 0))
    assert inspect_exports(StudyFolder(tmp_path, "trial")) == ([read_export(path)], [])


def test_a_python_without_the_packages_is_named() -> None:
    """As `ray job submit ray_eval/score.py` meets it where `ray start` ran outside the environment."""
    command = [sys.executable, "-S", "-E", "ray_eval/score.py", "--study", "trial"]  # -S: without site-packages
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{sys.executable}: this Python lacks jinja2, numpy, " in done.stderr and ", ray" in done.stderr
    assert "before `ray start`" in done.stderr
