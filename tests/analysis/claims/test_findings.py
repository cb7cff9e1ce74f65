"""Every claim on a view in which it holds, and on views that differ from it in one part of the predicate each."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_views import (
    ACROSS,
    MEMBERS,
    alignment_view,
    by_code,
    by_web,
    coherence_view,
    made,
    transfer_view,
    turned,
)

from analysis.claims import findings as f
from analysis.claims.evidence import PublishedEvidence
from analysis.claims.view import View
from analysis.paper.numbers import CATEGORIES
from configs.load import BENCHMARKS, PAPER_MIXTURES

BOTH = (0, 1)


def every(metric: str, scale: int, slugs: tuple[str, ...], r: float) -> dict[tuple[str, int, str], float]:
    return dict.fromkeys(((metric, scale, slug) for slug in slugs), r)


# ---------------------------------------------------------------------------------------------- transfer


def test_claims_of_table_5_hold_in_a_study_with_its_correlations() -> None:
    view = transfer_view()
    for claim in (f.finding_1, f.finding_2, f.finding_4, f.finding_7, f.implication_2):
        assert claim(view) is True
    assert f.implication_1(view) is False  # WSC: 0.57 and 0.61
    assert f.implication_1(transfer_view({("accuracy", 1, "wsc"): 0.2})) is True


@pytest.mark.parametrize(
    "changes",
    [
        *(every("accuracy", s, MEMBERS[c], 0.49) for s in BOTH for c in ("Science", "Commonsense")),
        *(every("accuracy", s, MEMBERS["Semantic"], 0.56) for s in (0,)),  # above Commonsense, below Science
        every("accuracy", 1, MEMBERS["Semantic"], 0.7),  # above Science, below Commonsense
    ],
)
def test_finding_1_needs_each_part(changes: dict[tuple[str, int, str], float]) -> None:
    assert f.finding_1(transfer_view(changes)) is False


@pytest.mark.parametrize(
    "changes",
    [
        every("confidence", 0, MEMBERS["Science"], 0.49) | every("accuracy", 0, MEMBERS["Science"], 0.4),
        # Others rise, so that most stay above 0.5.
        every("confidence", 0, MEMBERS["Commonsense"], 0.49)
        | every("accuracy", 0, MEMBERS["Commonsense"], 0.4)
        | every("confidence", 0, (*MEMBERS["Semantic"], "rte"), 0.9),
        every("accuracy", 0, MEMBERS["Science"], 0.9),
        every("accuracy", 0, MEMBERS["Commonsense"], 0.9),
        every("confidence", 0, MEMBERS["NLI"], 0.51),
        {("confidence", 0, "cb"): -0.01},
        every("confidence", 0, (*MEMBERS["Semantic"], "qnli", "boolq"), 0.49),  # 10 of 20 above 0.5
    ],
)
def test_finding_2_needs_each_part(changes: dict[tuple[str, int, str], float]) -> None:
    assert f.finding_2(transfer_view(changes)) is False


def test_finding_2_reads_79_percent_as_most() -> None:
    view = transfer_view(every("confidence", 0, (*MEMBERS["Semantic"], "qnli"), 0.49))
    assert sum(view.transfers("confidence")[0] > 0.5) == 11 and f.finding_2(view) is True


def test_finding_2_is_about_the_small_scale_and_counts_benchmarks_that_have_a_correlation() -> None:
    assert f.finding_2(transfer_view(every("confidence", 1, BENCHMARKS, -0.9))) is True
    constant = transfer_view()
    constant.values[1, 0, 1, :, BENCHMARKS.index("cb")] = 0.25
    assert f.finding_2(constant) is True and np.isnan(constant.transfer("confidence", "cb")[0])


def test_finding_3_compares_the_structure_within_stages() -> None:
    """Benchmarks pair up as (0, 1), (2, 3) within PT, and within SFT likewise or as (0, 2), (1, 3)."""
    slugs = MEMBERS["Science"]

    def view(sft: tuple[int, ...]) -> View:
        groups = ((0, 0, 1, 1), sft)
        return made({("confidence", 0, t, slugs[b]): ACROSS[groups[t][b]] for t in BOTH for b in range(4)})

    assert f.finding_3(view((2, 2, 3, 3))) is True  # the same pairs, though no benchmark keeps its pattern
    assert view((2, 2, 3, 3)).structure()[0] == pytest.approx(1.0)
    # Six pairs: (1 0 0 0 0 1) against (0 1 0 0 1 0).
    assert f.finding_3(view((0, 1, 0, 1))) is False and view((0, 1, 0, 1)).structure()[0] == pytest.approx(-0.5)
    assert f.finding_3(view((0, 0, 1, 1)).without(slugs[0]).without(slugs[1])) is None  # one pair


@pytest.mark.parametrize(
    "changes",
    [
        *({("accuracy", s, slug): 0.31} for s in BOTH for slug in ("wic", "multirc")),
        *({("accuracy", 0, slug): 0.01} for slug in ("winogrande", "mnli")),
    ],
)
def test_finding_4_needs_each_part(changes: dict[tuple[str, int, str], float]) -> None:
    assert f.finding_4(transfer_view(changes)) is False


@pytest.mark.parametrize("slug", ["wic", "multirc", "winogrande", "mnli"])
def test_finding_4_cannot_be_judged_without_a_benchmark_that_it_names(slug: str) -> None:
    assert f.finding_4(transfer_view().without(slug)) is None
    assert f.finding_4(transfer_view().without("hellaswag")) is True


def test_finding_7_needs_both_directions() -> None:
    assert f.finding_7(transfer_view(every("accuracy", 1, BENCHMARKS, 0.4))) is False
    assert f.finding_7(transfer_view(every("confidence", 1, BENCHMARKS, 0.7))) is False


@pytest.mark.parametrize(
    "changes",
    [
        *({("accuracy", s, slug): 0.49} for s in BOTH for slug in ("hellaswag", "piqa", "copa")),
        *(every("accuracy", s, MEMBERS["Science"], 0.49) for s in BOTH),
        *({("accuracy", 0, slug): 0.31, ("accuracy", 1, slug): 0.31} for slug in ("wic", "wsc", "multirc", "mnli")),
    ],
)
def test_implication_1_needs_each_part(changes: dict[tuple[str, int, str], float]) -> None:
    assert f.implication_1(transfer_view({("accuracy", 0, "wsc"): 0.2})) is True
    assert f.implication_1(transfer_view({("accuracy", 0, "wsc"): 0.2} | changes)) is False


def test_implication_2_needs_both_parts() -> None:
    assert f.implication_2(transfer_view(every("confidence", 0, BENCHMARKS, 0.49))) is False
    assert f.implication_2(transfer_view(every("confidence", 1, BENCHMARKS, 0.51))) is False


# ---------------------------------------------------------------------------------------------- coherence

COMPETING = {"Commonsense": (-0.3, -0.2), "Semantic": (-0.4, -0.1)}
SYNERGY = {"Commonsense": (-0.5, -0.2), "Science": (0.24, 0.5), "NLI": (0.1, 0.3), "Semantic": (-0.2, -0.4)}
SYNERGY_SFT = SYNERGY | {"Science": (-0.2, 0.2)}
DEGRADING = {"Commonsense": (0.73, 0.24), "Science": (0.85, 0.58), "NLI": (0.2, 0.6), "Semantic": (0.5, 0.4)}


def test_finding_5_holds_where_both_categories_compete() -> None:
    view = coherence_view("accuracy", COMPETING)
    assert view.coherence("accuracy", "cross", "Semantic") == pytest.approx([-0.4, -0.1])
    assert f.finding_5(view) is True
    assert f.finding_5(coherence_view("accuracy", {"Semantic": (-0.4, -0.1)})) is None


@pytest.mark.parametrize(("category", "scale"), itertools.product(COMPETING, BOTH))
def test_finding_5_needs_each_category_scale_and_protocol(category: str, scale: int) -> None:
    pair = list(COMPETING[category])
    pair[scale] = 0.01
    other = COMPETING | {category: (pair[0], pair[1])}
    assert f.finding_5(coherence_view("accuracy", other, COMPETING)) is False
    assert f.finding_5(coherence_view("accuracy", COMPETING, other)) is False
    across = coherence_view("accuracy", COMPETING, reversed_by_sft=(category, scale))
    assert (
        across.coherence("accuracy", "SFT", category)[scale]
        < 0
        < across.coherence("accuracy", "cross", category)[scale]
    )
    assert f.finding_5(across) is False


def sheep(winogrande: float, wsc: float) -> View:
    """Each category's other benchmarks move together; these two have the given r with them. Small scale, PT."""
    columns = {("accuracy", 0, 0, slug): ACROSS[0] for c in ("Commonsense", "Semantic") for slug in MEMBERS[c]}
    columns["accuracy", 0, 0, "winogrande"] = turned(winogrande, ACROSS[0], ACROSS[1])
    columns["accuracy", 0, 0, "wsc"] = turned(wsc, ACROSS[0], ACROSS[1])
    return made(columns)


