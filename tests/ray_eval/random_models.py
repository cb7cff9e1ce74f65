"""Tiny random models of many families of transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTEXT_TOKENS = 128
WINDOW = 16
NEWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.3,
}
GPT2: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT_TOKENS,
    "initializer_range": 0.3,
}
BLOOM: dict[str, Any] = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
FALCON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
SMALL_HEADS: dict[str, Any] = NEWER | {"head_dim": 8}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "original_max_position_embeddings": 24,
}


@dataclass(frozen=True)
class Family:
    """config: class of transformers without `Config`; shares: can its rows have branches?"""

    config: str
    shares: bool
    options: dict[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "Llama with attention bias, linear positions": Family(
        "Llama",
        True,
        NEWER | {"attention_bias": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "Llama 3": Family(
        "Llama",
        True,
        NEWER
        | {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 2.0,
                "rope_theta": 1e4,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "Qwen2": Family("Qwen2", True, NEWER),
    "Qwen2, every second layer in a window": Family(
        "Qwen2", True, NEWER | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    ),
    "Qwen3": Family("Qwen3", True, SMALL_HEADS),
    "Gemma 2: soft caps, eager attention, windows": Family(
        "Gemma2",
        True,
        SMALL_HEADS | {"sliding_window": WINDOW, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    ),
    "Gemma 3": Family(
        "Gemma3Text",
        True,
        SMALL_HEADS | {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "GPT-2": Family("GPT2", True, GPT2),
    "GPT-NeoX": Family("GPTNeoX", True, NEWER),
    "GPT-J: output bias": Family("GPTJ", True, GPT2 | {"rotary_dim": 4}),
    "GPT-Neo: windows of places": Family(
        "GPTNeo",
        False,
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": CONTEXT_TOKENS,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
            "initializer_range": 0.3,
        },
    ),
    "OPT: projected output": Family(
        "OPT",
        True,
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT_TOKENS,
            "word_embed_proj_dim": 16,
            "init_std": 0.3,
        },
    ),
    "Phi": Family("Phi", True, NEWER | {"partial_rotary_factor": 0.5}),
    "Phi 3: window": Family("Phi3", True, NEWER | {"pad_token_id": 0, "sliding_window": WINDOW}),
    "Phi 3: LongRoPE": Family(
        "Phi3", False, NEWER | {"pad_token_id": 0, "original_max_position_embeddings": 24, "rope_parameters": LONGROPE}
    ),
    "Mistral": Family("Mistral", True, NEWER | {"sliding_window": WINDOW}),
    "Mixtral": Family("Mixtral", True, NEWER | {"num_local_experts": 4, "sliding_window": None}),
    "GPT-OSS: sinks, experts, windows": Family(
        "GptOss", True, SMALL_HEADS | {"sliding_window": WINDOW, "num_local_experts": 4}
    ),
    "Bloom: ALiBi": Family("Bloom", False, BLOOM),
    "Falcon": Family("Falcon", True, FALCON),
    "Falcon: ALiBi": Family("Falcon", False, FALCON | {"alibi": True}),
    "MPT: ALiBi": Family(
        "Mpt",
        False,
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT_TOKENS, "initializer_range": 0.3},
    ),
    "Mamba": Family(
        "Mamba", False, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.3}
    ),
    "Jamba": Family(
        "Jamba",
        False,
        NEWER
        | {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 4,
            "mamba_d_conv": 2,
            "mamba_dt_rank": 4,
            "num_experts": 2,
            "use_mamba_kernels": False,
        },
    ),
    "OLMo 2": Family("Olmo2", True, NEWER),
    "Cohere: scaled logits": Family("Cohere", True, NEWER | {"logit_scale": 0.25}),
    "Granite: scaled logits": Family("Granite", True, NEWER | {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "StableLM": Family("StableLm", True, NEWER),
    "Llama 4: chunks": Family(
        "Llama4Text",
        False,
        SMALL_HEADS
        | {
            "num_hidden_layers": 4,
            "attention_chunk_size": WINDOW,
            "num_local_experts": 2,
            "intermediate_size_mlp": 64,
            "pad_token_id": 0,
        },
    ),
}


def random_model(folder: Path, family: str, vocab: int, *, seed: int = 0, **changes: Any) -> Path:
    """Save a random model of a family; returns its folder."""
    import torch
    import transformers

    chosen = FAMILIES[family]
    config = getattr(transformers, f"{chosen.config}Config")(**chosen.options | {"vocab_size": vocab} | changes)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):  # which are zero at first, so that leaving them out would show nowhere
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder
