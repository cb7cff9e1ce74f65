"""Tijdeman's schedule: within one sample of the weights after every prefix, for any weights, and in time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.load import PAPER_MIXTURES, load_mixture
from mixtures.blend.schedule import counts, quotas, rank_within, schedule

GOLDEN = [0, 1, 0, 2, 0, 1, 0, 2, 0, 1]

part = st.integers(1, 30) | st.integers(1, 10**6) | st.just(1)
part_lists = st.lists(part, min_size=1, max_size=40)


def drift(source: npt.NDArray[np.int16], quota: Sequence[int]) -> Fraction:
    """The furthest that any source's count is from its target after any prefix."""
    total, n = sum(quota), np.arange(1, len(source) + 1)
    furthest = max(np.abs(np.cumsum(source == i) * total - n * q).max() for i, q in enumerate(quota))
    return Fraction(int(furthest), total)


def reference(quota: Sequence[int], num: int) -> list[int]:
    """Earliest due date first, place by place, in exact fractions."""
    margin = Fraction(1, max(2, 2 * len(quota) - 2))
    weights = [Fraction(q, sum(quota)) for q in quota]
    placed = [0] * len(quota)
    out = []
    for place in range(1, num + 1):
        due = {
            i: (placed[i] + 1 - margin) // weight + 1
            for i, weight in enumerate(weights)
            if (placed[i] + margin) / weight <= place
        }
        chosen = min(due, key=lambda i: (due[i], i))
        assert due[chosen] >= place
        placed[chosen] += 1
        out.append(chosen)
    return out


@settings(deadline=None, max_examples=60)
@given(parts=part_lists, num=st.integers(0, 200))
@example(parts=[1] * 40, num=200)
@example(parts=[1, 10**6], num=200)
def test_it_is_earliest_due_date_first(parts: list[int], num: int) -> None:
    quota = np.array(parts) // np.gcd.reduce(parts)
    assert schedule(quota, num).tolist() == reference(quota.tolist(), num)


@settings(deadline=None, max_examples=60)
@given(parts=part_lists, num=st.integers(1, 20_000))
def test_after_every_prefix_each_count_is_within_one_of_its_target(parts: list[int], num: int) -> None:
    quota = np.array(parts) // np.gcd.reduce(parts)
    source = schedule(quota, num)
    assert drift(source, quota.tolist()) <= 1 - Fraction(1, max(2, 2 * len(parts) - 2))
    np.testing.assert_array_equal(counts(quota, num), np.bincount(source, minlength=len(parts)))


@settings(deadline=None, max_examples=60)
@given(exponents=st.lists(st.floats(-6, 0), min_size=1, max_size=40), num=st.integers(1, 20_000))
@example(exponents=[0.0, -6.0], num=20_000)
def test_any_weights_stay_within_one(exponents: list[float], num: int) -> None:
    """Also those that nine decimals round: their margin is wider than what the rounding moves."""
    weights = np.power(10.0, exponents)
    weights /= weights.sum()
    source = schedule(quotas(weights.tolist()), num)
    n = np.arange(1, num + 1)
    for i, weight in enumerate(weights):
        assert (np.abs(np.cumsum(source == i) - n * weight) < 1).all()


@settings(deadline=None, max_examples=60)
@given(parts=part_lists, num=st.integers(0, 3000), more=st.integers(0, 5000))
def test_a_longer_schedule_begins_with_the_shorter(parts: list[int], num: int, more: int) -> None:
    quota = np.array(parts) // np.gcd.reduce(parts)
    np.testing.assert_array_equal(schedule(quota, num), schedule(quota, num + more)[:num])


def test_rare_sources_wait_as_the_rule_says_across_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources that wait where a block of places begins depend on all that came before."""
    monkeypatch.setattr("mixtures.blend.schedule.BLOCK", 97)
    quota = np.array([1, 2, 3, 7, 99_991, 400_009, 499_987])
    num = 10_000
    assert schedule(quota, num).tolist() == reference(quota.tolist(), num)


def test_the_order_is_pinned() -> None:
    """These values may never change: a run that is resumed elsewhere must see the same samples."""
    assert schedule(quotas([0.5, 0.3, 0.2]), 10).tolist() == GOLDEN


def test_decimals_are_exact_and_thirds_are_thirds() -> None:
    assert quotas([0.65, 0.25, 0.025, 0.025, 0.05]).tolist() == [26, 10, 1, 1, 2]
    assert quotas([1 / 3] * 3).tolist() == [1, 1, 1]
    assert quotas([1e-9, 1 - 1e-9]).tolist() == [1, 10**9 - 1]
    assert quotas([1.0]).tolist() == [1]
    for mixture in PAPER_MIXTURES:
        weights = [weight for weight in load_mixture(mixture).weights.values() if weight]
        assert quotas(weights).sum() <= 400, mixture


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight 1e-10 is too small\n.*at least 1e-09"):
        quotas([1e-10, 1 - 1e-10])
    with pytest.raises(ConfigError, match="too many for weights of nine decimals"):
        schedule(quotas([1 / 997] * 39 + [958 / 997]), 2 * 10**8)


@settings(deadline=None, max_examples=50)
@given(source=st.lists(st.integers(0, 5), max_size=60))
def test_rank_counts_earlier_samples_of_the_same_source(source: list[int]) -> None:
    expected = [source[:i].count(s) for i, s in enumerate(source)]
    assert rank_within(np.array(source, dtype=np.int16)).tolist() == expected


def test_a_source_is_spread_evenly() -> None:
    """Not only counted right: the gaps of a source differ from 1/w by less than 2/w."""
    quota = quotas([0.45, 0.35, 0.1, 0.1])
    source = schedule(quota, 2000)
    for i, q in enumerate(quota):
        gaps = [b - a for a, b in pairwise(np.flatnonzero(source == i).tolist())]
        assert max(gaps) < 2 * quota.sum() / q
