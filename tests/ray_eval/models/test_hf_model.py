"""Models of transformers: the log-probabilities of their own plain forward pass, however their rows are laid out."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import CONTEXT_TOKENS, FAMILIES, random_model
from torch import nn

from configs.artifacts import read_json, write_json
from configs.errors import ArtifactError
from configs.llama import OFF
from ray_eval.models import hf_model
from ray_eval.models.batches import assemble, batch_rows
from ray_eval.models.hf_model import HFModel
from ray_eval.models.llama import Llama
from ray_eval.models.llama_shape import is_plain_llama
from ray_eval.models.scorer import CausalLM
from ray_eval.plans.encoding import Scored
from ray_eval.plans.trees import lay_out

VOCAB = 64
TOLERANCE_NATS = 1e-4


def sequences(lengths: tuple[int, ...] = (3, 9, 30, 60)) -> list[Scored]:
    """Five candidates after each of some prefixes, of one to five tokens; the third begins like the second."""
    random = np.random.default_rng(0)
    found = []
    for length in lengths:
        prefix, second = random.integers(0, VOCAB, length), random.integers(0, VOCAB, 3)
        tails = [random.integers(0, VOCAB, count) for count in (1, 4)]
        tails += [second, np.append(second[:2], random.integers(0, VOCAB, 3)), second[:1]]
        found += [Scored(np.append(prefix, tail).astype(np.int32), len(tail), False) for tail in tails]
    return found


def score(model: CausalLM, asked: list[Scored]) -> np.ndarray:
    rows = lay_out(asked, share=model.shares_prefixes)
    assert rows.branched.any() == model.shares_prefixes
    sums = np.zeros(len(asked))
    for numbers in batch_rows(rows, "cpu"):
        batch = assemble(rows, numbers, "cpu")
        logp = model.log_probabilities([batch])
        assert logp.dtype == torch.float32
        np.add.at(sums, batch.target_sequence, logp.double().numpy())
    return sums


@torch.no_grad()
def reference(folder: Path, asked: list[Scored]) -> list[float]:
    """One plain forward pass for each sequence."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    sums = []
    for scored in asked:
        ids = torch.tensor(scored.ids, dtype=torch.int64)[None]
        logp = model(ids[:, :-1]).logits.double().log_softmax(-1)[0, -scored.num_targets :]
        sums.append(float(logp.gather(1, ids[0, -scored.num_targets :, None]).sum()))
    return sums


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_plain_forward_passes(family: str, tmp_path: Path) -> None:
    folder, asked = random_model(tmp_path / "model", family, VOCAB), sequences()
    assert not is_plain_llama(folder)
    model = HFModel(folder)
    assert model.shares_prefixes == FAMILIES[family].shares
    expected = reference(folder, asked)
    assert np.std(expected) > 1  # the model has something to say
    assert score(model, asked) == pytest.approx(expected, abs=TOLERANCE_NATS)
    assert model.operations_per_token > 1e4 and model.operations_per_head >= 2 * VOCAB * 16


