"""What follows from the paper's printed numbers: against literals, SciPy and formulas written out by hand."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import published_checks as checks
import pytest
from published_checks import Reading
from scipy import stats

from analysis.paper import published as pub
from analysis.paper.numbers import CATEGORIES, SCALES, displays, frame, in_text, numbers
from analysis.tables import __main__ as tables
from configs.cost.model import parameters
from configs.load import load_train

# ---------------------------------------------------------------------------------------------- one correlation


@pytest.mark.parametrize("n", [4, 9, 190])
@pytest.mark.parametrize("r", [-0.43, 0.0, 0.01, 0.666, 0.73, 0.99])
def test_p_of_a_correlation_is_the_t_tests(r: float, n: int) -> None:
    """Also against a sample made to have exactly this r, which SciPy tests itself."""
    t = abs(r) * math.sqrt((n - 2) / (1 - r**2))
    assert pub.p_of(r, n) == pytest.approx(2 * stats.t.sf(t, n - 2), rel=1e-9)
    x = np.linspace(-1, 1, n)
    noise = np.random.default_rng(0).normal(size=n)
    noise -= noise.mean() + x * (noise @ x) / (x @ x)
    y = r * x / np.linalg.norm(x) + math.sqrt(1 - r**2) * noise / np.linalg.norm(noise)
    theirs = stats.pearsonr(x, y)
    assert theirs.statistic == pytest.approx(r, abs=1e-12)
    assert pub.p_of(r, n) == pytest.approx(theirs.pvalue, rel=1e-6)
    mine, interval = pub.published(r, n), theirs.confidence_interval()
    assert (mine.low, mine.high) == (pytest.approx(interval.low, abs=1e-6), pytest.approx(interval.high, abs=1e-6))


def test_intervals_at_nine_mixtures() -> None:
    for r, low, high in ((0.59, -0.12, 0.90), (0.49, -0.26, 0.87), (0.41, -0.35, 0.84), (0.70, 0.07, 0.93)):
        estimate = pub.published(r)
        assert (round(estimate.low or 0, 2), round(estimate.high or 0, 2)) == (low, high)
        assert estimate.n == 9 and estimate.points == "mixtures"
    t = stats.t.ppf(0.975, 7)
    assert pub.critical_r(9) == pytest.approx(t / math.sqrt(7 + t**2))
    assert round(pub.critical_r(9), 3) == 0.666 and pub.p_of(pub.critical_r(9), 9) == pytest.approx(0.05)


def test_q_values_are_scipys_and_so_many_are_significant() -> None:
    found = {}
    for key in pub.COLUMNS:
        p = [estimate.p for estimate in pub.estimates(*key).values()]
        assert list(pub.q_values(*key).values()) == pytest.approx(stats.false_discovery_control(p), rel=1e-12)
        found[key] = len(pub.significant(*key))
    assert found == {
        ("accuracy", "240M"): 7,
        ("accuracy", "1B"): 4,
        ("confidence", "240M"): 13,
        ("confidence", "1B"): 1,
    }
    assert pub.significant("confidence", "1B") == ["HellaSwag"]


def test_significance_within_rounding() -> None:
    """Against correlations drawn from all that print as Table 5's."""
    random = np.random.default_rng(0)
    for key in pub.COLUMNS:
        r = np.array(list(pub.correlations(*key).values()))
        low, high = pub.significant_range(*key)
        assert low <= len(pub.significant(*key)) <= high
        for shift in random.uniform(-0.005, 0.005, (200, 20)):
            moved = np.clip(r + shift, -1, 1)
            p = 2 * stats.t.sf(np.abs(moved) * np.sqrt(7 / (1 - moved**2)), 7)
            assert low <= (stats.false_discovery_control(p) < 0.05).sum() <= high


# ---------------------------------------------------------------------------------------------- Table 5


def test_means_of_table_5_and_of_the_text() -> None:
    everything = [pub.mean(*key) for key in pub.COLUMNS]
    assert everything == pytest.approx([0.4875, 0.5865, 0.6645, 0.4095], abs=1e-12)
    assert everything == pytest.approx([numbers()["5", *key, "mean"] for key in pub.COLUMNS], abs=pub.ROUNDING)
    without = [pub.mean(*key, without=("MultiRC",)) for key in pub.COLUMNS]
    assert [round(value, 3) for value in without] == [0.507, 0.604, 0.676, 0.392]
    assert list(pub.means_in_text().values()) == [0.51, 0.60, 0.68, 0.39]
    assert (checks.share_above_half(), checks.share_above_half(("MultiRC",))) == (15 / 20, 15 / 19)
    assert round(15 / 19, 2) == in_text(quantity="share of benchmarks with r > 0.5") == 0.79


