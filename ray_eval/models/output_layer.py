"""Hidden states to log-probabilities of chosen tokens; the logits of a place are never held as a whole.

Logits are computed for some entries of the vocabulary and some places at a time, [entries, places], few enough for a
CPU's cache, and raised to powers of two where they lie. Powers of two, because 2^x takes half the time of e^x; entries
first, because such a product is the faster one; and without first subtracting the largest logit, because float32 raises
2 to anything that a language model says but for extremes, which are found afterwards and computed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PLACES = {"cpu": 256, "cuda": 1024}
"""Most places whose logits are computed at once."""
LOGITS = {"cpu": 1 << 18, "cuda": 1 << 27}
"""Logits computed at once, 4 bytes each."""
CACHED_BYTES = 1 << 22
"""A smaller output layer stays in a CPU's cache."""
SMALLEST_SUM = 2.0**-64
"""Smallest sum of powers that is trusted: in a smaller one, terms that count may be below what float32 can hold."""


def log_probabilities(states: Tensor, weights: Sequence[Tensor], head: Tensor, token: Tensor) -> Tensor:
    """log P(token[i]) after states[head[i]], float32 [N], in nats.

    states: [H, hidden]; weights: the output layer, fp32 [entries, hidden], cut into parts that may lie on several
    devices; head, token: int64 [N], on the device of `states`.
    """
    states = states.float() * math.log2(math.e)
    sums = torch.zeros(len(states), dtype=torch.float64, device=states.device)
    for places, logits in _pieces(states, weights):
        sums[places] += logits.exp2_().sum(0).to(sums.device)
    chosen = _chosen(states, weights, head, token).double()
    if not ((sums > SMALLEST_SUM) & (sums < math.inf)).all():
        peaks = torch.full_like(sums, -math.inf)
        for places, logits in _pieces(states, weights):
            peaks[places] = torch.maximum(peaks[places], logits.amax(0).to(peaks.device))
        sums.zero_()
        for places, logits in _pieces(states, weights):
            sums[places] += logits.sub_(peaks[places].to(logits)).exp2_().sum(0).to(sums.device)
        chosen -= peaks[head]
    return ((chosen - sums.log2()[head]) * math.log(2)).float()


def places_at_once(weights: Sequence[Tensor]) -> int:
    """How many are worth reading the output layer for."""
    cached = all(part.numel() * 4 < CACHED_BYTES for part in weights)
    return 1 if cached else PLACES[weights[0].device.type]


def _pieces(states: Tensor, weights: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """(places, their logits [entries, places]), until all places have met all entries; each piece is overwritten."""
    device = states.device.type
    places = min(PLACES[device], len(states))
    for part in weights:
        buffer = torch.empty(LOGITS[device], device=part.device)
        for start in range(0, len(states), places):
            some = states[start : start + places].to(part.device).T
            for rows in part.split(LOGITS[device] // some.shape[1]):
                logits = buffer[: len(rows) * some.shape[1]].view(len(rows), -1)
                yield slice(start, start + places), torch.mm(rows, some, out=logits)


def _chosen(states: Tensor, weights: Sequence[Tensor], head: Tensor, token: Tensor) -> Tensor:
    """The logits of token[i] after states[head[i]], float32 [N]."""
    places = PLACES[states.device.type]
    result = torch.zeros(len(head), device=states.device)
    first = 0
    for part in weights:
        for start in range(0, len(head), places):
            some, local = states[head[start : start + places]], token[start : start + places] - first
            rows = part[local.clamp(0, len(part) - 1).to(part.device)].to(states.device)
            result[start : start + places] += (some * rows).sum(-1) * ((local >= 0) & (local < len(part)))
        first += len(part)
    return result
