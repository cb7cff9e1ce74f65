"""What a config of `transformers` says about attention, for rows with branches.

transformers takes a mask [B, 1, T, T] as it is, in place of the ones it makes; a window of attention must then be in
the mask. A window counts positions, in which a branch goes on from its prefix, not places in the row.

Branches are worth this: with a row for each candidate, a GPT-NeoX of 4 layers and hidden size 256 takes 1.1 (PIQA) to
2.4 times (MultiRC) as long on one CPU core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Masks:
    """Masks of rows with branches, in the form that a model's body takes."""

    def __init__(self, config: Any) -> None:
        """config: of the language model, as transformers loaded it."""
        self._additive = config._attn_implementation == "eager"  # adds its mask to the scores; sdpa takes bool
        self._window: int | None = getattr(config, "sliding_window", None)
        self._by_kind = "sliding_attention" in (getattr(config, "layer_types", None) or ())

    def __call__(self, mask: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """mask: bool [B, 1, T, T]; positions: int64 [B, T]; dtype: of the model."""
        if self._window is None:
            return self._form(mask, dtype)
        distance = positions[:, None, :, None] - positions[:, None, None, :]
        near = self._form(mask & (distance < self._window), dtype)
        return {"full_attention": self._form(mask, dtype), "sliding_attention": near} if self._by_kind else near

    def _form(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        if not self._additive:
            return mask
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def windows(config: Any) -> list[int]:
    """Every length that the config may mean as a reach of attention, ascending."""
    return sorted(
        {
            value
            for key, value in config.to_dict().items()
            if ("window" in key or "chunk" in key) and isinstance(value, int) and value > 1
        }
    )


def length_dependent_beyond(config: Any) -> int | None:
    """The length of the longest input, where it decides the rotary positions of all tokens in it (LongRoPE).

    Rows that may be longer cannot lie in one batch with shorter ones, nor a long branch beside a short one.
    """
    longest = getattr(config, "max_position_embeddings", None) or 0
    for rope in _ropes(getattr(config, "rope_parameters", None) or {}):
        original = rope.get("original_max_position_embeddings") or 0
        if rope.get("rope_type") == "longrope" and longest > original:
            return int(original)
    return None


def _ropes(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One set of parameters, or one for each kind of layer."""
    yield parameters
    yield from (value for value in parameters.values() if isinstance(value, dict))
