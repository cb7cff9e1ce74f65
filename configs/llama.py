"""The shape of a plain Hugging Face Llama, for the rooms that build one from its config.json without transformers.

In: the folder. Out: a `LlamaShape`, or what in the file makes the model another one. A plain Llama is what transformers
makes of the file with none of its options on. Other families' options, which transformers' Llama
leaves unread, count too: whoever wrote one meant a model that is not built here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import read_object
from configs.errors import ArtifactError, MagicError
from configs.untrusted.checks import shown, understood

LARGEST_SIZE = 2**21
"""Largest vocabulary, width or context that is believed: memory is allocated by these sizes before weights are read."""
DEFAULT_ROPE_BASE = 10_000.0

OFF: dict[str, Any] = {
    # of transformers' Llama; files older than transformers 5 spell the first `rope_scaling`
    "attention_bias": False,
    "mlp_bias": False,
    "is_causal": True,
    "per_layer_config": {},
    "quantization_config": None,
    # of others
    "alibi": False,
    "attention_chunk_size": None,
    "attention_multiplier": None,
    "attn_logit_softcapping": None,
    "clip_qkv": None,
    "embedding_multiplier": 1,
    "final_logit_softcapping": None,
    "layer_types": None,
    "logit_scale": 1,
    "logits_scaling": 1,
    "no_rope_layers": None,
    "num_experts": None,
    "num_local_experts": None,
    "partial_rotary_factor": 1,
    "qk_layernorm": False,
    "query_pre_attn_scalar": None,
    "residual_multiplier": 1,
    "rotary_pct": 1,
    "sliding_window": None,
    "use_bidirectional_attention": False,
    "use_qk_norm": False,
}
"""Option -> its value where it changes nothing; null changes nothing either."""
ROPE = ("rope_parameters", "rope_scaling")
"""Where options of the rotary positions are; transformers 5 writes the first and, where both are there, reads the
second."""
ROPE_OFF: dict[str, Any] = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}
"""As `OFF`; older files say `type`."""


@dataclass(frozen=True)
class LlamaShape:
    """The part of config.json that a forward pass needs."""

    layers: int
    hidden: int
    ffn_hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context_tokens: int
    norm_eps: float
    rope_base: float
    activation: str
    """As transformers names it."""
    tied_embeddings: bool

    @property
    def numbers(self) -> int:
        """Numbers in the weights, norms left out."""
        of_block = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden + 3 * self.ffn_hidden * self.hidden
        return self.layers * of_block + (1 if self.tied_embeddings else 2) * self.vocab * self.hidden


def read_shape(
    folder: Path,
    activations: Collection[str],
    refusal: type[MagicError] = ArtifactError,
    *,
    grouped_queries: bool = True,
) -> LlamaShape:
    """Raises `refusal` where config.json describes a model that is not built, ArtifactError where it is damaged.

    grouped_queries: heads of keys and values may be fewer than those of queries.
    """
    path = folder / "config.json"
    config = read_object(path)
    with understood(path, refusal):
        wrong = _not_plain(config)
        if not grouped_queries and config.get("num_key_value_heads") not in (None, config.get("num_attention_heads")):
            wrong = {"num_key_value_heads": config["num_key_value_heads"]} | wrong
        if config.get("hidden_act") not in activations:
            wrong["hidden_act"] = config.get("hidden_act")
        if wrong:
            problem = ", ".join(f"{key} {shown(found)}" for key, found in wrong.items())
            valid = f"a Llama without biases, plain rotary positions, activation {', '.join(activations)}"
            valid += "" if grouped_queries else ", as many heads of keys as of queries"
            raise refusal(f"{problem} cannot be loaded", where=path, valid=valid)
        return _shape(config, path)


def _shape(config: dict[str, Any], path: Path) -> LlamaShape:
    sizes = {"num_key_value_heads": "num_attention_heads"}  # what the config leaves out is as large as another
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    layers, hidden, ffn_hidden, heads, kv_heads = (
        positive(config, key if config.get(key) else sizes.get(key, key), path) for key in keys
    )
    head_dim = positive(config, "head_dim", path) if config.get("head_dim") else hidden // heads
    if not head_dim or head_dim % 2 or heads % kv_heads:
        problem = f"{heads} heads of {head_dim} with {kv_heads} of keys"
        raise ArtifactError(problem, where=path, valid="an even size, and so many of keys that they share them equally")
    return LlamaShape(
        layers=layers,
        hidden=hidden,
        ffn_hidden=ffn_hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=positive(config, "vocab_size", path),
        context_tokens=positive(config, "max_position_embeddings", path),
        norm_eps=float(config["rms_norm_eps"]),
        rope_base=float(next(iter(_rope_bases(config)), DEFAULT_ROPE_BASE)),
        activation=config["hidden_act"],
        tied_embeddings=bool(config.get("tie_word_embeddings")),
    )


def positive(config: Mapping[str, Any], key: str, path: Path) -> int:
    """A size in the config at `path`. Raises ArtifactError for what is none."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST_SIZE:
        raise ArtifactError(
            f"{key} is {shown(value)}", where=path, valid=f"a positive integer, at most {LARGEST_SIZE:,}"
        )
    return value


def _not_plain(config: dict[str, Any]) -> dict[str, Any]:
    """Key -> value of what makes it another model than a plain Llama; empty for one."""
    wrong = {key: config.get(key) for key, off in OFF.items() if config.get(key) not in (None, off)}
    if config.get("model_type") != "llama":
        wrong = {"model_type": config.get("model_type")} | wrong
    for place in ROPE:
        if (found := config.get(place)) and not _is_plain_rope(found):
            wrong[place] = found
    if len(_rope_bases(config)) > 1:  # which of them holds depends on the version that reads the file
        wrong["rope_theta"] = _rope_bases(config)
    return wrong


def _is_plain_rope(found: Any) -> bool:
    return isinstance(found, dict) and all(
        key == "rope_theta" or (key in ROPE_OFF and value in (None, ROPE_OFF[key])) for key, value in found.items()
    )


def _rope_bases(config: dict[str, Any]) -> list[Any]:
    """The different ones that the file states."""
    places = [found for place in ROPE if isinstance(found := config.get(place), dict)]
    stated = [found.get("rope_theta") for found in (*places, config)]
    return list(dict.fromkeys(base for base in stated if base is not None))