def test_finding_6() -> None:
    view = sheep(-0.18, 0.1)
    assert view.partners("winogrande")[0] == pytest.approx(-0.18) and view.partners("wsc")[0] == pytest.approx(0.1)
    assert f.finding_6(view) is True
    assert f.finding_6(sheep(0.01, 0.1)) is False
    assert f.finding_6(sheep(-0.18, 0.16)) is False
    assert f.finding_6(view.without("winogrande")) is None and f.finding_6(view.without("wsc")) is None


def test_finding_8() -> None:
    """Three of four categories rise; with Science, and still with it, two are not most."""
    assert f.finding_8(coherence_view("accuracy", SYNERGY, SYNERGY_SFT)) is True
    assert f.finding_8(coherence_view("accuracy", SYNERGY | {"Science": (0.5, 0.4)}, SYNERGY_SFT)) is False
    still_three = SYNERGY | {"Science": (0.2, 0.19), "Semantic": (-0.4, -0.2)}
    assert f.finding_8(coherence_view("accuracy", SYNERGY, still_three)) is False
    two = SYNERGY_SFT | {"Commonsense": (-0.2, -0.3)}
    assert f.finding_8(coherence_view("accuracy", SYNERGY, two)) is False
    across = coherence_view("accuracy", SYNERGY, SYNERGY_SFT, reversed_by_sft=("Science", 1))
    assert across.coherence("accuracy", "cross", "Science") == pytest.approx([0.02, -0.35])
    assert f.finding_8(across) is False
    two_across = coherence_view("accuracy", SYNERGY, SYNERGY_SFT, reversed_by_sft=("Commonsense", 0))
    assert f.finding_8(two_across) is False
    assert f.finding_8(coherence_view("accuracy", {c: SYNERGY[c] for c in CATEGORIES[:3]})) is None