def test_only_leaving_out_multirc_gives_the_texts_means() -> None:
    """Of every single benchmark and every two."""
    assert pub.deletions_that_fit(1) == [("MultiRC",)]
    assert pub.deletions_that_fit(2) == []
    for left_out in displays().values():
        column = [r for name, r in pub.correlations("accuracy", "240M").items() if name != left_out]
        assert pub.mean("accuracy", "240M", without=(left_out,)) == pytest.approx(np.mean(column))


def test_category_means() -> None:
    confidence = {scale: checks.category_means("confidence", scale) for scale in SCALES}
    assert round(confidence["240M"]["Commonsense"], 3) == 0.871 and round(confidence["1B"]["Commonsense"], 3) == 0.400
    assert round(confidence["240M"]["Science"], 3) == 0.820 and round(confidence["1B"]["Science"], 3) == 0.485
    assert confidence["240M"]["NLI"] == pytest.approx(0.2075)
    assert checks.category_means("accuracy", "240M")["NLI"] == pytest.approx(0.4275)
    for row in frame("values_in_text").to_dict("records"):
        if row["quantity"] == "mean confidence cross-stage" and row["category_or_benchmark"] in CATEGORIES:
            mine = confidence[row["scale"]][row["category_or_benchmark"]]
            assert mine == pytest.approx(float(row["value"]), abs=pub.ROUNDING)


def test_tiers_by_their_own_rule() -> None:
    assert pub.above(pub.HIGH) == ["HellaSwag", "COPA"]
    assert set(pub.below(pub.LOW, columns=pub.ACCURACY)) == {"WinoGrande", "MNLI", "WiC", "MultiRC"}
    of_confidence = {"RTE", "CB", "MNLI", "PIQA", "SIQA", "BoolQ", "QNLI"}
    assert set(pub.below(pub.LOW, columns=pub.CONFIDENCE)) == of_confidence
    assert pub.below(pub.LOW, columns=[("confidence", "240M")]) == ["MNLI", "RTE", "CB"]
    assert pub.above(pub.HIGH, "low") == [] and pub.below(pub.LOW, "high") == []
    assert pub.above(pub.HIGH, "low", pub.ACCURACY) == ["HellaSwag"]


def test_changes_with_scale() -> None:
    accuracy, confidence = pub.scale_changes("accuracy"), pub.scale_changes("confidence")
    largest = max(accuracy, key=lambda name: abs(accuracy[name].z))
    assert (largest, round(abs(accuracy[largest].z), 2)) == ("MNLI", 1.64)
    assert accuracy["MNLI"].z == pytest.approx((math.atanh(0.53) + math.atanh(0.34)) / math.sqrt(1 / 6 + 1 / 6))
    assert {name for name, change in confidence.items() if change.p < 0.05} == {"PIQA", "SIQA", "WinoGrande"}
    assert {name for name, change in confidence.items() if change.q < 0.05} == {"PIQA", "SIQA"}
    # 0.945 and 0.185 print as PIQA's 0.95 and 0.18 do, and would not be significant as the second smallest of 20.
    assert 20 / 2 * 2 * stats.norm.sf((math.atanh(0.945) - math.atanh(0.185)) * math.sqrt(3)) > 0.05
    for changes in (accuracy, confidence):
        p = [change.p for change in changes.values()]
        assert p == pytest.approx([2 * stats.norm.sf(abs(change.z)) for change in changes.values()])
        assert [change.q for change in changes.values()] == pytest.approx(stats.false_discovery_control(p))


def test_naive_p_of_finding_3() -> None:
    r = in_text(where="Finding 3")
    assert (r, math.comb(20, 2), math.comb(19, 2)) == (0.73, 190, 171)
    assert math.log10(pub.p_of(r, 190)) == pytest.approx(-32, abs=0.5)
    assert math.log10(pub.p_of(r, 171)) == pytest.approx(-29, abs=0.5)


# ---------------------------------------------------------------------------------------------- the other tables


