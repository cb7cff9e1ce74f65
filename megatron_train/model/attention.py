"""Causal attention through PyTorch's scaled_dot_product_attention, as megatron's `core_attention`.

In: queries, keys and values [positions, batch, heads, head_dim], and the `Places` of the tokens. Out: [positions,
batch, heads x head_dim]. Why: megatron's own DotProductAttention needs CUDA and materialises [positions, positions]
scores. Which kernel computes it on a GPU is measured at the start of a run (megatron_train.kernels.attention_probe) and
set by `use` for the whole process: a compiled layer then has no switch inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron_train.model.packing import Segments
from megatron_train.model.rotary import Rotary, turn

VARLEN = "varlen"
CPU = "cpu"
SWITCHES = {
    "cudnn": torch.backends.cuda.enable_cudnn_sdp,
    "flash": torch.backends.cuda.enable_flash_sdp,
    "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
    "math": torch.backends.cuda.enable_math_sdp,
}
"""PyTorch's kernels of scaled_dot_product_attention; only `math` holds the score matrix in memory."""

_varlen: Callable[..., Tensor] | None = None
"""PyTorch's varlen_attn where `use` found it usable."""


@dataclass(frozen=True)
class AttentionChoice:
    """Which kernel a run computes with, and what was measured; kept with the run, because kernels round differently."""

    backend: str
    """A key of SWITCHES; `cpu`: what PyTorch has for a CPU."""
    varlen: bool = False
    """Packed rows go through varlen_attn; otherwise each example is padded to the longest of its row."""
    milliseconds: dict[str, float] = field(default_factory=dict)
    """Kernel -> forward and backward at the run's shape, of those that work."""
    failures: dict[str, str] = field(default_factory=dict)
    """Kernel -> why it does not work."""

    def describe(self) -> str:
        """One line for the start-up summary."""
        if self.backend == CPU:
            return "PyTorch's on a CPU"
        packed = f", packed rows {VARLEN if self.varlen else 'padded'}" if self._asked_varlen else ""
        times = ", ".join(f"{name} {time:.2f} ms" for name, time in self.milliseconds.items())
        refused = "".join(f"; {name} cannot: {reason}" for name, reason in self.failures.items())
        return f"{self.backend}{packed} (forward and backward: {times}{refused})"

    @property
    def _asked_varlen(self) -> bool:
        return VARLEN in self.milliseconds or VARLEN in self.failures


def use(choice: AttentionChoice) -> None:
    """Compute attention with these kernels from now on, in the whole process; another kernel's turn is an error."""
    global _varlen
    for name, enable in SWITCHES.items():
        enable(choice.backend in (name, CPU))
    _varlen = None
    if choice.varlen:
        _varlen = load_varlen()


def load_varlen() -> Callable[..., Tensor]:
    """PyTorch's varlen_attn; imported only where it is used, because it brings all of TorchDynamo with it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn  # type: ignore[return-value]  # a pair only where its log-sum-exp is asked for


@dataclass(frozen=True)
class Places:
    """Where the tokens stand, the same for all layers."""

    rotary: Rotary
    """Rotary positions of each token."""
    segments: Segments | None = None
    """Of a packed row (batch is 1); None: every sequence is one text."""


class CausalAttention(torch.nn.Module):
    """Rotary turn of Q and K, then softmax(QK'/sqrt(head_dim) + causal mask) V; no state, no dropout."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Places, **_: Any) -> Tensor:
        """[positions, batch, heads, head_dim] each -> [positions, batch, heads x head_dim].

        megatron hands on what it was given as a mask, whatever it is.
        """
        rotary = attention_mask.rotary
        return attend(turn(query, rotary), turn(key, rotary), value, attention_mask.segments)


def attend(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None) -> Tensor:
    """After the turn, by the kernels in use."""
    if segments is None:
        return whole(query, key, value)
    if _varlen is not None:
        return by_varlen(_varlen, query, key, value, segments)
    return by_padding(query, key, value, segments)


def whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every sequence is one text."""
    q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(2, 0, 1, 3).flatten(2)


def by_varlen(kernel: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """A packed row (batch is 1) through varlen_attn."""
    q, k, v = (x.squeeze(1) for x in (query, key, value))
    cuts, longest = segments.boundaries, segments.longest
    # A window of everything before and nothing after is the causal mask.
    return kernel(q, k, v, cuts, cuts, longest, longest, window_size=(-1, 0)).flatten(1)[:, None]


def by_padding(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """A packed row (batch is 1) as a batch of its segments, padded on the right, where no token sees the padding."""
    count, longest = segments.count, segments.longest

    def spread(x: Tensor) -> Tensor:
        """[tokens, 1, heads, head_dim] -> [segments, heads, longest, head_dim]."""
        empty = x.new_zeros(count * longest, *x.shape[2:])
        return empty.index_copy(0, segments.slots, x.squeeze(1)).unflatten(0, (count, longest)).transpose(1, 2)

    out = F.scaled_dot_product_attention(spread(query), spread(key), spread(value), is_causal=True)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, segments.slots).flatten(1)[:, None]