def test_finding_8_counts_within_pt_for_science_only() -> None:
    falling = {"Commonsense": (-0.2, -0.3), "NLI": (0.1, 0.0)}
    rising = SYNERGY_SFT | {"Commonsense": (-0.9, 0.9), "NLI": (-0.9, 0.9)}
    assert f.finding_8(coherence_view("accuracy", SYNERGY | falling, rising)) is True


@pytest.mark.parametrize("category", ["Commonsense", "Science"])
@pytest.mark.parametrize("pair", [(0.49, 0.2), (0.6, 0.61), (0.6, -0.01)])
def test_finding_9_needs_each_part(category: str, pair: tuple[float, float]) -> None:
    assert f.finding_9(coherence_view("confidence", DEGRADING)) is True
    assert f.finding_9(coherence_view("confidence", DEGRADING | {category: pair})) is False
    assert f.finding_9(coherence_view("accuracy", DEGRADING)) is None


def test_findings_9_and_10_take_the_mean_of_the_protocols() -> None:
    """PT 0.9, SFT 0.2, across 0.55: the mean is 0.55 at the small scale."""
    pt, sft = DEGRADING | {"Science": (0.9, 0.5)}, DEGRADING | {"Science": (0.2, 0.5)}
    view = coherence_view("confidence", pt, sft)
    assert view.mean_coherence("confidence", "Science") == pytest.approx([0.55, 0.5])
    assert f.finding_9(view) is True and f.finding_10(view) is True
    assert f.finding_9(coherence_view("confidence", pt, sft, reversed_by_sft=("Science", 0))) is False


