"""Which source each sample of a mixture comes from, so that no prefix strays from the weights by a sample or more.

In: weights. Out: the source of samples 0, 1, ... as int16. A longer schedule begins with the shorter one.

This is the chairman assignment problem. With k sources and m = 1 / (2k - 2), Tijdeman (Discrete Mathematics 32, 1980)
lets the j-th sample of a source of weight w stand at places (j - 1 + m) / w to (j - m) / w + 1, and shows that all
samples find a place; the count of a source after n places then differs from n w by at most 1 - m. Taking at every place
the open sample that is due first (of equals the first source) meets every due date that can be met. Arithmetic is in
integers throughout.

That rule runs from place to place. Two facts make it fast in NumPy. Quotas with the sum D repeat the schedule after D
places, so one period serves. And which samples are still waiting at a place follows from the past without replaying it
(see `_placed_before`), so a period is cut into lanes that advance side by side; the state in which each lane ends is
compared with the state in which the next began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from configs.errors import ConfigError

Ints = npt.NDArray[np.int64]

RESOLUTION = 10**9
"""Weights are taken to nine decimals, which are met exactly. Others are rounded by at most (1 + k w) / 2 billionths:
for k = 9 and w = 0.3 that moves a source by 0.02 samples in 10 million, well inside m."""
_NEVER = np.iinfo(np.int64).max


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
    return np.resize(_Rule(quota).first(min(period, num_samples)), num_samples)


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


class _Rule:
    """Tijdeman's rule for quotas q with the sum D: w = q / D, m = 1 / h. Sources are rows, lanes are columns."""

    def __init__(self, quota: Ints) -> None:
        self.quota = quota[:, None]
        self.total = int(quota.sum())
        self.h = 2 * max(1, len(quota) - 1)

    def opens(self, source: Ints, sample: Ints) -> Ints:
        """First place (counted from 1) of sample 1, 2, ... of a source: the ceiling of (j - 1 + 1/h) D / q."""
        return -(-(self.h * (sample - 1) + 1) * self.total // (self.h * self.quota[source, 0]))

    def urgency(self, source: Ints, sample: Ints) -> Ints:
        """Last place of a sample, the floor of (j - 1/h) D / q + 1; the source decides between equals."""
        due = (self.h * sample - 1) * self.total // (self.h * self.quota[source, 0]) + 1
        return due * len(self.quota) + source

    def opened(self, place: Ints) -> Ints:
        """Samples of each source that are open by a place; [sources, places]."""
        return (self.h * self.quota * place + (self.h - 1) * self.total) // (self.h * self.total)

    def overdue(self, place: Ints) -> Ints:
        """Samples of each source whose last place has come; `opened`, or one less: [sources, places]."""
        return (self.h * self.quota * place + self.total - 1) // (self.h * self.total)

    def first(self, num: int) -> npt.NDArray[np.int16]:
        """The first `num` places; int16 [num]."""
        if num == 0 or len(self.quota) == 1:
            return np.zeros(num, dtype=np.int16)
        # Short lanes take few steps, many lanes fill the vectors; beyond this the vectors outgrow the cache.
        length = math.isqrt(num // len(self.quota)) + 1
        lanes = -(-num // length)
        if self.h * self.total * (lanes * length + 2) >= 2**63:
            raise ConfigError(
                f"{num:,} samples of {len(self.quota)} sources are too many for weights of nine decimals",
                hint="give the weights with fewer decimals",
            )
        placed = self._placed_before(length, lanes)
        lane, sources = np.arange(lanes), np.arange(len(self.quota))[:, None]
        start = lane * length
        opens = self.opens(sources, placed + 1) - start
        urgency = self.urgency(sources, placed + 1)
        start_of_lane = placed.copy()
        out = np.empty((length, lanes), dtype=np.int16)
        for step in range(length):
            chosen = np.where(opens <= step + 1, urgency, _NEVER).min(axis=0) % len(self.quota)
            out[step] = chosen
            placed[chosen, lane] += 1
            following = placed[chosen, lane] + 1
            opens[chosen, lane] = self.opens(chosen, following) - start
            urgency[chosen, lane] = self.urgency(chosen, following)
        assert np.array_equal(placed[:, :-1], start_of_lane[:, 1:]), "lanes disagree where they meet"
        return out.T.ravel()[:num]

    def _placed_before(self, length: int, lanes: int) -> Ints:
        """Samples of each source that the rule has placed before each lane; [sources, lanes].

        At a place n each source has at most one sample that is undecided: open, but not yet due. The rule serves the
        samples due by some t as though there were no others, one at every place as long as any of them waits; so at n
        the number of them that wait is the maximum over s <= n of those opened after s, less n - s. With B(s) for all
        samples that are open but unplaced at s, that is B(n) - min over s of (B(s) + the undecided samples that are due
        after t and opened after s). From the last t to the first, each sample that raises this minimum waits.
        """
        n = np.arange(lanes) * length
        opened = self.opened(n)
        undecided = opened > self.overdue(n)
        rows = np.arange(len(self.quota))[:, None]
        opens = np.where(undecided, self.opens(rows, opened), 0)
        lowest = self._lowest_backlog(opens, undecided, length)
        latest_first = np.argsort(np.where(undecided, -self.urgency(rows, opened), _NEVER), axis=0)

        waits = np.zeros_like(undecided)
        considered = np.zeros_like(undecided)
        minimum = np.zeros(lanes, dtype=np.int64)
        lane = np.arange(lanes)
        for row in latest_first:
            lowest += opens[row, lane] > opens
            considered[row, lane] = undecided[row, lane]
            raised = np.minimum(considered.sum(axis=0), np.where(considered, lowest, _NEVER).min(axis=0))
            waits[row, lane] = raised > minimum
            minimum = raised
        return opened - waits

    def _lowest_backlog(self, opens: Ints, undecided: npt.NDArray[np.bool_], length: int) -> Ints:
        """The least B(s) from the opening of each undecided sample to the start of the lane; [sources, lanes]."""
        lanes = opens.shape[1]
        last = self.opened(np.array([lanes * length]))[:, 0]
        openings = [self.opens(np.array(row), np.arange(1, samples + 1)) for row, samples in enumerate(last)]
        at_place = np.bincount(np.concatenate(openings), minlength=lanes * length + 1)[1:]
        backlog = np.cumsum(at_place - 1).astype(np.int16).reshape(lanes, length)
        to_end_of_lane = np.minimum.accumulate(backlog[:, ::-1], axis=1)[:, ::-1]

        before = np.vstack([to_end_of_lane[:1], to_end_of_lane[:-1]])  # the stretch that ends where a lane starts
        within = opens - (np.arange(lanes) - 1) * length - 1  # place of the opening in that stretch
        fresh = within >= 0
        since = before[np.arange(lanes), np.where(fresh, within, 0)].astype(np.int64)
        # A running minimum along the lanes that begins anew where a sample opened: later stretches are set lower.
        stretch = np.cumsum(fresh | ~undecided, axis=1) * (2 * len(self.quota))
        return np.minimum.accumulate(since - stretch, axis=1) + stretch
