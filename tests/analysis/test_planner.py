"""How much is enough: against simulation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_noise import study_of

from analysis.planner.__main__ import main
from analysis.planner.requirements import (
    Goal,
    decision_accuracy,
    mixtures_needed,
    planner_table,
    seeds_needed,
    visible_difference,
)
from configs.errors import ConfigError


@pytest.mark.parametrize(("r", "power", "needed"), [(0.5, 0.8, 30), (0.3, 0.8, 85), (0.7, 0.9, 17)])
def test_sample_sizes_of_the_textbook(r: float, power: float, needed: int) -> None:
    assert mixtures_needed(r, power) == needed


def test_so_many_mixtures_have_the_power_they_should() -> None:
    random = np.random.default_rng(0)
    found = []
    for n in (mixtures_needed(0.6, 0.8), mixtures_needed(0.6, 0.8) - 3):
        x, e = random.normal(size=(2, 4000, n))
        p = stats.pearsonr(x, 0.6 * x + 0.8 * e, axis=1).pvalue
        found.append(np.mean(p < 0.05))
    assert found[1] < 0.8 < found[0] < 0.86


def test_a_difference_just_visible_is_found_as_often_as_it_should() -> None:
    gap = visible_difference(0.02**2, 0.8)
    seen = np.random.default_rng(1).normal(gap, 0.02 * np.sqrt(2), 100_000)
    assert np.mean(np.abs(seen) > 1.96 * 0.02 * np.sqrt(2)) == pytest.approx(0.8, abs=0.01)


@given(st.floats(1e-6, 1e-2), st.floats(0, 1e-2), st.floats(1e-3, 0.2), st.floats(0.5, 0.99))
def test_so_many_seeds_make_a_difference_visible_and_one_fewer_does_not(
    examples: float, seeds: float, difference: float, power: float
) -> None:
    found = seeds_needed(examples, seeds, difference, power)
    if found is None:
        assert visible_difference(examples, power) >= difference * (1 - 1e-9)
        return
    assert visible_difference(examples + seeds / found, power) <= difference * (1 + 1e-6)
    assert found == 1 or visible_difference(examples + seeds / (found - 1), power) >= difference * (1 - 1e-6)


@given(st.floats(-0.99, 0.99))
def test_decisions_of_normal_scores(r: float) -> None:
    random = np.random.default_rng(2)
    x, e = random.normal(size=(2, 2, 20_000))
    y = r * x + np.sqrt(1 - r * r) * e
    assert np.mean((x[0] > x[1]) == (y[0] > y[1])) == pytest.approx(decision_accuracy(r), abs=0.015)


def test_more_seeds_and_the_blur_they_take_away() -> None:
    """Noise known by construction; what is seen on average is what the table says."""
    random = np.random.default_rng(3)
    truth = random.normal(0, 0.05, (1, 60, 1))
    table, other = (truth + random.normal(0, 0.06, (3, 60, 1)) + random.normal(0, 0.2, (1, 60, 400)) for _ in range(2))
    panel = study_of(table, other)  # errors of their own
    planned = planner_table(panel, Goal(0.6, 0.8), (1, 3))
    rows = planned.rows
    assert {planned.texts(row)[5] for row in rows} == {"more examples"}
    one, three = (row.estimate.value for row in rows)
    expected = [0.6 * 0.0025 / (0.0025 + (0.0036 + 0.0001) / k) for k in (1, 3)]
    assert one == pytest.approx(expected[0], abs=0.09) and three == pytest.approx(expected[1], abs=0.09)
    assert rows[0].extra[2] > rows[1].extra[2] > mixtures_needed(0.6, 0.8)
    assert rows[0].extra[5] == rows[1].extra[5] == math.inf  # 0.2 / 20 alone hides two points
    wide = planner_table(panel, Goal(0.6, 0.8, 8.0), (1,)).rows[0].extra[5]
    assert int(wide) == pytest.approx(0.0036 / ((0.08 / visible_difference(1.0, 0.8)) ** 2 - 0.0001), rel=0.6)
    single = study_of(table[:1], other[:1])
    (row,) = planner_table(single, Goal(0.6, 0.8), (1, 3)).rows
    assert "noise of seeds not measured" in row.no_claim and row.extra[5] is None
    (row, *_) = planner_table(dataclasses.replace(single, items=None), Goal(0.6, 0.8), (1,)).rows
    assert row.estimate.value is None and "not measured" in row.estimate.reason


def test_what_is_seen_holds_what_a_run_does_to_both_stages_and_its_examples_fade_with_seeds() -> None:
    """Luck of a seed, also on single examples, is the same in PT and SFT; drawn again with k seeds, this r is seen."""
    random = np.random.default_rng(4)
    of_seed, of_seed_on_examples, of_mixture_on_examples, own, examples = 0.3, 3.0, 2.0, 1.0, 50

    def tables(mixtures: int, seeds: int) -> list[np.ndarray]:
        truth = random.normal(size=(2, 1, mixtures, 1))
        truth[1] = 0.6 * truth[0] + 0.8 * truth[1]
        luck = random.normal(0, of_seed, (seeds, mixtures, 1))
        luck = luck + random.normal(0, of_seed_on_examples, (seeds, mixtures, examples))
        luck = luck + random.normal(0, of_mixture_on_examples, (1, mixtures, examples))
        return [one + luck + random.normal(0, own, luck.shape) for one in truth]

    rows = planner_table(study_of(*tables(600, 3)), Goal(0.6, 0.8), (1, 5)).rows
    for row, seeds in zip(rows, (1, 5), strict=True):
        pt, sft = (table.mean(axis=(0, 2)) for table in tables(6000, seeds))
        assert row.estimate.value == pytest.approx(np.corrcoef(pt, sft)[0, 1], abs=0.035)
        noise = (
            of_seed**2 + (of_seed_on_examples**2 + own**2) / examples
        ) / seeds + of_mixture_on_examples**2 / examples
        assert float(row.extra[0]) == pytest.approx(1 / (1 + noise), abs=0.035)
        assert float(row.extra[4]) == pytest.approx(100 * visible_difference(noise, 0.8), rel=0.08)
        assert int(row.extra[2]) == pytest.approx(mixtures_needed(0.6 / (1 + noise), 0.8), abs=2)


def test_one_mixture_has_no_noise_to_plan_from(
    tmp_path: Path, study_maker: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    study_maker(tmp_path, mixtures=("V1P0",), benchmarks=("piqa", "cb"), n=5)
    main(["--runs", str(tmp_path)])
    assert "missing: the noise of the examples is not measured" in capsys.readouterr().out


def test_the_command(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", str(demo), "--study", "demo", "--seeds", "1,2"])
    out = capsys.readouterr().out
    assert "mixtures needed" in out and "HellaSwag" in out
    for wrong in (["--r", "1.2"], ["--difference", "0"], ["--power", "1"], ["--seeds", "1,x"]):
        with pytest.raises((ConfigError, SystemExit)):
            main(["--runs", str(demo), *wrong])