def test_pretraining_budgets() -> None:
    small, large = (checks.budget(scale) for scale in SCALES)
    assert small.table_tokens == large.table_tokens == 200_000 * 256 * 4096 == 209_715_200_000
    assert [round(b.ratio, 2) for b in (small, large)] == [17.48, 4.03]
    assert [b.text_steps for b in (small, large)] == [11_444, 49_591]
    assert [round(checks.sequences_a_batch(scale), 1) for scale in SCALES] == [14.6, 63.5]
    assert [round(b.text_tokens / b.parameters) for b in (small, large)] == [50, 52]
    assert [round(b.table_tokens / b.parameters) for b in (small, large)] == [874, 210]
    for scale, b in zip(SCALES, (small, large), strict=True):
        config = load_train(checks.CONFIGS[scale])
        assert (config.budget.tokens, config.pretraining_steps) == (b.text_tokens, b.text_steps)
        assert load_train(f"{checks.CONFIGS[scale]}#table2a_steps").pretraining_steps == b.table_steps


def test_fine_tuning_steps() -> None:
    assert [checks.sft_steps_per_epoch(scale) for scale in SCALES] == [1273, 1273]
    assert 1273 * int(checks.printed("table2b", "batch_size_sequences", "1B")) == 325_888
    assert checks.sft_steps_per_epoch("1B", "epochs_as_stated_in_text") == 2546


# Millions of parameters: tied, outside the embedding, untied; at 240M, then at 1B.
COUNTS = {
    Reading(2, 8, 8): ((203.3, 125.8, 280.8), (876.5, 707.1, 1046.0)),
    Reading(2, 8, 1): ((181.3, 103.8, 258.7), (804.3, 634.8, 973.7)),
    Reading(3, 8, 8): ((241.1, 163.6, 318.5), (1147.5, 978.0, 1316.9)),
    Reading(3, 8, 1): ((219.0, 141.6, 296.5), (1075.2, 905.8, 1244.7)),
    Reading(3, 4, 8): ((184.4, 107.0, 261.9), (741.1, 571.6, 910.5)),
    Reading(3, 4, 1): ((162.4, 84.9, 239.9), (668.8, 499.4, 838.3)),
    Reading(2, 4, 8): ((165.6, 88.1, 243.0), (605.6, 436.1, 775.0)),
    Reading(2, 4, 1): ((143.5, 66.1, 221.0), (533.3, 363.9, 702.8)),
}


def test_parameters_under_every_reading_of_table_1() -> None:
    assert set(checks.READINGS) == set(COUNTS)
    for reading, both in COUNTS.items():
        for scale, expected in zip(SCALES, both, strict=True):
            count = checks.count(scale, reading)
            mine = (count.tied, count.outside_embedding, count.untied)
            assert tuple(round(number / 1e6, 1) for number in mine) == expected, (scale, reading)
    taken = checks.count("240M", Reading(3, 8, 8))
    by_hand = 8 * (4 * 768 * 2048 + 3 * 768 * 6144 + 2 * 768) + 768 + 100_864 * 768
    assert taken.tied == by_hand == parameters(load_train("240m.yaml").model).total
    for scale in SCALES:  # the project's own configs have Table 1's dimensions
        assert checks.model_shape(scale) == load_train(checks.CONFIGS[scale]).model


def test_binomial_noise() -> None:
    errors = {name: round(checks.standard_error_pp(name), 1) for name in frame("table4")["benchmark"]}
    small = {"CB": 6.7, "WSC": 4.9, "RTE": 3.0, "MRPC": 2.5, "COPA": 2.2, "OpenBookQA": 2.2}
    assert {name: errors[name] for name in small} == small
    assert checks.standard_error_pp("CB") == pytest.approx(100 * stats.binom.std(56, 0.5) / 56)
    four = [100 * stats.binom.std(n, 0.5) / n for n in (9815, 5463, 277, 56)]
    assert checks.category_error_pp("NLI") == pytest.approx(math.hypot(*four) / 4)


def test_web_sources_of_table_11() -> None:
    gaps = checks.web_gaps()
    assert gaps["NLI", "FineWeb-Edu", "RefinedWeb"] == pytest.approx(44.1 - 43.2)
    sizes = [round(abs(gap), 1) for gap in gaps.values()]
    assert (len(sizes), min(sizes), max(sizes)) == (12, 0.2, 0.9)
    assert checks.largest_web_gap_in_errors() < 1.96