def saved_llama(root: Path, **options: Any) -> Path:
    """A random Llama with large weights, so that it has something to say."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT_TOKENS}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3, **options)).save_pretrained(root / "llama")
    return root / "llama"


def test_a_plain_llama_is_scored_by_our_own_code(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model", "Qwen2", VOCAB)
    assert not is_plain_llama(folder)
    saved_llama(tmp_path)
    assert is_plain_llama(tmp_path / "llama")
    config = read_json(tmp_path / "llama" / "config.json")
    write_json(tmp_path / "llama" / "config.json", {k: v for k, v in config.items() if k != "rms_norm_eps"})
    assert not is_plain_llama(tmp_path / "llama")  # transformers knows the default


OPTIONS: dict[str, tuple[bool, dict[str, Any]]] = {
    "base of old": (True, {"rope_theta": 50.0}),
    "base of old, no scaling": (True, {"rope_theta": 50.0, "rope_scaling": None}),
    "base of new": (True, {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    "base in both": (True, {"rope_theta": 50.0, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    "default of old": (True, {"rope_theta": 50.0, "rope_scaling": {"type": "default"}}),
    "head size": (True, {"head_dim": 8, "num_key_value_heads": None}),
    "what transformers leaves unread": (True, {"rope_interleaved": False, "pretraining_tp": 2}),
    "linear, old": (False, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "linear, between old and new": (False, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "linear beside a default": (
        False,
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}},
    ),
    "dynamic, old": (False, {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 24}),
    "two bases": (False, {"rope_theta": 9e3, "rope_scaling": {"type": "default", "rope_theta": 50.0}}),
    "one base a place": (False, {"rope_theta": 50.0, "rope_parameters": {"rope_type": "default", "rope_theta": 9e3}}),
    "sees what follows": (False, {"is_causal": False}),
    "half of it turned": (False, {"partial_rotary_factor": 0.5}),
    "of Granite": (False, {"logits_scaling": 3.0, "attention_multiplier": 0.1}),
    "window": (False, {"sliding_window": 4}),
}
"""What config.json of a small Llama may say besides its sizes -> is it a plain one?"""


@pytest.mark.parametrize("case", OPTIONS)
def test_a_llama_means_what_transformers_makes_of_its_config(case: str, tmp_path: Path) -> None:
    """Whoever scores it: our own code if it is a plain one, else transformers."""
    plain, options = OPTIONS[case]
    folder, asked = saved_llama(tmp_path), sequences((3, 9, 18))
    config = {k: v for k, v in read_json(folder / "config.json").items() if k not in ("rope_parameters", "head_dim")}
    write_json(folder / "config.json", config | options)
    assert is_plain_llama(folder) == plain
    model: CausalLM = Llama(folder) if plain else HFModel(folder)
    expected = reference(folder, asked)
    assert score(model, asked) == pytest.approx(expected, abs=TOLERANCE_NATS)
    if "linear" in case:  # the scaling tells
        write_json(folder / "config.json", config)
        assert np.abs(np.subtract(reference(folder, asked), expected)).max() > 0.1


def test_a_tied_output_layer_with_weights_of_its_own(tmp_path: Path) -> None:
    """transformers ties it only where the weights are equal."""
    from safetensors.torch import load_file, save_file

    folder, asked = saved_llama(tmp_path, tie_word_embeddings=True), sequences()
    assert is_plain_llama(folder)
    weights = load_file(folder / "model.safetensors")
    own = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights | {"lm_head.weight": own}, folder / "model.safetensors", metadata={"format": "pt"})
    assert not is_plain_llama(folder)
    assert score(HFModel(folder), asked) == pytest.approx(reference(folder, asked), abs=TOLERANCE_NATS)
    assert np.abs(score(Llama(folder), asked) - reference(folder, asked)).max() > 0.1


def test_every_option_of_transformers_llama_is_known() -> None:
    """A new version may bring one that changes the model."""
    from transformers import LlamaConfig, PreTrainedConfig

    changing_nothing = {"use_cache", "attention_dropout", "initializer_range", "pretraining_tp"}
    ids = {"bos_token_id", "eos_token_id", "pad_token_id"}
    read = {"hidden_act", "rms_norm_eps", "tie_word_embeddings", "head_dim", "rope_parameters", "vocab_size"}
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"}
    heads = {"num_attention_heads", "num_key_value_heads"}
    fields = {f.name for f in dataclasses.fields(LlamaConfig)} - {f.name for f in dataclasses.fields(PreTrainedConfig)}
    assert fields - set(OFF) == changing_nothing | ids | read | sizes | heads


@pytest.mark.parametrize("family", ["Qwen2", "Gemma 2: soft caps, eager attention, windows", "GPT-J: output bias"])
@torch.no_grad()
def test_bf16_bodies_have_fp32_logits(family: str, tmp_path: Path) -> None:
    """As the model's own states in bf16 give them through an output layer in fp32."""
    from transformers import AutoModelForCausalLM

    folder, (scored, *_) = random_model(tmp_path / "model", family, VOCAB), sequences((20,))
    model = HFModel(folder, dtype=torch.bfloat16)
    assert next(model._model.base_model.parameters()).dtype == torch.bfloat16
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    ids = torch.tensor(scored.ids, dtype=torch.int64)[None]
    head = plain.get_output_embeddings()
    states = plain.base_model(ids[:, :-1]).last_hidden_state[0, -1].float()
    logits = nn.functional.linear(states, head.weight.float(), head.bias.float() if head.bias is not None else None)
    if cap := getattr(plain.config, "final_logit_softcapping", None):
        logits = cap * (logits / cap).tanh()
    expected = logits.log_softmax(-1)
    rows = lay_out([scored], share=False)
    logp = model.log_probabilities([assemble(rows, np.array([0]), "cpu")])
    assert logp.tolist() == pytest.approx([float(expected[ids[0, -1]])], abs=1e-5)
    rounded = plain(ids[:, :-1]).logits[0, -1].float().log_softmax(-1)
    assert (rounded - expected).abs().max() > 1e-3  # what the model itself would have said


def test_only_scored_places_reach_the_output_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hf_model.LOGITS_IN_A_CHUNK, "cpu", 5 * VOCAB)
    monkeypatch.setattr(hf_model, "LEAST_ROWS", 1)
    model, asked = HFModel(random_model(tmp_path / "model", "Mistral", VOCAB)), sequences()
    seen: list[int] = []
    model._model.lm_head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[:-1].numel()))
    score(model, asked)
    assert sum(seen) == len(lay_out(asked).heads) and max(seen) == 5


