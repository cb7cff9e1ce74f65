"""What is noise between mixtures: against simulated truth, against double loops, and on files."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_correlations import panel_of

from analysis.panel.items import Items
from analysis.panel.load import load_panel
from analysis.panel.panel import Panel
from analysis.protocols.noise import (
    FLOOR,
    ITEM_DRAWS,
    Draws,
    Repeats,
    _variance,
    corrected,
    draw,
    noise,
    residual_covariance,
)
from analysis.tables.transfer import PROVISIONAL, transfer_table
from configs.errors import ArtifactError
from configs.layout import StudyFolder

SLUG = "arc_easy"


def study_of(pt: np.ndarray, sft: np.ndarray, average_seeds: bool = False) -> Panel:
    """One scale, one benchmark; answers of PT and SFT, [mixtures, examples] or [seeds, mixtures, examples]."""
    tables = {"PT": np.atleast_3d(pt if pt.ndim == 3 else pt[None]), "SFT": sft if sft.ndim == 3 else sft[None]}
    cube = {(stage, "accuracy"): table.mean(axis=2)[:, :, None] for stage, table in tables.items()}
    values = {("240m", stage, SLUG, "accuracy"): table.astype(np.float32) for stage, table in tables.items()}
    items = Items(values, {("240m", stage, SLUG): "same" for stage in tables})
    return panel_of(cube, (SLUG,), average_seeds=average_seeds, items=items)


def simulated(random: np.random.Generator, mixtures: int, examples: int, spread: float, r: float) -> Panel:
    """Answers from known truth: abilities correlated by r between stages, easy and hard examples, and what a mixture
    finds hard in particular, half of which stays the same from PT to SFT."""
    ability = random.multivariate_normal([0, 0], spread**2 * np.array([[1, r], [r, 1]]), mixtures).T
    hard = random.normal(0, 0.3, examples)
    kept = random.normal(0, 0.35, (mixtures, examples))
    pt, sft = (ability[i][:, None] + hard + kept + random.normal(0, 0.35, kept.shape) for i in range(2))
    return study_of(pt, sft)


# ---------------------------------------------------------------------------------------------- variances


@given(st.integers(2, 6), st.integers(2, 7), st.integers(0, 10_000))
def test_residual_covariance_is_that_of_a_double_loop(m: int, e: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).random((2, m, e))
    total = 0.0
    for i in range(m):
        for j in range(e):
            u = x[i, j] - x[i].mean() - x[:, j].mean() + x.mean()
            v = y[i, j] - y[i].mean() - y[:, j].mean() + y.mean()
            total += u * v
    assert residual_covariance(x, y) == pytest.approx(total / (m - 1) / (e - 1) / e)


@given(st.floats(-5, 5), st.integers(0, 10_000))
def test_easier_examples_and_better_mixtures_are_no_noise(shift: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.random((5, 8))
    moved = x + shift * random.random(8) + random.random((5, 1))
    assert residual_covariance(moved, moved) == pytest.approx(residual_covariance(x, x))


def test_the_noise_of_examples_is_what_other_examples_give() -> None:
    """Whole studies drawn again with the same abilities: their differences vary as the residual of one says."""
    random = np.random.default_rng(1)
    examples, found, means = 60, [], []
    for _ in range(800):
        hard = random.normal(0, 1.0, examples)
        table = hard + random.normal(0, 0.5, (9, examples))  # no true differences: all that is seen is noise
        found.append(residual_covariance(table, table))
        means.append(table.mean(axis=1))
    between = np.mean([mean.var(ddof=1) for mean in means])
    assert np.mean(found) == pytest.approx(between, rel=0.05) and between == pytest.approx(0.25 / examples, rel=0.1)
    binomial_like = (1.0 + 0.25) / examples  # each mixture on its own: overstates it by far
    assert binomial_like > 4 * np.mean(found)


def test_reliability_counts_both_kinds_of_noise_once() -> None:
    """Seeds x examples are in the spread of seeds and in the mixtures' residual."""
    random = np.random.default_rng(2)
    found = []
    for _ in range(300):
        truth = random.normal(0, 1.0, (1, 9, 1))
        seed = random.normal(0, 0.4, (3, 9, 1))
        mixture_item = random.normal(0, 2.0, (1, 9, 40))
        seed_item = random.normal(0, 3.0, (3, 9, 40))
        table = truth + seed + mixture_item + seed_item
        panel = study_of(table, table)
        result = noise(panel, "240m", "PT", "accuracy")
        found.append((result.examples[0] + result.seeds[0], result.observed[0]))
        assert result.measured.all()
    noises, observed = np.mean(found, axis=0)
    expected = 0.16 + (4 + 9) / 40
    assert noises == pytest.approx(expected, rel=0.06) and observed == pytest.approx(1 + expected, rel=0.06)


