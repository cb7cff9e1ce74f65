"""Is a Hugging Face Llama a plain one? For the rooms that build one from its config.json without transformers.

In: the parsed file. Out: what in it makes the model another one, and the base of its rotary positions. A plain Llama is
what transformers makes of the file with none of its options on. Other families' options, which transformers' Llama
leaves unread, count too: whoever wrote one meant a model that is not built here.
"""

from __future__ import annotations

from typing import Any

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


def not_plain(config: dict[str, Any]) -> dict[str, Any]:
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


def rope_base(config: dict[str, Any]) -> float:
    """The base of a plain Llama's rotary positions."""
    return float(next(iter(_rope_bases(config)), DEFAULT_ROPE_BASE))


def _is_plain_rope(found: Any) -> bool:
    return isinstance(found, dict) and all(
        key == "rope_theta" or (key in ROPE_OFF and value in (None, ROPE_OFF[key])) for key, value in found.items()
    )


def _rope_bases(config: dict[str, Any]) -> list[Any]:
    """The different ones that the file states."""
    places = [found for place in ROPE if isinstance(found := config.get(place), dict)]
    stated = [found.get("rope_theta") for found in (*places, config)]
    return list(dict.fromkeys(base for base in stated if base is not None))