@pytest.mark.parametrize("category", CATEGORIES)
def test_finding_10_needs_each_category(category: str) -> None:
    assert f.finding_10(coherence_view("confidence", DEGRADING)) is True
    small, large = DEGRADING[category]
    assert f.finding_10(coherence_view("confidence", DEGRADING | {category: (large, small)})) is False
    missing = {c: pair for c, pair in DEGRADING.items() if c != category}
    assert f.finding_10(coherence_view("confidence", missing)) is None


# ---------------------------------------------------------------------------------------------- alignment

ALIGNED: dict[str, Any] = {"Commonsense": -0.1, "Science": 0.8, "Semantic": -0.2}
STAGE_OF = {"PT": 0, "SFT": 1}


def alignment_but(category: str, scale: int, stage: str, r: float) -> View:
    changed = np.full((2, 2, 1), ALIGNED[category])
    changed[scale, STAGE_OF[stage]] = r
    return alignment_view(ALIGNED | {category: changed})


def test_findings_11_12_and_items_1_2_hold() -> None:
    view = alignment_view(ALIGNED)
    assert view.alignment("SFT", "Science") == pytest.approx([0.8, 0.8])
    for claim in (f.finding_11, f.finding_12, f.detail_1, f.detail_2):
        assert claim(view) is True
        for category in ("Science",) if claim is f.detail_1 else ("Semantic", "Commonsense"):
            two = view.without(MEMBERS[category][0])  # benchmarks of the category
            assert claim(two) is None


@pytest.mark.parametrize("scale", BOTH)
@pytest.mark.parametrize("stage", ["PT", "SFT"])
@pytest.mark.parametrize(("category", "r"), [("Science", 0.69), ("Commonsense", 0.31), ("Semantic", 0.31)])
def test_findings_11_12_and_items_1_2_need_each_part(scale: int, stage: str, category: str, r: float) -> None:
    view = alignment_but(category, scale, stage, r)
    assert f.finding_11(view) is (stage == "SFT")
    assert f.finding_12(view) is False
    assert f.detail_1(view) is (category != "Science")
    assert f.detail_2(view) is (category == "Science")


def test_item_1_is_about_every_mixture() -> None:
    one_low = np.full((2, 2, 9), 0.9)
    one_low[1, 0, 4] = 0.69
    view = alignment_view({"Science": one_low})
    assert view.alignment("PT", "Science")[1] > 0.85 and f.detail_1(view) is False
    assert f.detail_1(view.without(PAPER_MIXTURES[4])) is True and f.detail_1(view.without("V1P0")) is False


FILTER = {
    ("accuracy", "NLI"): (0.5, -0.44),  # in tenths
    ("accuracy", "Science"): (0.21, 0.25),
    ("alignment", "NLI"): (-0.8, 0.16),
    ("alignment", "Science"): (-0.14, -0.02),
}
"""FineWeb-Edu less RefinedWeb in Table 7, at (small, large)."""


def filter_view(effects: dict[tuple[str, str], tuple[float, float]]) -> View:
    alignment = {c: [[by_web(0.2, 0.2 + e)] for e in pair] for (q, c), pair in effects.items() if q == "alignment"}
    accuracy = {c: [by_web(0.0, e) for e in pair] for (q, c), pair in effects.items() if q == "accuracy"}
    return alignment_view(alignment, accuracy)