def test_what_is_not_measured_is_not_none() -> None:
    # V1P0 has three seeds with variance 0.01; the mixtures' first seeds have variance 0.04.
    values = np.full((3, 3, 1), np.nan)
    values[0, :, 0] = [0.4, 0.6, 0.8]
    values[:, 0, 0] = [0.4, 0.3, 0.5]
    seeds_only = noise(panel_of({("PT", "accuracy"): values}, (SLUG,)), "240m", "PT", "accuracy")
    assert seeds_only.reliability == pytest.approx([1 - 0.01 / 0.04]) and not seeds_only.measured.any()
    neither = noise(panel_of({("PT", "accuracy"): values[:1]}, (SLUG,)), "240m", "PT", "accuracy")
    assert np.isnan(neither.reliability).all()
    random = np.random.default_rng(3)
    panel = simulated(random, 9, 50, 1.0, 0.9)
    examples_only = noise(panel, "240m", "PT", "accuracy")
    assert np.isnan(examples_only.seeds).all() and not examples_only.measured.any()
    assert 0 < examples_only.reliability[0] < 1


@pytest.mark.parametrize(
    ("mixtures", "seeds", "enough"),
    [(9, 2, True), (8, 2, True), (7, 2, False), (4, 3, False), (5, 3, True), (1, 9, False), (0, 1, False)],
)
def test_seed_noise_is_settled_by_enough_seeds_of_enough_mixtures(mixtures: int, seeds: int, enough: bool) -> None:
    values = np.random.default_rng(10).random((seeds, 9, 1))
    values[1:, mixtures:] = np.nan
    (found,) = noise(panel_of({("PT", "accuracy"): values}, (SLUG,)), "240m", "PT", "accuracy").repeats
    assert found == Repeats(mixtures, 9, mixtures * (seeds - 1)) and found.enough is enough


def test_what_is_settled_is_not_provisional() -> None:
    table = np.random.default_rng(11).normal(size=(2, 9, 30))
    for seeds, provisional in ((2, False), (1, True)):
        one = study_of(table[:seeds], table[:seeds])
        made = transfer_table(one)
        assert (PROVISIONAL in made.notes) == provisional == any(row.provisional for row in made.rows)


# ---------------------------------------------------------------------------------------------- corrected correlations


def test_equal_values_vary_not_at_all() -> None:
    """The mean of nine times 0.45 is not 0.45 in floating point; it is no sign of a reliable benchmark."""
    nine = np.full(9, 0.45)
    assert nine.var(ddof=1) > 0 and _variance(nine) == 0.0 and math.isnan(_variance(nine[:1]))


def test_correction_recovers_the_true_correlation() -> None:
    random = np.random.default_rng(4)
    for r in (0.9, 0.3):
        seen, mended = [], []
        for _ in range(60):
            panel = simulated(random, 300, 40, 0.12, r)
            matrix = [panel.matrix("240m", stage, "accuracy")[:, 0] for stage in ("PT", "SFT")]
            (result,) = corrected(panel, "240m", "accuracy")
            if result.value is not None:
                seen.append(np.corrcoef(*matrix)[0, 1])
                mended.append(result.value)
                assert result.provisional
        assert len(mended) > 40
        assert abs(np.median(mended) - r) < 0.05 < abs(np.median(seen) - r)


def test_a_correction_beyond_1_is_said_and_not_left_out() -> None:
    """Leaving it out would cut the high side alone; what is left would be too low on average."""
    random = np.random.default_rng(12)
    panels = (simulated(random, 9, 60, 0.12, 0.95) for _ in range(60))
    panel, value = next((p, v) for p in panels if (v := corrected(p, "240m", "accuracy")[0].value or 0.0) > 1)
    table = transfer_table(panel)
    assert table.texts(table.rows[0])[1] == f"≥ 1 ({value:+.2f})"


