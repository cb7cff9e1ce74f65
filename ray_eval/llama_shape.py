"""Which folders our own Llama can run, and the sizes that its forward pass needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from configs.artifacts import read_json
from configs.errors import ArtifactError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@dataclass(frozen=True)
class Shape:
    """What the forward pass needs of config.json."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context_tokens: int
    norm_eps: float
    rope_base: float
    activation: str
    tied: bool


def read_shape(export: Path) -> Shape:
    """Raises ArtifactError where config.json is missing or describes another architecture."""
    path = export / "config.json"
    config = read_json(path)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    unsupported = {
        "model_type": config.get("model_type") != "llama",
        "hidden_act": config.get("hidden_act") not in ACTIVATIONS,
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "rope_type": rope.get("rope_type", "default") != "default",
    }
    for key, wrong in unsupported.items():
        if wrong:
            found = rope if key == "rope_type" else config.get(key)
            valid = f"a Llama without biases, plain rotary positions, activation {', '.join(ACTIVATIONS)}"
            raise ArtifactError(f"{key} is {found!r}, which the scorer does not know", where=path, valid=valid)
    heads = config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab=config["vocab_size"],
        context_tokens=config["max_position_embeddings"],
        norm_eps=config["rms_norm_eps"],
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        activation=config["hidden_act"],
        tied=bool(config.get("tie_word_embeddings")),
    )
