"""Rows to the tensors of one forward pass, in one of two forms.

padded: rows of like length side by side under a token budget, with at most a sixty-fourth of padding.
flat: rows one after another in a single long row, for attention that skips what is masked; no padding at all.
Which rows make a batch depends on plan, device and form alone, so a checkpoint's scores do not depend on who computes
them or in what order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_eval.models.tree_attention import Form, Mask, tree_mask
from ray_eval.plans.trees import Offsets, TokenRows

TOKENS_IN_A_BATCH = {"cpu": 4096, "cuda": 65536}
"""Tokens of one forward pass, padding included; on a CPU few enough for its cache."""
PADDED_SHARE = 1 / 64

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class RowBatch:
    """Tensors of B rows, padded on the right to T tokens."""

    tokens: Tensor
    """int64 [B, T]"""
    positions: Tensor
    """int64 [B, T]"""
    mask: Mask | None
    """Which tokens a token sees (`tree_attention`); None where no row has branches: plain causal attention."""
    heads: Tensor
    """int64 [H]: places in the flattened batch that go through the output layer."""
    target_head: Tensor
    """int64 [N]: index into heads, ascending."""
    target_token: Tensor
    """int64 [N]"""
    target_sequence: NDArray[np.int32]
    """[N]"""


def batch_rows(rows: TokenRows, device: str, form: Form = "padded") -> list[Numbers]:
    """Row numbers of each batch; padded ones without branches first, longest first (memory peaks at once, not late)."""
    if form == "flat":
        batch = np.cumsum(rows.lengths) // TOKENS_IN_A_BATCH[device]
        return np.split(np.arange(len(batch)), np.flatnonzero(np.diff(batch)) + 1)
    lengths, branched = rows.lengths, rows.branched
    batches = []
    for kind in (False, True):
        numbers = np.flatnonzero(branched == kind)
        batches += _padded_batches(numbers[np.argsort(-lengths[numbers], kind="stable")], lengths, device)
    return batches


def _padded_batches(numbers: Numbers, lengths: Offsets, device: str) -> list[Numbers]:
    """Rows in descending length, cut where the budget or the share of padding would be exceeded."""
    batches = []
    start = longest = tokens = 0
    for i, length in enumerate(lengths[numbers].tolist()):
        padded = (i + 1 - start) * longest
        if i == start:
            longest = length
        elif padded > TOKENS_IN_A_BATCH[device] or padded - (tokens + length) > PADDED_SHARE * padded:
            batches.append(numbers[start:i])
            start, longest, tokens = i, length, 0
        tokens += length
    return [*batches, numbers[start:]] if len(numbers) else []


def assemble(rows: TokenRows, numbers: Numbers, device: str, form: Form = "padded") -> RowBatch:
    """Gather some rows into tensors."""
    lengths = rows.lengths[numbers]
    flat = form == "flat"
    shape = (1, int(lengths.sum())) if flat else (len(numbers), int(lengths.max()))
    begins = np.cumsum(lengths) - lengths if flat else np.arange(len(numbers)) * shape[1]  # of each row in the batch
    sources = entries(rows.token_offsets, numbers)
    places = sources + np.repeat(begins - rows.token_offsets[numbers], lengths)

    def placed(values: NDArray[np.integer[Any]]) -> Tensor:
        grid = np.zeros(shape[0] * shape[1], np.int64)
        grid[places] = values
        return torch.from_numpy(grid.reshape(shape)).to(device)

    head_counts = np.diff(rows.head_offsets)[numbers]
    heads = rows.heads[entries(rows.head_offsets, numbers)] + np.repeat(begins, head_counts)
    targets = entries(rows.target_offsets, numbers)
    first_head = np.cumsum(head_counts) - head_counts
    target_head = rows.target_head[targets] + np.repeat(first_head, np.diff(rows.target_offsets)[numbers])
    order = np.argsort(target_head, kind="stable")
    ends = rows.ends[sources]
    return RowBatch(
        tokens=placed(rows.tokens[sources]),
        positions=placed(rows.positions[sources]),
        mask=tree_mask(placed(ends + np.repeat(begins, lengths) if flat else ends), form)
        if flat or rows.branched[numbers[0]]
        else None,
        heads=torch.from_numpy(heads).to(device),
        target_head=torch.from_numpy(target_head[order]).to(device),
        target_token=torch.from_numpy(rows.target_token[targets][order].astype(np.int64)).to(device),
        target_sequence=rows.target_sequence[targets][order],
    )


def entries(offsets: Offsets, numbers: NDArray[np.integer[Any]]) -> Numbers:
    """Flat indices of all entries of some rows, row after row."""
    starts, counts = offsets[numbers], np.diff(offsets)[numbers]
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
