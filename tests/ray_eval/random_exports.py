"""Llama exports written by transformers: random ones, and models of a test's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from configs.artifacts import sha256_file, sha256_files, write_json
from mixtures.tokens.tokenizer import Tokenizer


def random_export(folder: Path, tokenizer: Tokenizer, *, seed: int = 0, step: int = 1, **changes: Any) -> Path:
    """A random Llama as training exports it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    return save_export(LlamaForCausalLM(LlamaConfig(**shape | changes)), folder, tokenizer, step)


def save_export(model: Any, folder: Path, tokenizer: Tokenizer, step: int = 1) -> Path:
    """A model of transformers and its tokenizer as an export."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer.folder / name, folder / name)
    hashes = {
        "checkpoint": sha256_files(list(folder.glob("*.safetensors"))),
        "tokenizer_sha256": sha256_file(folder / "tokenizer.json"),
    }
    write_json(folder / "export.json", {"step": step, "tokens": step * 1000, "files": {}, **hashes})
    return folder
