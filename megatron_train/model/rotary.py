"""Rotary positions: the angles once for a model, the turn of queries and keys in every layer.

In: a `ModelShape`. Out: `Rotary`, the cosines and sines of each position. Why: megatron's own recomputes them for
queries and for keys in every layer and every pass.
Dimension i of a head turns together with dimension i + head_dim / 2 (the convention of Llama's published weights), by
position x base^(-2i / head_dim) (Su et al., 2021, RoFormer, equation 15).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema import ModelShape


@dataclass(frozen=True)
class Rotary:
    """cos, sin float32 [positions, 1, 1, head_dim]; the first half of each sine is negative, as `turn` wants it."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, shape: ModelShape, device: torch.device) -> Rotary:
        """For positions 0 to `context_tokens` - 1."""
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        positions = torch.arange(shape.context_tokens, dtype=torch.float32)
        angles = torch.outer(positions, 1.0 / shape.rope_base**exponents)
        cos, sin = torch.cat((angles, angles), dim=1).cos(), torch.cat((-angles, angles), dim=1).sin()
        return cls(cos[:, None, None].to(device), sin[:, None, None].to(device))

    def at(self, positions: Tensor | slice) -> Rotary:
        """Rows of the tables, one for each token."""
        return Rotary(self.cos[positions], self.sin[positions])


def turn(x: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys [positions, batch, heads, head_dim], turned; in the precision of `x`."""
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