def test_finding_13_and_implication_3_hold() -> None:
    view = filter_view(FILTER)
    assert view.web_effect("accuracy", "NLI") == pytest.approx([0.05, -0.044])
    assert view.web_effect("alignment", "NLI") == pytest.approx([-0.8, 0.16])
    assert f.finding_13(view) is True and f.implication_3(view) is True
    assert f.finding_13(replace(view, designs=(None,) * 9)) is None
    for category in ("NLI", "Science"):
        alone = filter_view({key: pair for key, pair in FILTER.items() if key[1] == category})
        assert f.finding_13(alone) is None
        assert f.implication_3(alone) is (True if category == "NLI" else None)


@pytest.mark.parametrize("key", FILTER)
@pytest.mark.parametrize("scale", BOTH)
def test_finding_13_and_implication_3_need_each_direction(key: tuple[str, str], scale: int) -> None:
    """Of whatever size."""
    pair = list(FILTER[key])
    for size, holds in ((0.01, True), (-0.01, False)):
        pair[scale] = size * np.sign(FILTER[key][scale])
        view = filter_view(FILTER | {key: (pair[0], pair[1])})
        assert f.finding_13(view) is holds
        assert f.implication_3(view) is (holds or key[1] == "Science")


def test_implication_3_takes_the_reversal_in_either_direction() -> None:
    view = filter_view(FILTER | {(q, "NLI"): FILTER[q, "NLI"][::-1] for q in ("accuracy", "alignment")})
    assert f.finding_13(view) is False and f.implication_3(view) is True


def test_no_difference_is_no_reversal() -> None:
    """A difference of 1e-13 is the rounding of sums in another order."""
    assert f.implication_3(filter_view(FILTER | {("accuracy", "NLI"): (1e-12, -0.44)})) is False


def test_item_3_asks_whether_the_small_scale_forecasts_the_large_one() -> None:
    """Effects +0.2, +0.2 in every category, but +0.2, -0.1 where they depend on scale."""

    def view(accuracy_at_large: float, alignment_at_large: float) -> View:
        return alignment_view(
            {c: [[by_web(0.2, 0.4)], [by_web(0.2, 0.2 + alignment_at_large)]] for c in CATEGORIES},
            {c: [by_web(0.0, 0.2), by_web(0.0, accuracy_at_large)] for c in CATEGORIES},
        )

    assert f.detail_3(view(-0.1, -0.1)) is True
    assert f.detail_3(view(0.2, -0.1)) is False and f.detail_3(view(-0.1, 0.2)) is False
    assert f.detail_3(view(0.11, 0.11)) is False and f.detail_3(view(0.09, 0.09)) is True  # off by 0.09, by 0.11
    assert f.detail_3(view(-0.1, -0.1).without("mnli")) is None


def test_item_4() -> None:
    """Alignment moves along one wave of mixtures after PT, and after SFT along one that has the given r with it."""

    def view(small: float, large: float, category: str = "NLI") -> View:
        sft = 0.9 * turned([small, large], ACROSS[0], ACROSS[1])
        return alignment_view({category: np.stack([np.broadcast_to(0.9 * ACROSS[0], (2, 9)), sft], axis=1)})

    assert view(-0.4, 0.3).persistence("NLI") == pytest.approx([-0.4, 0.3])
    assert f.detail_4(view(-0.01, -0.01)) is True
    assert f.detail_4(view(-0.4, 0.01)) is False and f.detail_4(view(0.01, -0.4)) is False
    assert f.detail_4(view(-0.4, -0.4, "Science")) is None


TRADE = {
    ("accuracy", "Commonsense"): -0.4,
    ("accuracy", "NLI"): -0.1,
    ("alignment", "Commonsense"): 0.3,
    ("alignment", "NLI"): 0.6,
}
"""Highest less lowest code percent at the large scale; accuracy in tenths. At the small one the other way round."""


