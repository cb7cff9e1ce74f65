"""The body of a Hugging Face Llama in plain PyTorch, read straight from its export.

In: a folder with config.json and *.safetensors. Out: hidden states for packed rows, whose branches share a prefix,
and next-token log-probabilities at chosen places only. No transformers: its start-up costs more than scoring a small
checkpoint, and its output layer runs at every position.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.artifacts import read_json
from configs.errors import ArtifactError
from ray_eval.batches import Batch
from ray_eval.tree_attention import Form, Heads, as_numbers, attend, usable_forms
from ray_eval.weights import Weights

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
LOGITS_IN_A_CHUNK = {"cpu": 1 << 17, "cuda": 1 << 27}
"""Logits computed at once, 4 bytes each; on a CPU they stay in its cache."""
LEAST_ROWS = 16
"""Rows of logits computed at once where the vocabulary is large: with fewer, each number of the output layer is read
from memory for too little work."""


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
    """A checkpoint ready to score (`scorer.Model`)."""

    shares_prefixes = True

    def __init__(
        self, export: Path, weights: Weights | None = None, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        """weights: of this export; None: they are read. Raises as `load`."""
        self.shape, self.dtype = read_shape(export), dtype
        self.device = torch.device(device)
        s = self.shape

        def empty(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(sizes, dtype=dtype, device=self.device)

        self.embedding = empty(s.vocab, s.hidden)
        self.blocks = [
            Block(
                attention_norm=empty(s.hidden),
                qkv=empty((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden),
                output=empty(s.hidden, s.heads * s.head_dim),
                mlp_norm=empty(s.hidden),
                gate_up=empty(2 * s.ffn, s.hidden),
                down=empty(s.hidden, s.ffn),
            )
            for _ in range(s.layers)
        ]
        self.norm = empty(s.hidden)
        # fp32 whatever the body's precision: a rounded logit moves answers by up to 0.1 nat.
        shared = s.tied and dtype == torch.float32
        self.head = self.embedding if shared else empty(s.vocab, s.hidden, dtype=torch.float32)
        frequencies = s.rope_base ** -(torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim)
        angles = torch.arange(s.context_tokens, dtype=torch.float32)[:, None] * frequencies.repeat(2)
        self.cos, self.sin = angles.cos().to(self.device), angles.sin().to(self.device)
        self.sin[:, : s.head_dim // 2].neg_()  # so that turning a pair is one roll (see _turn)
        self.load(Weights(export) if weights is None else weights)

    def fits(self, export: Path, dtype: torch.dtype) -> bool:
        """Can the weights of `export` be loaded into this model?"""
        return dtype == self.dtype and read_shape(export) == self.shape

    def load(self, weights: Weights) -> None:
        """Copy the weights of a checkpoint of the same shape over those that are here.

        Raises ArtifactError for a weight that is missing, truncated, misshapen or not finite; what is here then belongs
        to no checkpoint.
        """
        for name, place in self._places().items():
            # Through the body's precision, in which a checkpoint is scored, also for the output layer.
            place.copy_(weights.get(name, place.shape).to(self.dtype))
            if not place.isfinite().all():
                wrong = int((~place.isfinite()).sum())
                hint = "its training diverged, or the file was damaged before it was hashed: train it again"
                problem = f"weight {name} holds {wrong} NaN or infinite numbers"
                raise ArtifactError(problem, where=weights.path(name), hint=hint)
        if self.shape.tied:
            self.head.copy_(self.embedding)

    def _places(self) -> dict[str, Tensor]:
        """Where a weight belongs, by its name in an export."""
        s = self.shape
        places = {"model.embed_tokens.weight": self.embedding, "model.norm.weight": self.norm}
        if not s.tied:
            places["lm_head.weight"] = self.head
        for i, block in enumerate(self.blocks):
            at = f"model.layers.{i}."
            q, k, v = block.qkv.split([rows * s.head_dim for rows in (s.heads, s.kv_heads, s.kv_heads)])
            gate, up = block.gate_up.chunk(2)
            of_attention = {"q": q, "k": k, "v": v, "o": block.output}
            places |= {f"{at}self_attn.{name}_proj.weight": place for name, place in of_attention.items()}
            of_mlp = {"gate": gate, "up": up, "down": block.down}
            places |= {f"{at}mlp.{name}_proj.weight": place for name, place in of_mlp.items()}
            places[f"{at}input_layernorm.weight"] = block.attention_norm
            places[f"{at}post_attention_layernorm.weight"] = block.mlp_norm
        return places

    @functools.cached_property
    def forms(self) -> tuple[tuple[Form, ...], str]:
        """As `tree_attention.usable_forms`, tried once."""
        s = self.shape
        return usable_forms(Heads(s.heads, s.kv_heads, s.head_dim, self.dtype, self.device))

    @property
    def operations_per_token(self) -> float:
        s = self.shape
        return 2.0 * sum(w.numel() for b in self.blocks for w in (b.qkv, b.output, b.gate_up, b.down)) + s.hidden

    @property
    def operations_per_head(self) -> float:
        return 2.0 * self.head.numel()

    @torch.inference_mode()
    def log_probabilities(self, batch: Batch) -> Tensor:
        """log P(target_token[i]) after the place heads[target_head[i]], float32 [N], in nats."""
        return self._output(self._hidden(batch), batch.target_head, batch.target_token)

    def _hidden(self, batch: Batch) -> Tensor:
        """[H, hidden] after the last norm, at the heads. Behind its attention the last block runs at these only."""
        s = self.shape
        tokens, mask = batch.tokens, as_numbers(batch.mask, self.embedding.dtype)
        cos = self.cos[batch.positions].to(self.embedding.dtype)[:, :, None]  # [B, T, 1, head_dim]
        sin = self.sin[batch.positions].to(self.embedding.dtype)[:, :, None]
        act = ACTIVATIONS[s.activation]
        x = F.embedding(tokens.flatten(), self.embedding)  # [B x T, hidden]
        for i, block in enumerate(self.blocks, start=1):
            normed = F.rms_norm(x, (s.hidden,), block.attention_norm, s.norm_eps)
            qkv = F.linear(normed, block.qkv).view(*tokens.shape, s.heads + 2 * s.kv_heads, s.head_dim)
            turned = _turn(qkv[:, :, : s.heads + s.kv_heads], cos, sin)
            q, k = turned.transpose(1, 2).split([s.heads, s.kv_heads], dim=1)
            v = qkv[:, :, s.heads + s.kv_heads :].transpose(1, 2)
            attended = attend(q, k, v, mask)
            attended = attended.transpose(1, 2).reshape(len(x), -1)
            if i == s.layers:
                attended, x = attended[batch.heads], x[batch.heads]
            x = x + F.linear(attended, block.output)
            gate, up = F.linear(F.rms_norm(x, (s.hidden,), block.mlp_norm, s.norm_eps), block.gate_up).chunk(2, dim=-1)
            x = x + F.linear(act(gate) * up, block.down)
        return F.rms_norm(x, (s.hidden,), self.norm, s.norm_eps)

    def _output(self, states: Tensor, head: Tensor, token: Tensor) -> Tensor:
        """Log-probabilities [N] of `token` [N] after states [H, hidden]; head: index into states, ascending."""
        rows = max(LEAST_ROWS, LOGITS_IN_A_CHUNK[self.device.type] // self.shape.vocab)
        result = torch.empty(len(head), dtype=torch.float32, device=self.device)
        bounds = torch.searchsorted(head, torch.arange(0, len(states) + rows, rows, device=self.device)).tolist()
        buffer = torch.empty(min(rows, len(states)), self.shape.vocab, device=self.device)
        for chunk, (start, stop) in enumerate(itertools.pairwise(bounds)):
            part = states[chunk * rows : (chunk + 1) * rows].float()
            logits = torch.mm(part, self.head.T, out=buffer[: len(part)])
            logits -= logits.amax(-1, keepdim=True)
            local = head[start:stop] - chunk * rows
            chosen = logits[local, token[start:stop]]
            result[start:stop] = chosen - logits.exp_().sum(-1).log_()[local]
        return result


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves convention: (a, b) -> (a cos - b sin, b cos + a sin); `sin` holds (-sin, sin)."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
