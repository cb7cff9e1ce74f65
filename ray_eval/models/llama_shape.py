"""Which folders our own Llama can run, and the sizes that its forward pass needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from configs.artifacts import read_object
from configs.errors import ArtifactError
from configs.llama import not_plain, rope_base
from configs.untrusted.checks import shown, understood

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

    @property
    def numbers(self) -> int:
        """Numbers in the weights, norms left out."""
        of_block = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden + 3 * self.ffn * self.hidden
        return self.layers * of_block + (1 if self.tied else 2) * self.vocab * self.hidden


def read_shape(export: Path) -> Shape:
    """Raises ArtifactError where config.json is missing or describes another architecture."""
    path = export / "config.json"
    config = read_object(path)
    with understood(path):
        return _shape(config, path)


def _shape(config: dict[str, Any], path: Path) -> Shape:
    wrong = not_plain(config)
    if config.get("hidden_act") not in ACTIVATIONS:
        wrong["hidden_act"] = config.get("hidden_act")
    if wrong:
        problem = ", ".join(f"{key} is {shown(found)}" for key, found in wrong.items())
        valid = f"a Llama without biases, plain rotary positions, activation {', '.join(ACTIVATIONS)}"
        raise ArtifactError(f"{problem}, which the scorer does not know", where=path, valid=valid)
    sizes = {"num_key_value_heads": "num_attention_heads"}  # what the config leaves out is as large as another
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    layers, hidden, ffn, heads, kv_heads = (
        positive(config, key if config.get(key) else sizes.get(key, key), path) for key in keys
    )
    head_dim = positive(config, "head_dim", path) if config.get("head_dim") else hidden // heads
    if not head_dim or head_dim % 2 or heads % kv_heads:
        problem = f"{heads} heads of {head_dim} with {kv_heads} of keys"
        raise ArtifactError(problem, where=path, valid="an even size, and so many of keys that they share them equally")
    return Shape(
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=positive(config, "vocab_size", path),
        context_tokens=positive(config, "max_position_embeddings", path),
        norm_eps=float(config["rms_norm_eps"]),
        rope_base=rope_base(config),
        activation=config["hidden_act"],
        tied=bool(config.get("tie_word_embeddings")),
    )


LARGEST_SIZE = 2**21
"""Largest vocabulary, width or context that is believed: memory is allocated by these sizes before weights are read."""


def positive(config: Mapping[str, Any], key: str, path: Path) -> int:
    """A size in the config at `path`. Raises ArtifactError for what is none."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST_SIZE:
        raise ArtifactError(
            f"{key} is {shown(value)}", where=path, valid=f"a positive integer, at most {LARGEST_SIZE:,}"
        )
    return value


def is_plain_llama(folder: Path) -> bool:
    """Can our own code run it (`llama`), which is faster than transformers?"""
    from ray_eval.models.weights import OUTPUT_LAYER, weight_names

    # Code of its own may do anything with the weights, so nothing here says that the model is a Llama.
    if read_object(folder / "config.json").get("auto_map"):
        return False
    try:
        # Where a tied output layer has weights too, transformers ties it only if they are the embedding's.
        return not (read_shape(folder).tied and OUTPUT_LAYER in weight_names(folder))
    except ArtifactError:  # or transformers knows a default for what the config leaves out
        return False
