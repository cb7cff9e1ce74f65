"""A plan and a checkpoint to log-probabilities, in units of about a second.

Each batch of rows is one forward pass. Only the places that a target needs reach the output layer, in fp32; batches
that have few go through a large one together, so that it is read less often. Sums are float64. Where the best two
candidates of an example are nearly tied, its sequences are scored once more in fp32 and in rows of their own, as an
evaluation without shared prefixes does it, so that the order of a sum decides nothing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_eval.models.batches import TOKENS_IN_A_BATCH, Numbers, RowBatch, assemble, batch_rows, entries
from ray_eval.models.forward_counts import ForwardCounts
from ray_eval.models.tree_attention import Form
from ray_eval.plans.plan import Plan
from ray_eval.plans.trees import TokenRows, lay_out

NEAR_TIE_NATS = 1e-3
WORK_IN_A_UNIT = {"cpu": 4e10, "cuda": 1e14}
"""Floating-point operations; about a second, far less on a GPU with a small model."""
Group = list[Numbers]
"""Rows of each of some batches."""

Sums = NDArray[np.float64]


class CausalLM(Protocol):
    """What a scorer needs of a checkpoint."""

    @property
    def device(self) -> torch.device: ...

    @property
    def shares_prefixes(self) -> bool:
        """Takes rows with branches; else it is given `Plan.unshared`."""

    @property
    def forms(self) -> tuple[tuple[Form, ...], str]:
        """Forms in which it takes rows, the fastest first, and why (`tree_attention`)."""

    @property
    def places_at_once(self) -> int:
        """For fewer it is not worth reading the output layer."""

    @property
    def operations_per_token(self) -> float:
        """Floating-point operations of the body for one token."""

    @property
    def operations_per_head(self) -> float:
        """Floating-point operations of the output layer for one place."""

    def log_probabilities(self, batches: Sequence[RowBatch]) -> Tensor:
        """log P(target_token[i]) after the place heads[target_head[i]], float32 [N], in nats, batch after batch."""


class Scorer:
    """Scores one plan on any number of checkpoints."""

    def __init__(self, plan: Plan, device: str = "cpu", form: Form = "padded", places_at_once: int = 1) -> None:
        """form, places_at_once: of `CausalLM`."""
        self.plan, self.device, self.form, self._places_at_once = plan, torch.device(device).type, form, places_at_once
        self._groups = self._grouped(plan.rows, form)

    @functools.cached_property
    def layout(self) -> str:
        """sha256 over which sequences each batch of each group scores, in rows of which lengths."""
        rows = self.plan.rows
        digest = hashlib.sha256()
        arrays: list[NDArray[Any]] = [rows.token_offsets, rows.target_offsets, rows.target_sequence]
        for group in self._groups:
            arrays += [np.array(len(group))[None], *group]
        for array in arrays:
            digest.update(str(len(array)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def units(self, model: CausalLM, work: float | None = None) -> list[range]:
        """Numbers of the groups of each unit; depends on the plan and the model's shape only.

        work: floating-point operations in a unit; None: about a second's.
        """
        limit = WORK_IN_A_UNIT[self.device] if work is None else work
        rows, units, start, done = self.plan.rows, [], 0, 0.0
        heads = np.diff(rows.head_offsets)
        for i, group in enumerate(self._groups):
            numbers = np.concatenate(group)
            done += float(rows.lengths[numbers].sum()) * model.operations_per_token
            done += float(heads[numbers].sum()) * model.operations_per_head
            if done >= limit:
                units.append(range(start, i + 1))
                start, done = i + 1, 0.0
        return units + ([range(start, len(self._groups))] if start < len(self._groups) else [])

    def sequences(self, unit: range) -> NDArray[np.int32]:
        """The sequences that a unit scores, ascending; units share none."""
        rows = self.plan.rows
        numbers = np.concatenate([numbers for i in unit for numbers in self._groups[i]])
        return np.unique(rows.target_sequence[entries(rows.target_offsets, numbers)])

    def score(self, model: CausalLM, unit: range) -> tuple[Sums, ForwardCounts]:
        """Summed log-probability, in nats, of the unit's `sequences`."""
        sums = np.zeros(self.plan.num_sequences, np.float64)
        counts = _run(self.plan.rows, [self._groups[i] for i in unit], self.form, model, sums)
        return sums[self.sequences(unit)], counts

    def settle(self, model: CausalLM, sums: Sums) -> ForwardCounts:
        """Score the sequences of near-ties again, each on its own, and put the results into `sums`.

        sums: of every sequence of the plan; model: in fp32.
        """
        near, sequences = near_ties(self.plan, sums)
        if not len(near):
            return ForwardCounts()
        rows = lay_out(self.plan.rows.sequences(sequences), share=False)
        settled = np.zeros(len(sequences), np.float64)
        counts = _run(rows, self._grouped(rows, "padded"), "padded", model, settled)
        sums[sequences] = settled
        return counts + ForwardCounts(near_ties=len(near))

    def _grouped(self, rows: TokenRows, form: Form) -> list[Group]:
        """Batches in order, in groups with enough places for the output layer or as many tokens as a full batch."""
        groups: list[Group] = [[]]
        places = tokens = 0
        for numbers in batch_rows(rows, self.device, form):
            # The output layer may be larger than a cache: it is worth reading only for enough places.
            if places >= self._places_at_once or tokens >= TOKENS_IN_A_BATCH[self.device]:
                groups.append([])
                places = tokens = 0
            groups[-1].append(numbers)
            places += int(np.diff(rows.head_offsets)[numbers].sum())
            tokens += int(rows.lengths[numbers].sum())
        return [group for group in groups if group]


def _run(rows: TokenRows, groups: Sequence[Group], form: Form, model: CausalLM, sums: Sums) -> ForwardCounts:
    """Add the log-probabilities of some groups to `sums`."""
    counts = ForwardCounts()
    for group in groups:
        assembled = [assemble(rows, numbers, str(model.device), form) for numbers in group]
        logp = model.log_probabilities(assembled)
        np.add.at(sums, np.concatenate([batch.target_sequence for batch in assembled]), logp.double().cpu().numpy())
        for numbers, batch in zip(group, assembled, strict=True):
            tokens = int(rows.lengths[numbers].sum())
            counts += ForwardCounts(tokens, batch.tokens.numel() - tokens, len(batch.heads))
    return counts


def near_ties(plan: Plan, sums: Sums) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Examples whose best two candidates are within NEAR_TIE_NATS under any normalisation, and their sequences.

    The margin of a normalised score is taken in nats of the best candidate's sum. Equal candidates count as one.
    """
    counts = np.diff(plan.candidate_offsets)
    filled = np.arange(counts.max()) < counts[:, None]

    def padded(values: NDArray[np.generic], fill: float) -> NDArray[np.float64]:
        out = np.full(filled.shape, fill)
        out[filled] = values
        return out

    logp, sequence = padded(sums[plan.sequence], -np.inf), padded(plan.sequence, -1)
    every = np.arange(len(counts))
    near = np.zeros(len(counts), bool)
    for lengths in (np.ones_like(plan.num_tokens), plan.num_tokens, plan.num_chars, plan.num_bytes):
        length = padded(lengths, 1)
        score = logp / length
        best = score.argmax(axis=1)
        others = np.where(sequence == sequence[every, best][:, None], -np.inf, score)
        margin = (score[every, best] - others.max(axis=1)) * length[every, best]
        near |= margin < NEAR_TIE_NATS
    chosen = np.repeat(near, counts)
    return np.flatnonzero(near), np.unique(plan.sequence[chosen])