def code_view(effects: dict[tuple[str, str], float]) -> View:
    alignment = {c: [[by_code(0.0, -e)], [by_code(0.0, e)]] for (q, c), e in effects.items() if q == "alignment"}
    accuracy = {c: [by_code(0.0, -e), by_code(0.0, e)] for (q, c), e in effects.items() if q == "accuracy"}
    return alignment_view(alignment, accuracy)


def test_item_5() -> None:
    view = code_view(TRADE)
    assert view.code_effect("accuracy", "NLI") == pytest.approx([0.01, -0.01])
    assert view.code_effect("alignment", "NLI") == pytest.approx([-0.6, 0.6])
    assert f.detail_5(view) is True
    assert f.detail_5(code_view({key: e for key, e in TRADE.items() if key[1] == "NLI"})) is None
    for key, effect in TRADE.items():
        assert f.detail_5(code_view(TRADE | {key: 0.01 * np.sign(effect)})) is True
        assert f.detail_5(code_view(TRADE | {key: -0.01 * np.sign(effect)})) is False


def sources_view(gaps: dict[str, tuple[float, float]]) -> View:
    """DCLM less FineWeb-Edu in accuracy after SFT, (small, large) in points; after PT it is the other way round."""
    columns = {}
    for category, pair in gaps.items():
        for scale, stage in itertools.product(BOTH, BOTH):
            # `made` multiplies by 0.1.
            gap = 0.1 * pair[scale] * (1 if stage else -1)
            for slug in MEMBERS[category][:2]:
                columns["accuracy", scale, stage, slug] = by_web(3.0, 0.4, 0.4 + gap)
    return made(columns)


def test_dclm_matches_where_it_is_at_most_a_point_below_in_most_categories() -> None:
    table_11 = {"Commonsense": 0.7, "Science": -0.3, "NLI": -0.3, "Semantic": 0.2}
    view = sources_view({category: (-9.0, gap) for category, gap in table_11.items()})
    assert [view.source_gap(c)[1] for c in table_11] == pytest.approx(list(table_11.values()))
    assert [PublishedEvidence().source_gap(c)[1] for c in table_11] == pytest.approx(list(table_11.values()))
    assert f.web_sources(view) is True and f.web_sources(PublishedEvidence()) is True

    def answer(*large: float) -> bool | None:
        return f.web_sources(sources_view({c: (9.0, gap) for c, gap in zip(CATEGORIES, large, strict=False)}))

    assert answer(-0.9, -0.9, -0.9, -9.0) is True and answer(5.0, 5.0, 5.0, -9.0) is True
    assert answer(-0.9, -0.9, -1.1, -1.1) is False and answer(-1.1, 5.0, 5.0, -1.1) is False
    assert answer(5.0, 5.0, 5.0) is None  # nothing of Semantic
    assert f.web_sources(replace(view, designs=(None,) * 9)) is None


# ---------------------------------------------------------------------------------------------- thresholds


