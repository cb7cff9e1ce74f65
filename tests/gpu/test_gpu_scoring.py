"""Log-probabilities on a GPU, in both forms of attention, against fp32 on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from configs.artifacts import write_json
from configs.load import load_train
from ray_eval.models.batches import assemble
from ray_eval.models.llama import Llama
from ray_eval.models.tree_attention import Form
from ray_eval.plans.encoding import Scored
from ray_eval.plans.trees import TokenRows, lay_out

SIZES = [
    pytest.param("mini_s.yaml", id="tiny"),
    pytest.param("240m.yaml", id="240m, two layers", marks=pytest.mark.gpu),
    pytest.param("1b.yaml", id="1b, two layers", marks=pytest.mark.gpu),
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGEST_DIFFERENCE_NATS = {torch.float32: 1e-2 if DEVICE == "cuda" else 1e-4, torch.bfloat16: 0.5}
"""Of a sum over a branch; weights are drawn wide, so that attention and scores are far from uniform. fp32 products on a
GPU may be TF32."""


def random_llama(folder: Path, name: str) -> tuple[Path, int]:
    """An export of two layers at a config's width, and its vocabulary."""
    shape = load_train(name, {"model.layers": 2}).model
    draw = torch.Generator().manual_seed(0)

    def weight(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw) * size[-1] ** -0.5

    width, ffn, heads = shape.hidden, shape.ffn_hidden, shape.heads * shape.head_dim
    tensors = {"model.embed_tokens.weight": weight(shape.vocab, width), "model.norm.weight": torch.ones(width)}
    for i in range(2):
        at = f"model.layers.{i}."
        tensors |= {f"{at}self_attn.{n}_proj.weight": weight(heads, width) for n in "qkv"}
        tensors |= {f"{at}mlp.{n}_proj.weight": weight(ffn, width) for n in ("gate", "up")}
        tensors |= {f"{at}{n}_layernorm.weight": torch.ones(width) for n in ("input", "post_attention")}
        tensors |= {
            f"{at}self_attn.o_proj.weight": weight(width, heads),
            f"{at}mlp.down_proj.weight": weight(width, ffn),
        }
    save_file(tensors, folder / "model.safetensors")
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_act": {"swiglu": "silu", "geglu": "gelu"}[shape.activation],
        "num_hidden_layers": 2,
        "hidden_size": width,
        "intermediate_size": shape.ffn_hidden,
        "num_attention_heads": shape.heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 1024,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": True,
    }
    write_json(folder / "config.json", config)
    return folder, shape.vocab


def questions(vocab: int) -> TokenRows:
    """Twelve contexts with four answers each, and a long passage with ten questions."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return rng.integers(1, vocab, count).tolist()

    asked = []
    for length in range(10, 70, 5):
        context = tokens(length)
        asked += [Scored(np.array(context + tokens(n), np.int32), n, truncated=False) for n in (1, 3, 9, 20)]
    passage = tokens(200)
    asked += [Scored(np.array(passage + tokens(15), np.int32), 2, truncated=False) for _ in range(10)]
    return lay_out(asked)


def sums(model: Llama, rows: TokenRows, form: Form) -> np.ndarray:
    found = np.zeros(int(rows.target_sequence.max()) + 1)
    kinds = [np.arange(len(rows.lengths))] if form == "flat" else [np.flatnonzero(rows.branched == b) for b in (0, 1)]
    for numbers in kinds:
        if len(numbers):
            batch = assemble(rows, numbers, DEVICE, form)
            np.add.at(found, batch.target_sequence, model.log_probabilities([batch]).double().cpu().numpy())
    return found


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # on a CPU
@pytest.mark.parametrize("name", SIZES)
def test_scores_equal_a_cpu_in_fp32(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export, vocab = random_llama(tmp_path, name)
    rows = questions(vocab)
    asked = rows.sequences(np.arange(int(rows.target_sequence.max()) + 1))
    alone = lay_out(asked, share=False)
    reference = np.zeros(len(asked))
    exact = Llama(export)
    for number in range(len(alone.lengths)):
        batch = assemble(alone, np.array([number]), "cpu")
        np.add.at(reference, batch.target_sequence, exact.log_probabilities([batch]).double().numpy())
    for dtype, largest in LARGEST_DIFFERENCE_NATS.items():
        model = Llama(export, dtype=dtype, devices=[DEVICE])
        with capsys.disabled():
            print(f"\n{name} {dtype}: {model.forms}")
        for form in ("padded", "flat"):
            difference = np.abs(sums(model, rows, form) - reference)  # type: ignore[arg-type]
            assert difference.max() < largest, (form, dtype)
