"""The body of a Hugging Face Llama in plain PyTorch, read straight from its export.

In: a folder with config.json and *.safetensors. Out: hidden states for packed rows, whose branches share a prefix,
and next-token log-probabilities at chosen places only. No transformers: its start-up costs more than scoring a small
checkpoint, and its output layer runs at every position.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.artifacts import read_json
from configs.errors import ArtifactError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
LOGITS_IN_A_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 27}
"""Logits computed at once, 4 bytes each; on a CPU they stay in its cache."""


@dataclass(frozen=True)
class Shape:
    """What the forward pass needs of config.json."""

    layers: int
    hidden: int
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


@dataclass(frozen=True)
class Block:
    attention_norm: Tensor
    qkv: Tensor
    """[(heads + 2 kv_heads) x head_dim, hidden]: the three projections as one product."""
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    """[2 ffn, hidden]"""
    down: Tensor


class Llama:
    """A checkpoint ready to score: `hidden`, then `log_probabilities` at the places that matter."""

    def __init__(self, export: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        """Raises ArtifactError for a weight that is missing, truncated, misshapen or not finite."""
        self.shape = read_shape(export)
        self.device = torch.device(device)
        weights = _Weights(export, dtype, self.device)
        s = self.shape
        qkv_rows = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
        self.embedding = weights["model.embed_tokens.weight", (s.vocab, s.hidden)]
        self.blocks = []
        for i in range(s.layers):
            at = f"model.layers.{i}."
            qkv = [
                weights[f"{at}self_attn.{name}_proj.weight", (rows, s.hidden)]
                for name, rows in zip("qkv", qkv_rows, strict=True)
            ]
            self.blocks.append(
                Block(
                    attention_norm=weights[f"{at}input_layernorm.weight", (s.hidden,)],
                    qkv=torch.cat(qkv),
                    output=weights[f"{at}self_attn.o_proj.weight", (s.hidden, qkv_rows[0])],
                    mlp_norm=weights[f"{at}post_attention_layernorm.weight", (s.hidden,)],
                    gate_up=torch.cat([weights[f"{at}mlp.{n}_proj.weight", (None, s.hidden)] for n in ("gate", "up")]),
                    down=weights[f"{at}mlp.down_proj.weight", (s.hidden, None)],
                )
            )
        self.norm = weights["model.norm.weight", (s.hidden,)]
        # fp32 whatever the body's precision: a rounded logit moves answers by up to 0.1 nat.
        self.head = (self.embedding if s.tied else weights["lm_head.weight", (s.vocab, s.hidden)]).float()
        frequencies = s.rope_base ** -(torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim)
        angles = torch.arange(s.context_tokens, dtype=torch.float32)[:, None] * frequencies.repeat(2)
        self.cos, self.sin = angles.cos().to(self.device), angles.sin().to(self.device)
        self.sin[:, : s.head_dim // 2].neg_()  # so that turning a pair is one roll (see _turn)

    @torch.inference_mode()
    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, places: Tensor) -> Tensor:
        """[H, hidden] after the last norm, at the H places of the flattened batch.

        tokens, positions: int64 [B, T]; mask: bool [B, 1, T, T], True where a query (row) may see a key; None: causal;
        places: int64 [H], into B x T. Behind its attention the last block runs at these places only.
        """
        s = self.shape
        cos = self.cos[positions].to(self.embedding.dtype)[:, :, None]  # [B, T, 1, head_dim]
        sin = self.sin[positions].to(self.embedding.dtype)[:, :, None]
        act = ACTIVATIONS[s.activation]
        x = F.embedding(tokens.flatten(), self.embedding)  # [B x T, hidden]
        for i, block in enumerate(self.blocks, start=1):
            normed = F.rms_norm(x, (s.hidden,), block.attention_norm, s.norm_eps)
            qkv = F.linear(normed, block.qkv).view(*tokens.shape, s.heads + 2 * s.kv_heads, s.head_dim)
            turned = _turn(qkv[:, :, : s.heads + s.kv_heads], cos, sin)
            q, k = turned.transpose(1, 2).split([s.heads, s.kv_heads], dim=1)
            v = qkv[:, :, s.heads + s.kv_heads :].transpose(1, 2)
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=s.kv_heads != s.heads
            )
            attended = attended.transpose(1, 2).reshape(len(x), -1)
            if i == s.layers:
                attended, x = attended[places], x[places]
            x = x + F.linear(attended, block.output)
            gate, up = F.linear(F.rms_norm(x, (s.hidden,), block.mlp_norm, s.norm_eps), block.gate_up).chunk(2, dim=-1)
            x = x + F.linear(act(gate) * up, block.down)
        return F.rms_norm(x, (s.hidden,), self.norm, s.norm_eps)

    @torch.inference_mode()
    def log_probabilities(self, states: Tensor, head: Tensor, token: Tensor) -> Tensor:
        """log P(token[i]) after the place head[i], float32 [N], in nats.

        states: [H, hidden] at the places; head: int64 [N], index into states, ascending; token: int64 [N].
        """
        rows = max(1, LOGITS_IN_A_CHUNK[self.device.type] // self.shape.vocab)
        result = torch.empty(len(head), dtype=torch.float32, device=self.device)
        bounds = torch.searchsorted(head, torch.arange(0, len(states) + rows, rows, device=self.device)).tolist()
        for chunk, (start, stop) in enumerate(itertools.pairwise(bounds)):
            first = chunk * rows
            logits = F.linear(states[first : first + rows].float(), self.head)
            local = head[start:stop] - first
            result[start:stop] = logits[local, token[start:stop]] - logits.logsumexp(-1)[local]
        return result


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves convention: (a, b) -> (a cos - b sin, b cos + a sin); `sin` holds (-sin, sin)."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


class _Weights:
    """Tensors of every *.safetensors of a folder, by name, with the expected shape and finite."""

    def __init__(self, export: Path, dtype: torch.dtype, device: torch.device) -> None:
        from safetensors import SafetensorError, safe_open

        self._export, self._dtype, self._device = export, dtype, device
        self._files: dict[str, tuple[Path, Any]] = {}
        for path in sorted(export.glob("*.safetensors")):
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                hint = "delete the export and rerun the training"
                raise ArtifactError(f"not a readable safetensors file ({error})", where=path, hint=hint) from None
            self._files |= dict.fromkeys(file.keys(), (path, file))

    def __getitem__(self, key: tuple[str, tuple[int | None, ...]]) -> Tensor:
        name, shape = key
        if name not in self._files:
            raise ArtifactError(f"weight {name} is missing", where=self._export)
        path, file = self._files[name]
        tensor = file.get_tensor(name)
        if tensor.dim() != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        ):
            raise ArtifactError(f"weight {name} is {tuple(tensor.shape)}, config.json says {shape}", where=path)
        tensor = tensor.to(self._device, self._dtype)
        if not tensor.isfinite().all():
            wrong = int((~tensor.isfinite()).sum())
            hint = "its training diverged, or the file was damaged before it was hashed: train it again"
            raise ArtifactError(f"weight {name} holds {wrong} NaN or infinite numbers", where=path, hint=hint)
        return tensor
