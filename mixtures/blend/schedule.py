"""Which source each sample of a mixture comes from, so that no prefix strays from the weights by a sample or more.

In: weights. Out: the source of samples 0, 1, ... as int16. A longer schedule begins with the shorter one.

This is the chairman assignment problem. With k sources and m = 1 / (2k - 2), Tijdeman (Discrete Mathematics 32, 1980)
lets the j-th sample of a source of weight w stand at places (j - 1 + m) / w to (j - m) / w + 1, and shows that all
samples find a place; the count of a source after n places then differs from n w by at most 1 - m. Taking at every place
the open sample that is due first (of equals the first source) meets every due date that can be met. Arithmetic is in
integers throughout.

Quotas with the sum D repeat the schedule after D places, so one period serves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from configs.errors import ConfigError

Ints = npt.NDArray[np.int64]

RESOLUTION = 10**9
"""Weights are taken to nine decimals, which are met exactly. Others are rounded by at most (1 + k w) / 2 billionths:
for k = 9 and w = 0.3 that moves a source by 0.02 samples in 10 million, well inside m."""
BLOCK = 2**18
"""Places taken at a time, which bounds the memory of Python's numbers."""


def quotas(weights: Sequence[float]) -> Ints:
    """Integers in proportion to `weights` (positive, sum about 1), without a common divisor; int64 [sources].

    Raises ConfigError for a weight that rounds to nothing.
    """
    parts = [round(weight * RESOLUTION) for weight in weights]
    if min(parts) < 1:
        raise ConfigError(f"weight {min(weights):g} is too small", valid=f"at least {1 / RESOLUTION:g}, or exactly 0")
    divisor = math.gcd(*parts)
    return np.array([part // divisor for part in parts], dtype=np.int64)


def schedule(quota: Ints, num_samples: int) -> npt.NDArray[np.int16]:
    """The source of every sample, int16 [num_samples]; after n of them each count is less than 1 from n quota / sum."""
    period = int(quota.sum())
    return np.resize(_first_places(quota, min(period, num_samples)), num_samples)


def counts(quota: Ints, num_samples: int) -> Ints:
    """Samples of each source in a schedule of that length, int64 [sources]."""
    periods, rest = divmod(num_samples, int(quota.sum()))
    return periods * quota + np.bincount(schedule(quota, rest), minlength=len(quota))


def rank_within(source: npt.NDArray[np.int16]) -> Ints:
    """How many earlier samples have the same source; int64 like `source`."""
    by_source = np.argsort(source, kind="stable")
    sizes = np.bincount(source)
    rank = np.empty(len(source), dtype=np.int64)
    rank[by_source] = np.arange(len(source)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def _first_places(quota: Ints, num: int) -> npt.NDArray[np.int16]:
    """Tijdeman's rule for quotas q with the sum D, w = q / D and m = 1 / h: the first `num` places; int16 [num]."""
    total, h = int(quota.sum()), 2 * max(1, len(quota) - 1)
    if num == 0 or len(quota) == 1:
        return np.zeros(num, dtype=np.int16)
    if h * total * (num + 2) >= 2**63:
        raise ConfigError(
            f"{num:,} samples of {len(quota)} sources are too many for weights of nine decimals",
            hint="give the weights with fewer decimals",
        )
    out, waiting = np.empty(num, dtype=np.int16), list[int]()
    opened = np.zeros_like(quota)
    for start in range(0, num, BLOCK):
        size = min(BLOCK, num - start)
        before, opened = opened, (h * quota * (start + size) + (h - 1) * total) // (h * total)
        # The samples that open in this block, numbered within their source.
        source = np.repeat(np.arange(len(quota)), opened - before)
        sample = np.concatenate([np.arange(*ends) + 1 for ends in zip(before, opened, strict=True)])
        q = quota[source]
        place = -(-(h * (sample - 1) + 1) * total // (h * q))  # the ceiling of (j - 1 + 1/h) D / q
        last_place = (h * sample - 1) * total // (h * q) + 1  # the floor of (j - 1/h) D / q + 1
        # Of equal last places the first source comes first.
        urgency = (last_place * len(quota) + source)[np.argsort(place, kind="stable")].tolist()
        chosen, i = [], 0
        for stop in np.cumsum(np.bincount(place - start - 1, minlength=size)).tolist():
            for one in urgency[i:stop]:
                heappush(waiting, one)
            i = stop
            chosen.append(heappop(waiting))
        out[start : start + size] = np.array(chosen) % len(quota)
    return out
