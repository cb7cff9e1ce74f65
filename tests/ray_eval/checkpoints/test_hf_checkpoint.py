"""`score.py --model`: Hugging Face models, from folders and the Hub; what must not be scored or run, and is named."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from eval_rows import words
from foreign_tokenizers import save_tokenizer
from random_models import random_model

from configs.artifacts import read_json, sha256_files, write_json
from configs.errors import ArtifactError
from ray_eval.checkpoints import hf_checkpoint as foreign
from ray_eval.checkpoints.hf_checkpoint import read_model, read_models
from ray_eval.results import metadata_of, read_scores
from ray_eval.score import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of three kinds, each with its tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name, family, tokenizer in (
        ("qwen", "Qwen2", "only_eos"),
        ("bloom", "Bloom: ALiBi", "gpt2"),
        ("gemma", "Gemma 2: soft caps, eager attention, windows", "metaspace"),
    ):
        vocab = save_tokenizer(root / name, tokenizer, words())
        random_model(root / name, family, vocab)
    return root


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of one of them."""
    return shutil.copytree(made / "qwen", tmp_path / "models" / "qwen")


def score(root: Path, *arguments: object) -> None:
    main(["--no-ray", "--data-root", str(root), "--benchmarks", "piqa,wic", *map(str, arguments)])