def test_what_seeds_add_to_both_stages_is_taken_out_once() -> None:
    """A seed is lucky in PT and in SFT alike, also on single examples; the truth of the two stages is unrelated."""
    random = np.random.default_rng(9)
    found, seen = [], []
    for _ in range(80):
        truth = random.normal(0, 1.0, (2, 1, 40, 1))
        luck = random.normal(0, 0.6, (3, 40, 1))
        luck_on_examples = random.normal(0, 4.0, (3, 40, 60))
        own = random.normal(0, 1.0, (2, 3, 40, 60))
        pt, sft = (truth[i] + luck + luck_on_examples + own[i] for i in range(2))
        panel = study_of(pt, sft)
        (result,) = corrected(panel, "240m", "accuracy")
        seen.append(np.corrcoef(*(panel.matrix("240m", s, "accuracy")[:, 0] for s in ("PT", "SFT")))[0, 1])
        assert not result.provisional
        if result.value is not None:
            found.append(result.value)
    assert len(found) > 70 and abs(np.mean(found)) < 0.07 and np.mean(seen) > 0.3


def test_correction_is_refused_where_there_is_little_but_noise() -> None:
    panel = simulated(np.random.default_rng(5), 9, 40, 0.0, 0.0)
    (result,) = corrected(panel, "240m", "accuracy")
    assert result.value is None and f"is below {FLOOR}" in result.refused
    assert panel.items is not None
    items = dataclasses.replace(panel.items, examples={**panel.items.examples, ("240m", "SFT", SLUG): "others"})
    other = dataclasses.replace(panel, items=items)
    assert "not the same examples" in corrected(other, "240m", "accuracy")[0].refused
    flat = study_of(np.ones((9, 10)), np.ones((9, 10)))
    assert corrected(flat, "240m", "accuracy")[0].value is None


# ---------------------------------------------------------------------------------------------- other examples, seeds


def test_draws_are_a_bootstrap_over_examples_shared_by_all_checkpoints() -> None:
    panel = simulated(np.random.default_rng(6), 5, 80, 0.2, 0.5)
    drawn = draw(panel, ("accuracy",))
    assert drawn.what == "examples"
    columns = np.concatenate([panel.answers("240m", stage, SLUG, "accuracy") for stage in ("PT", "SFT")])
    together = np.concatenate([drawn.values["240m", stage, "accuracy"][:, :, 0] for stage in ("PT", "SFT")], axis=1)
    assert together.shape == (ITEM_DRAWS, 10)
    expected = np.cov(columns, bias=True) / columns.shape[1]
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs(together.mean(axis=0) - columns.mean(axis=1)).max() < 5 * math.sqrt(expected.max() / ITEM_DRAWS)
    assert np.abs((np.cov(together.T) - expected) / scale).max() < 0.12
    again = draw(panel, ("accuracy",)).values["240m", "PT", "accuracy"]
    assert np.array_equal(again, drawn.values["240m", "PT", "accuracy"])


def test_seeds_deviate_alike_in_both_stages_and_as_much_as_they_are_seen_to() -> None:
    random = np.random.default_rng(7)
    seed = random.normal(0, 1.0, (4, 9, 1))
    table = random.normal(0, 1e-3, (4, 9, 30)) + seed
    panel = study_of(table, -2 * table)
    drawn = draw(panel, ("accuracy",))
    pt, sft = (drawn.values["240m", stage, "accuracy"][:, :, 0] for stage in ("PT", "SFT"))
    assert drawn.what == "examples and seeds"
    moved = [values - values.mean(axis=0) for values in (pt, sft)]
    assert np.allclose(moved[1], -2 * moved[0], atol=0.02)
    pooled = math.sqrt(seed[:, :, 0].var(axis=0, ddof=1).mean())
    assert pt.std(axis=0).mean() == pytest.approx(pooled, rel=0.05)
    averaged = draw(study_of(table, -2 * table, average_seeds=True), ("accuracy",)).values["240m", "PT", "accuracy"]
    assert averaged.std(axis=0).mean() == pytest.approx(pooled / 2, rel=0.05)  # of a mean over four seeds


def test_draws_say_that_few_seeds_stand_for_all() -> None:
    table = np.random.default_rng(14).normal(size=(3, 9, 20))
    whole = draw(study_of(table, table), ("accuracy",))
    assert whole is not None and whole.meaning.endswith("for these very mixtures")
    table[1:, 1:] = np.nan
    first = draw(study_of(table, table), ("accuracy",))
    assert first is not None and first.meaning.endswith("; seed noise from 1 of 9 mixtures, 2 degrees of freedom")


