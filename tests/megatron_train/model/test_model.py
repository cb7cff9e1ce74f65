"""The model and its export against transformers' Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from train_runs import TOKENIZER
from transformers import LlamaConfig, LlamaForCausalLM

from configs.artifacts import sha256_file
from configs.cost.model import parameters
from configs.errors import ArtifactError, ConfigError
from configs.layout import tokenizer_dir
from configs.schema import ModelShape
from megatron_train import compare
from megatron_train.checkpoints import export as export_module
from megatron_train.checkpoints.export import check_shape, export, hf_config, load_export, read_export, shape_of
from megatron_train.model.model import build_model
from megatron_train.ranks.parallel import Ranks


@pytest.mark.parametrize("activation", ["swiglu", "geglu"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_transformers(
    shape: ModelShape, ranks: Ranks, data: Path, tmp_path: Path, activation: str, tied: bool
) -> None:
    from transformers import AutoTokenizer

    shape = shape.model_copy(
        update={
            "activation": activation,
            "tied_embeddings": tied,
            "init_std": 0.2,
            "rope_base": 500.0,
            "norm_eps": 1e-3,
        }
    )
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=5).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters(shape).total
    # Unit gains would hide a mixed-up norm.
    for name, parameter in model.named_parameters():
        if name.endswith("layernorm.weight"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    export(tmp_path / "export", model, shape, ranks, tokenizer_dir(data, TOKENIZER), {"step": 1})

    llama = LlamaForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    tokens = torch.randint(0, shape.vocab, (3, shape.context_tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.logits(tokens), llama(tokens).logits
    assert theirs.std() > 0.1, "logits too small to tell models apart"
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "export").eos_token_id == 0


def test_import_gives_the_same_export_again(shape: ModelShape, ranks: Ranks, data: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_dir(data, TOKENIZER)
    first = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    other = build_model(shape, tensor_parallel=1, device=ranks.device, seed=2)
    sha = export(tmp_path / "a", first, shape, ranks, tokenizer, {"step": 1})
    assert export(tmp_path / "b", other, shape, ranks, tokenizer, {"step": 1}) != sha
    load_export(tmp_path / "a", other, shape, ranks)
    assert export(tmp_path / "c", other, shape, ranks, tokenizer, {"step": 1}) == sha
    assert sha256_file(tmp_path / "a" / "export.json") == sha256_file(tmp_path / "c" / "export.json")


def test_altered_or_unfit_exports_are_refused(shape: ModelShape, ranks: Ranks, data: Path, tmp_path: Path) -> None:
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    folder = tmp_path / "export"
    export(folder, model, shape, ranks, tokenizer_dir(data, TOKENIZER), {"step": 1, "tokens": 10})
    with pytest.raises(ConfigError, match=r"num_hidden_layers is 2, the config asks for 3"):
        check_shape(folder, shape.model_copy(update={"layers": 3}))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*sha256"):
        read_export(folder)
    (folder / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*truncated"):
        read_export(folder)


def test_initial_weights(shape: ModelShape, ranks: Ranks) -> None:
    """Standard deviations as documented; the same seed gives the same weights."""
    wide = shape.model_copy(update={"hidden": 256, "ffn_hidden": 512, "vocab": 1024})
    model = dict(build_model(wide, tensor_parallel=1, device=ranks.device, seed=3).named_parameters())
    again = dict(build_model(wide, tensor_parallel=1, device=ranks.device, seed=3).named_parameters())
    for name, weight in model.items():
        assert torch.equal(weight, again[name])
        if weight.dim() == 2:
            residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
            assert weight.std().item() == pytest.approx(0.02 / 2 if residual else 0.02, rel=0.05), name
        else:
            assert torch.all(weight == 1)


def test_config_of_the_export_is_explicit(shape: ModelShape, ranks: Ranks, data: Path, tmp_path: Path) -> None:
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    export(tmp_path / "e", model, shape, ranks, tokenizer_dir(data, TOKENIZER), {"step": 7, "tokens": 70})
    config = json.loads((tmp_path / "e" / "config.json").read_text())
    assert (config["head_dim"], config["tie_word_embeddings"], config["hidden_act"]) == (8, True, "silu")
    facts = read_export(tmp_path / "e")
    assert (facts["step"], facts["tokens"]) == (7, 70)


@pytest.fixture
def stranger(shape: ModelShape, tmp_path: Path) -> Path:
    """A Llama that transformers made and saved in several files."""
    config = LlamaConfig(**hf_config(shape, torch.float32))
    torch.manual_seed(11)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "llama", max_shard_size="20KB")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) > 2
    return tmp_path / "llama"


def test_somebody_elses_llama_can_be_loaded(shape: ModelShape, ranks: Ranks, stranger: Path) -> None:
    assert shape_of(stranger) == shape
    check_shape(stranger, shape)
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1).eval()
    load_export(stranger, model, shape, ranks)
    theirs = LlamaForCausalLM.from_pretrained(stranger, dtype=torch.float32).eval()
    tokens = torch.arange(shape.context_tokens)[None] % shape.vocab
    with torch.no_grad():
        torch.testing.assert_close(model.logits(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
    assert len(read_export(stranger)["checkpoint"]) == 64


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling {'type': 'linear'"),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta ["),
        ({"rope_scaling": "linear"}, "rope_scaling 'linear'"),
        ({"is_causal": False}, "is_causal False"),
        ({"per_layer_config": {"1": {"intermediate_size": 8}}}, "per_layer_config {"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config {"),
        ({"logits_scaling": 8.0, "sliding_window": 16}, "logits_scaling 8.0, sliding_window 16"),
    ],
)
def test_options_that_are_not_built_are_named(options: dict[str, Any], named: str, stranger: Path) -> None:
    config = json.loads((stranger / "config.json").read_text())
    (stranger / "config.json").write_text(json.dumps(config | options))
    with pytest.raises(ConfigError) as error:
        shape_of(stranger)
    assert f"config.json: {named}" in str(error.value)


def test_a_tied_output_layer_with_weights_of_its_own_is_refused(
    shape: ModelShape, ranks: Ranks, stranger: Path, tmp_path: Path
) -> None:
    """transformers ties it only where they are equal."""
    theirs = LlamaForCausalLM.from_pretrained(stranger)
    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    model = build_model(shape, tensor_parallel=1, device=ranks.device, seed=1)
    for twin, weight in enumerate((weights["lm_head.weight"].flip(0), weights["lm_head.weight"])):
        folder = shutil.copytree(stranger, tmp_path / f"twin{twin}", ignore=shutil.ignore_patterns("*.safetensors*"))
        save_file(weights | {"lm_head.weight": weight.contiguous()}, folder / "model.safetensors")
        if twin == 0:
            with pytest.raises(ConfigError, match=r"embed_tokens\.weight and lm_head\.weight differ"):
                load_export(folder, model, shape, ranks)
    load_export(folder, model, shape, ranks)


def test_a_llama_of_another_kind_is_refused(stranger: Path) -> None:
    config = json.loads((stranger / "config.json").read_text())
    (stranger / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2, "attention_bias": True}))
    with pytest.raises(ConfigError, match=r"num_key_value_heads 2, attention_bias True cannot be loaded"):
        shape_of(stranger)
    next(stranger.glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(ArtifactError, match="no such weights"):
        read_export(stranger)


def test_compare_says_how_far_apart_two_models_are(
    stranger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare.main([str(stranger)])
    assert "same likeliest token at 100.000%" in capsys.readouterr().out
    right = export_module._hf_names

    def swapped(name: str) -> list[str]:
        return right(name)[::-1]  # values for queries: the shapes fit, the model is another

    monkeypatch.setattr(export_module, "_hf_names", swapped)
    with pytest.raises(SystemExit) as stop:
        compare.main([str(stranger)])
    assert stop.value.code == 2
    assert "the two models differ" in capsys.readouterr().err