def refusal(capsys: pytest.CaptureFixture[str], root: Path, *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        score(root, *arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def scores(out: Path) -> dict[str, pa.Table]:
    folder = out / "models" / "scores"
    return {str(path.relative_to(folder)): read_scores(path) for path in folder.rglob("*.parquet")}


def test_models_of_several_kinds_are_scored_and_described(
    made: Path,
    benchmark_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [made / name for name in ("qwen", "bloom", "gemma")]
    score(benchmark_root, "--model", *named[:2], "--model", named[2], "--out", "here", "--limit", 2)
    out = capsys.readouterr().out
    said = rf"models: 3 checkpoints scored in \d+ s, 0 were up to date \({tmp_path}/here/models/scores\)"
    assert re.search(said, out)
    found = scores(tmp_path / "here")
    assert sorted(found) == [f"{name}/none/seed0/pt/step-0000000.parquet" for name in ("bloom", "gemma", "qwen")]
    for folder in named:
        table = found[f"{folder.name}/none/seed0/pt/step-0000000.parquet"]
        row, metadata = table.slice(0, 1).to_pylist()[0], metadata_of(table)
        identity = {
            name: row[name] for name in ("study", "scale", "mixture", "stage", "recipe", "seed", "step", "tokens")
        }
        assert identity == {
            "study": "models", "scale": folder.name, "mixture": "none", "stage": "PT", "recipe": "", "seed": 0,
            "step": 0, "tokens": 0,
        }  # fmt: skip
        assert row["checkpoint"] == metadata["checkpoint"] == sha256_files(list(folder.glob("*.safetensors")))
        assert metadata["model"] == str(folder) and "trust_remote_code" not in metadata and metadata["dtype"] == "fp32"
        assert len(table) == 4 and f"{folder.name}  (lm_eval/0shot)" in out
    assert metadata_of(found["gemma/none/seed0/pt/step-0000000.parquet"])["bos_policy"].startswith("<s>;")

    score(benchmark_root, "--model", *named, "--out", tmp_path / "here", "--limit", 2)
    assert "0 checkpoints scored in 0 s, 3 were up to date" in capsys.readouterr().out
    assert "--replace overwrites them" in refusal(
        capsys, benchmark_root, "--model", named[0], "--out", "here", "--limit", 1
    )


def test_analysis_reads_them_as_a_study(made: Path, benchmark_root: Path, tmp_path: Path) -> None:
    from analysis.scores.gather import gather
    from analysis.scores.score_files import read_scores as read_study
    from configs.layout import StudyFolder

    score(benchmark_root, "--model", made / "qwen", made / "bloom", "--runs", tmp_path)
    assert gather(read_study(StudyFolder(tmp_path, "models"))).cells["checkpoint"].nunique() == 2


def test_weights_keep_the_precision_they_are_stored_in(made: Path, benchmark_root: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(made / "qwen", tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(made / "qwen").bfloat16().save_pretrained(folder)
    assert read_model(str(folder), tmp_path).precision == "bf16"
    assert read_model(str(folder), tmp_path, precision="fp32").precision == "fp32"
    score(benchmark_root, "--model", folder, "--out", tmp_path / "out")
    (table,) = scores(tmp_path / "out").values()
    assert metadata_of(table)["dtype"] == "bf16"


def test_the_context_is_as_long_as_the_harness_takes_it(made: Path, tmp_path: Path) -> None:
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig, AutoTokenizer

    for name in ("qwen", "bloom", "gemma"):
        folder = shutil.copytree(made / name, tmp_path / name)
        expected = resolve_max_length(AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
        assert read_model(str(folder), tmp_path).context_tokens == expected
        restate(folder, "tokenizer_config.json", model_max_length=77)
        expected = resolve_max_length(AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
        assert read_model(str(folder), tmp_path).context_tokens == expected == (77 if name == "bloom" else 128)


# ---------------------------------------------------------------------------------------------- refused


def restate(folder: Path, file: str, **values: Any) -> None:
    write_json(folder / file, read_json(folder / file) | values)


class Payload:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def pickled(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark)))


def disguised(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(mark)))


def own_code(folder: Path, mark: Path) -> None:
    (folder / "modeling.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    restate(folder, "config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})


def own_tokenizer_code(folder: Path, mark: Path) -> None:
    (folder / "words.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    restate(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["words.Words", None]})


def half(folder: Path, _: Path) -> None:
    write_json(
        folder / "model.safetensors.index.json", {"weight_map": {"a": "model.safetensors", "b": "two.safetensors"}}
    )


def unknown(folder: Path, _: Path) -> None:
    restate(folder, "config.json", model_type="tomorrow")


def small_vocabulary(folder: Path, _: Path) -> None:
    restate(folder, "config.json", vocab_size=99)


def no_config(folder: Path, _: Path) -> None:
    (folder / "config.json").unlink()


def misfit(folder: Path, _: Path) -> None:
    restate(folder, "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3)


REFUSED = {
    "pickle": (pickled, "weights in pytorch_model.bin only: reading a pickle runs whatever code it holds"),
    "pickle in disguise": (disguised, "transformers cannot load it"),
    "code of its own": (own_code, "auto_map is {'AutoModelForCausalLM': 'modeling.Model'}"),
    "tokenizer with code": (own_tokenizer_code, "--trust-remote-code runs it, if you trust where it comes from"),
    "files missing": (half, "1 of 2 files of weights are missing (two.safetensors)"),
    "unknown architecture": (unknown, "config.json: not understood ("),
    "another tokenizer": (small_vocabulary, "but vocab_size is 99: not the tokenizer of these weights"),
    "no config": (no_config, "config.json: file is missing"),
    "weights missing": (misfit, "weight model.layers.2."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_model_is_named_and_the_others_are_scored(
    case: str, model: Path, made: Path, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, reason = REFUSED[case]
    mark = tmp_path / "the code ran"
    spoil(model, mark)
    message = refusal(capsys, benchmark_root, "--model", model, made / "bloom", "--out", tmp_path, "--limit", 1)
    assert str(model) in message and reason in message and not mark.exists()
    assert list(scores(tmp_path)) == ["bloom/none/seed0/pt/step-0000000.parquet"]


def test_code_is_run_only_when_it_is_trusted(
    model: Path,
    benchmark_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "the code ran"
    (model / "modeling.py").write_text(
        f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class MineConfig(Qwen2Config):\n    model_type = 'mine'\n"
        "class Mine(Qwen2ForCausalLM):\n    config_class = MineConfig\n"
    )
    code = {"AutoConfig": "modeling.MineConfig", "AutoModelForCausalLM": "modeling.Mine"}
    restate(model, "config.json", auto_map=code, model_type="mine", architectures=["Mine"])
    assert "never done unasked" in refusal(capsys, benchmark_root, "--model", model, "--out", tmp_path)
    assert not mark.exists()
    score(benchmark_root, "--model", model, "--out", tmp_path, "--trust-remote-code")
    (table,) = scores(tmp_path).values()
    assert mark.exists() and metadata_of(table)["trust_remote_code"] == "true"


def test_scores_of_one_model_are_not_taken_for_those_of_another(
    made: Path, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (shutil.copytree(made / name, tmp_path / name / "final") for name in ("qwen", "bloom"))
    models, errors = read_models([str(first), str(second), str(first)], tmp_path)
    assert [model.folder for model in models] == [first]
    assert [str(error).startswith(f"{second}: {first} and {second} have the same name") for error in errors] == [True]

    score(benchmark_root, "--model", first, "--out", tmp_path)
    refused = refusal(capsys, benchmark_root, "--model", second, "--out", tmp_path)
    assert f"scores of another model of this name are there ({first})" in refused and "--out DIR" in refused
    score(benchmark_root, "--model", second, "--out", tmp_path, "--replace")
    (table,) = scores(tmp_path).values()
    assert metadata_of(table)["model"] == str(second)


def test_weights_that_change_while_they_wait_are_not_scored(model: Path, tmp_path: Path) -> None:
    found = read_model(str(model), tmp_path)
    found.verify()
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="when scoring began it was"):
        found.verify()
    shutil.rmtree(model)
    with pytest.raises(ArtifactError, match="the model is not on this machine"):
        found.verify()


# ---------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in the place of the one call that would go out; holds what it was asked."""
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        if isinstance(asked.get("fails"), Exception):
            raise asked["fails"]
        folder = tmp_path / "cache" / "snapshots" / ("c0ffee" if options["revision"] is None else "beef")
        return str(shutil.copytree(made / "qwen", folder, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_models_of_the_hub_are_named_by_id_and_revision(
    hub: dict[str, Any], benchmark_root: Path, tmp_path: Path
) -> None:
    score(benchmark_root, "--model", "org/small.1", "org/small.1@step/1000", "--out", tmp_path)
    found = scores(tmp_path)
    assert sorted(found) == [
        f"org__small.1/{mixture}/seed0/pt/step-0000000.parquet" for mixture in ("none", "step__1000")
    ]
    models = sorted(metadata_of(table)["model"] for table in found.values())
    assert models == ["org/small.1@beef", "org/small.1@c0ffee"]
    assert (hub["name"], hub["revision"]) == ("org/small.1", "step/1000")


@pytest.mark.parametrize("trusted", [False, True])
def test_neither_pickles_nor_code_are_fetched(trusted: bool, hub: dict[str, Any], tmp_path: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    read_model("org/model", tmp_path, trust_remote_code=trusted)
    repository = [
        *("config.json", "generation_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"),
        *(
            "pytorch_model.bin",
            "model.pt",
            "modeling.py",
            "onnx/model.safetensors",
            "consolidated.safetensors",
            "x.gguf",
        ),
    ]
    fetched = filter_repo_objects(
        repository, allow_patterns=hub["allow_patterns"], ignore_patterns=hub["ignore_patterns"]
    )
    assert list(fetched) == repository[:10] + (["modeling.py"] if trusted else [])


def hub_failures() -> dict[str, tuple[Exception, str]]:
    import httpx2
    from huggingface_hub import errors

    def answered(kind: type[Exception], status: int) -> Exception:
        return kind("no", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub")))  # type: ignore[call-arg]

    return {
        "unknown": (answered(errors.RepositoryNotFoundError, 404), "there is no such model, or it is private"),
        "gated": (answered(errors.GatedRepoError, 403), "its terms must be accepted first"),
        "revision": (answered(errors.RevisionNotFoundError, 404), "there is no revision v9"),
        "offline": (errors.OfflineModeIsEnabled("offline"), "offline mode is on, so the Hub is not asked"),
        "no network": (errors.LocalEntryNotFoundError("no"), "the Hub cannot be reached"),
        "cut": (httpx2.ConnectError("no route"), "the Hub cannot be reached"),
    }


@pytest.mark.parametrize("case", ["unknown", "gated", "revision", "offline", "no network", "cut"])
def test_what_keeps_a_model_on_the_hub_away_is_said(case: str, hub: dict[str, Any], tmp_path: Path) -> None:
    hub["fails"], reason = hub_failures()[case]
    with pytest.raises(ArtifactError) as error:
        read_model("org/model@v9", tmp_path)
    assert str(error.value).startswith(f"org/model on the Hub: {reason}") and "next:" in str(error.value)


def test_the_real_client_without_a_network_is_understood(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="org/never on the Hub: offline mode is on, so the Hub is not asked"):
        read_model("org/never", tmp_path)


def test_a_repository_without_safetensors_is_named(
    hub: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare").mkdir()
    monkeypatch.setattr(foreign, "_download", lambda *_: tmp_path / "bare")
    with pytest.raises(ArtifactError, match=r"no weights\n  valid: \*.safetensors"):
        read_model("org/model", tmp_path)


def test_a_path_that_is_not_there_is_not_looked_up(hub: dict[str, Any], tmp_path: Path) -> None:
    for named in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c", "~/nowhere"):
        with pytest.raises(ArtifactError, match="no such folder"):
            read_model(named, tmp_path)
    assert not hub