def test_draws_vary_as_much_as_the_noise_that_is_measured() -> None:
    """Seeds x examples once, and not with the examples and again with the seeds."""
    random = np.random.default_rng(13)
    found, measured = [], []
    for _ in range(20):
        table = random.normal(0, 0.2, (3, 9, 1)) + random.normal(0, 4.0, (3, 9, 40))
        panel = study_of(table, table)
        drawn = draw(panel, ("accuracy",)).values["240m", "PT", "accuracy"][:, :, 0]
        own = drawn - drawn.mean(axis=1, keepdims=True)
        found.append((own - own.mean(axis=0)).var() * 9 / 8)
        result = noise(panel, "240m", "PT", "accuracy")
        measured.append(result.examples[0] + result.seeds[0])
    assert np.mean(measured) == pytest.approx(0.04 + 16 / 40, rel=0.1)
    assert np.mean(found) == pytest.approx(np.mean(measured), rel=0.1)


def test_interval_for_the_same_mixtures_covers_what_other_examples_give() -> None:
    """Abilities are fixed; the r of many examples is what the interval should hold, 95 times in a hundred."""
    random = np.random.default_rng(8)
    ability = random.normal(0, 0.25, (2, 9))
    ability[1] += ability[0]
    truth = float(np.corrcoef(ability)[0, 1])
    held = []
    for _ in range(150):
        pt, sft = (ability[i][:, None] + random.normal(0, 1.0, (9, 150)) for i in range(2))
        panel = study_of(pt, sft)
        drawn = draw(panel, ("accuracy",), 400)
        a, b = (drawn.values["240m", stage, "accuracy"][:, :, 0] for stage in ("PT", "SFT"))
        u, v = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
        r = (u * v).sum(axis=1) / np.sqrt((u**2).sum(axis=1) * (v**2).sum(axis=1))
        value = float(np.corrcoef(pt.mean(axis=1), sft.mean(axis=1))[0, 1])
        ends = dataclasses.replace(drawn).interval(value, np.resize(r, ITEM_DRAWS))
        assert ends is not None
        held.append(ends[0] <= truth <= ends[1])
    assert np.mean(held) > 0.88


def test_no_interval_from_few_draws_or_at_the_edge() -> None:
    drawn = Draws({}, "examples")
    assert drawn.interval(0.5, np.full(ITEM_DRAWS, np.nan)) is None
    assert drawn.interval(1.0, np.linspace(0.9, 1.0, ITEM_DRAWS)) is None


# ---------------------------------------------------------------------------------------------- on files


def test_items_are_the_panel_example_by_example(demo: Path) -> None:
    for average in (False, True):
        panel = load_panel(StudyFolder(demo, "demo"), average_seeds=average)
        assert panel.items is not None
        for metric, tolerance in (("accuracy", 1e-7), ("confidence", 1e-6)):
            for b, slug in enumerate(panel.benchmarks):
                means = panel.answers("mini_m", "SFT", slug, metric).mean(axis=1)
                assert np.allclose(means, panel.matrix("mini_m", "SFT", metric)[:, b], atol=tolerance)
    assert (
        len(set(panel.items.examples.values())) == 1
    )  # every benchmark of this study has validation/0 to validation/29


def test_without_answers_there_are_no_items_and_damaged_ones_are_refused(
    tmp_path: Path, study_maker: Callable[..., Path]
) -> None:
    study_maker(tmp_path, mixtures=("V1P0",), benchmarks=("piqa",), n=5)
    assert load_panel(StudyFolder(tmp_path, "demo")).items is not None
    path = StudyFolder(tmp_path, "demo").answers
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    load_panel(StudyFolder(tmp_path, "demo"))  # derives it again from the scores
    assert path.read_bytes() == whole
    shutil.rmtree(tmp_path / "demo/scores")  # published metrics and answers
    assert load_panel(StudyFolder(tmp_path, "demo")).items is not None
    path.write_bytes(whole[:200])
    with pytest.raises(ArtifactError, match=r"answers\.parquet"):
        load_panel(StudyFolder(tmp_path, "demo"))
    path.unlink()
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    assert panel.items is None and draw(panel) is None and panel.answers("mini_s", "PT", "piqa").shape == (1, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_examples_and_mixtures_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    panel = simulated(random, 9, 30, 0.5, 0.7)
    values = [panel.answers("240m", stage, SLUG, "accuracy") for stage in ("PT", "SFT")]
    mixtures, examples = random.permutation(9), random.permutation(30)
    shuffled = study_of(*(table[mixtures][:, examples] for table in values))
    before, after = (corrected(one, "240m", "accuracy")[0] for one in (panel, shuffled))
    assert (before.value is None) == (after.value is None)
    if before.value is not None:
        assert after.value == pytest.approx(before.value, abs=1e-6)