def test_claims_hold_just_beyond_their_thresholds() -> None:
    """The tests above have them fail just before."""
    just_high = {}
    for s in BOTH:
        for category in ("Science", "Commonsense"):
            just_high |= every("accuracy", s, MEMBERS[category], 0.51)
    assert f.finding_1(transfer_view(just_high)) is True
    just_high = {(metric, s, slug): r - 0.02 for (metric, s, slug), r in just_high.items()}
    for category in ("Science", "Commonsense"):
        just_high |= every("confidence", 0, MEMBERS[category], 0.51)
    assert f.finding_2(transfer_view(just_high | every("confidence", 0, MEMBERS["NLI"], 0.49))) is True
    just_weak = dict.fromkeys((("accuracy", s, slug) for s in BOTH for slug in ("wic", "multirc")), 0.29)
    just_negative = dict.fromkeys((("accuracy", 0, slug) for slug in ("winogrande", "mnli")), -0.01)
    assert f.finding_4(transfer_view(just_weak | just_negative)) is True
    assert f.finding_6(sheep(-0.01, 0.14)) is True
    slightly = dict.fromkeys(COMPETING, (-0.01, -0.01))
    assert f.finding_5(coherence_view("accuracy", slightly)) is True
    assert f.finding_9(coherence_view("confidence", dict.fromkeys(("Commonsense", "Science"), (0.51, 0.01)))) is True
    named = dict.fromkeys((("accuracy", s, slug) for s in BOTH for slug in ("hellaswag", "piqa", "copa")), 0.51)
    for s in BOTH:
        named |= every("accuracy", s, MEMBERS["Science"], 0.51)
    weak = ("wic", "wsc", "multirc", "mnli")
    named |= every("accuracy", 0, weak, 0.9) | every("accuracy", 1, weak, 0.29)
    assert f.implication_1(transfer_view(named)) is True
    near = every("confidence", 0, BENCHMARKS, 0.51) | every("confidence", 1, BENCHMARKS, 0.49)
    assert f.implication_2(transfer_view(near)) is True
    near_aligned = alignment_view({"Commonsense": 0.29, "Science": 0.71, "Semantic": 0.29})
    for claim in (f.finding_11, f.finding_12, f.detail_1, f.detail_2):
        assert claim(near_aligned) is True


@pytest.mark.parametrize(("r", "answer"), [(0.51, True), (0.49, False)])
def test_finding_3_has_its_threshold_at_a_half(r: float, answer: bool) -> None:
    class Fixed(View):
        def structure(self) -> np.ndarray:
            return np.array([r, -r])

    view = transfer_view()
    assert f.finding_3(Fixed(view.values, view.mixtures, view.benchmarks, view.designs)) is answer


# ---------------------------------------------------------------------------------------------- the paper, the edges


def test_what_the_papers_own_tables_say() -> None:
    answers = {claim.name: claim.judge(PublishedEvidence()) for claim in f.CLAIMS}
    assert {name for name, answer in answers.items() if answer is False} == {"Implication 1", "C.3.7 item 1"}
    unknown = {"Finding 3", "Finding 5", "Finding 6", "Finding 8", "Finding 9", "Finding 10", "C.3.7 item 5"}
    assert {name for name, answer in answers.items() if answer is None} == unknown
    assert PublishedEvidence().lowest_alignment("PT", "Science") == pytest.approx([0.68, 0.80])


def test_every_claim_is_listed_once_with_its_predicate() -> None:
    kinds = [claim.name.split()[0] for claim in f.CLAIMS]
    assert [kinds.count(kind) for kind in ("Finding", "Implication", "C.3.7", "C.4.3")] == [13, 3, 5, 1]
    predicates = [claim.predicate for claim in f.CLAIMS]
    assert len(set(predicates)) == 22 and all(p.endswith(".") and len(p) > 40 for p in predicates)


@pytest.mark.parametrize("mixtures", [0, 1, 2])
def test_two_mixtures_are_too_few_for_anything(mixtures: int) -> None:
    random = np.random.default_rng(0).random((2, 2, 2, 9, 20))
    whole = View(random, PAPER_MIXTURES, BENCHMARKS, transfer_view().designs)
    assert all(claim.judge(whole) is not None for claim in f.CLAIMS)
    for mixture in (PAPER_MIXTURES[i] for i in (8, 7, 6, 5, 4, 2, 1, 3, 0)[: 9 - mixtures]):
        whole = whole.without(mixture)
    assert all(claim.judge(whole) is None for claim in f.CLAIMS)


def test_without_benchmarks_or_values_nothing_is_judged() -> None:
    nothing = View(np.full((2, 2, 2, 9, 0), np.nan), PAPER_MIXTURES, (), transfer_view().designs)
    assert all(claim.judge(nothing) is None for claim in f.CLAIMS)
    unmeasured = replace(transfer_view(), values=np.full((2, 2, 2, 9, 20), np.nan))
    assert all(claim.judge(unmeasured) is None for claim in f.CLAIMS)