def test_tables_6_8_and_9_do_not_balance() -> None:
    nli = {
        ("240M", "PT"): (0.35, 0.367, 0.417),
        ("240M", "SFT"): (0.25, 0.277, 0.380),
        ("1B", "PT"): (-0.12, -0.117, -0.233),
        ("1B", "SFT"): (0.39, 0.467, 0.320),
    }
    balance = checks.balance()
    assert len(balance) == 16
    for (scale, stage), expected in nli.items():
        cell = balance[scale, stage, "NLI"]
        assert tuple(round(value, 3) for value in cell) == expected and not cell.agrees
    web = [numbers()["8", "240M", "PT", source, "Science"] for source in ("RefinedWeb", "FineWeb-Edu", "DCLM")]
    assert balance["240M", "PT", "Science"].table8 == pytest.approx(np.mean(web))


def test_table_7_follows_from_table_8() -> None:
    differ = {}
    for scale, category in itertools.product(SCALES, CATEGORIES):
        mine = round(checks.education_effect(scale, "PT", category), 2)
        if mine != numbers()["7", "alignment", scale, category]:
            differ[scale, category] = (numbers()["7", "alignment", scale, category], mine)
    assert differ == {("1B", "Commonsense"): (-0.04, -0.03), ("1B", "Science"): (-0.03, -0.02)}
    assert round(checks.education_effect("1B", "SFT", "Semantic"), 2) == -0.55


def test_alignment_and_its_persistence() -> None:
    assert checks.lowest_alignment("Science") == 0.68 == numbers()["8", "240M", "PT", "FineWeb-Edu", "Science"]
    found = checks.persistence()
    assert [key for key, (estimate, _) in found.items() if abs(estimate.value or 0) > pub.critical_r(9)] == [
        ("240M", "Commonsense")
    ]
    p = [estimate.p for estimate, _ in found.values()]
    assert [q for _, q in found.values()] == pytest.approx(stats.false_discovery_control(p))
    assert min(q for _, q in found.values()) > 0.05
    a = np.array([0.3, 0.5, 0.9])
    assert np.corrcoef(a, a + 0.3)[0, 1] == pytest.approx(1)  # constant over-confidence is perfect "calibration"


def test_mixtures_of_table_3() -> None:
    assert checks.crossings() == (9, 18)
    assert checks.share_directions() == 1
    web, code, curated = checks.shares().T
    assert np.corrcoef(web, code)[0, 1] == pytest.approx(-1) and np.corrcoef(code, curated)[0, 1] == pytest.approx(1)
    sources = frame("table3").groupby("web_source")["code_source"].nunique()
    assert set(sources) == {1}


def test_hellaswag_and_code_share() -> None:
    def printed(where: str, scale: str) -> float:
        return in_text(
            where=where, quantity="code proportion vs accuracy", scale=scale, category_or_benchmark="HellaSwag"
        )

    assert (printed("C.4.2", "1B"), printed("Figure 15", "1B"), printed("Figure 15", "240M")) == (-0.94, -0.80, -0.94)


def test_betrs_share_of_documents() -> None:
    assert [round(checks.betr_percent(c), 2) for c in (1e19, 1e22)] == [2.25, 12.65]
    assert checks.betr_flops(30) == pytest.approx(3.16e23, rel=1e-2)
    assert checks.betr_percent(checks.betr_flops(3)) == pytest.approx(3)


# ---------------------------------------------------------------------------------------------- the command


def test_paper_option_prints_the_paper_though_there_is_a_study(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main(["--paper", "--runs", str(demo)])
    out = capsys.readouterr().out
    for number in ("1", "2a", "2b", *range(3, 12)):
        assert f"Table {number}. " in out
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert ["of Table 5's 20 benchmarks", "0.4875", "0.5865", "0.6645", "0.4095"] in lines
    assert ["without MultiRC", "0.5074", "0.6037", "0.6763", "0.3921"] in lines
    assert ["q < 0.05", "7", "4", "13", "1"] in lines
    assert ["r > 0.6 in all four columns", "HellaSwag, COPA"] in lines
    assert "+0.59  [−0.12, +0.90]" in out and "−0.35  [−0.82, +0.41]" in out
    assert "No study with scores" not in out and "880 of 880" not in out
    with pytest.raises(SystemExit, match="2"):
        tables.main(["--paper", "--study", "demo"])