def test_rows_that_lie_beyond_a_window_are_tried_as_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask that forgets the window is found out, and the model is given rows without branches."""
    folder, asked = random_model(tmp_path / "model", "Mistral", VOCAB), sequences()
    monkeypatch.setattr(hf_model.Masks, "__call__", lambda _, mask, *__: mask)
    model = HFModel(folder)
    assert not model.shares_prefixes and score(model, asked) == pytest.approx(reference(folder, asked), abs=1e-4)
    beyond = random_model(tmp_path / "beyond", "Mistral", VOCAB, sliding_window=CONTEXT_TOKENS)
    assert HFModel(beyond).shares_prefixes  # no row reaches that window


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_probe_decides_does_not_depend_on_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    for family in ("Falcon", "Falcon: ALiBi", "GPT-Neo: windows of places", "Mixtral", "Jamba"):
        folder = random_model(tmp_path / family.replace(" ", ""), family, VOCAB)
        assert HFModel(folder, dtype=dtype).shares_prefixes == FAMILIES[family].shares, family


class Peculiar(nn.Module):
    """Adds to the logits what depends on the tokens themselves: states alone do not give its logits."""

    def __init__(self, model: Any, *, honest: bool) -> None:
        super().__init__()
        self.inner, self.honest, self.config, self.base_model = model, honest, model.config, model.base_model

    def get_input_embeddings(self) -> nn.Module:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, logits_to_keep: Any = slice(None), **options: Any) -> Any:
        output = self.inner(input_ids=input_ids, **options)
        output.logits = (output.logits + nn.functional.one_hot(input_ids, VOCAB) * 3.0)[:, logits_to_keep]
        if not self.honest:
            output.logits = output.logits[:, :, torch.randperm(VOCAB)]
        return output


def test_a_peculiar_output_layer_is_asked_for_places_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = random_model(tmp_path / "model", "Qwen2", VOCAB), sequences()
    load = hf_model._load
    monkeypatch.setattr(hf_model, "_load", lambda *given: Peculiar(load(*given), honest=True).eval())
    model = HFModel(folder)
    assert not model.shares_prefixes
    whole = model._model
    expected = []
    for scored in asked:
        ids = torch.tensor(scored.ids, dtype=torch.int64)[None]
        with torch.no_grad():
            logp = whole(ids[:, :-1]).logits.double().log_softmax(-1)[0, -scored.num_targets :]
        expected.append(float(logp.gather(1, ids[0, -scored.num_targets :, None]).sum()))
    assert score(model, asked) == pytest.approx(expected, abs=TOLERANCE_NATS)

    monkeypatch.setattr(hf_model, "_load", lambda *given: Peculiar(load(*given), honest=False).eval())
    with pytest.raises(ArtifactError, match="Peculiar cannot be scored: its logits at chosen places"):
        HFModel(folder)


def test_damaged_models_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = random_model(tmp_path / "whole", "Qwen2", VOCAB)
    weights = load_file(whole / "model.safetensors")

    def refused(name: str, changed: dict[str, torch.Tensor], match: str) -> None:
        folder = shutil.copytree(whole, tmp_path / name)
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ArtifactError, match=match) as error:
            HFModel(folder)
        assert str(folder) in str(error.value)

    name = "model.layers.1.mlp.up_proj.weight"
    refused("missing", {key: w for key, w in weights.items() if key != name}, f"weight {name} is missing")
    weights[name][1, 2] = float("nan")
    refused("nan", weights, f"weight {name} holds 1 NaN")
    refused("misshapen", weights | {name: weights[name][:4]}, "transformers cannot load it")
    half = shutil.copytree(whole, tmp_path / "half")
    (half / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:999])
    with pytest.raises(ArtifactError, match="transformers cannot load it"):
        HFModel(half)


def test_long_rows_do_not_change_the_positions_of_short_ones(tmp_path: Path) -> None:
    """LongRoPE turns every token of an input otherwise as soon as the input is long."""
    folder = random_model(tmp_path / "model", "Phi 3: LongRoPE", VOCAB)
    asked = sequences((40, 18, 21, 41))
    model = HFModel(folder)
    rows = lay_out(asked, share=False)
    batch = assemble(rows, np.arange(len(asked)), "cpu")  # short and long ones together
    sums = np.zeros(len(asked))
    np.add.at(sums, batch.target_sequence, model.log_probabilities([batch]).double().numpy())
    assert sums == pytest.approx(reference(folder, asked), abs=TOLERANCE_NATS)
