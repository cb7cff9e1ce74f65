"""Specifications counted by hand, and shares, flips and answers of studies in which they are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_views import ACROSS, MEMBERS, made, panel_of, transfer_view, turned

from analysis.claims.evidence import SCALES
from analysis.claims.findings import CLAIMS
from analysis.claims.multiverse import (
    UNKNOWN,
    Outcome,
    Specification,
    multiverse,
    multiverse_table,
    specification_curve,
    views,
)
from analysis.panel.panel import STAGES, Panel
from analysis.protocols.matrices import METRICS
from analysis.rendering.table import Table
from analysis.rendering.writers import as_csv, as_text, format_verdict
from configs.load import BENCHMARKS, PAPER_MIXTURES

REFERENCE = Specification("sum", "confidence", "")


def outcome(panel: Panel, name: str) -> Outcome:
    return next(found for found in multiverse(panel) if found.claim.name == name)


@pytest.fixture
def measured(demo_panel: Panel) -> Panel:
    """Two scales, nine mixtures, twenty benchmarks, from score files."""
    return demo_panel


def test_specifications_by_hand(measured: Panel) -> None:
    """5 normalisations x 2 readings x (nothing, 20 benchmarks, 9 mixtures)."""
    found = [specification for specification, _ in views(measured)]
    assert len(found) == 5 * 2 * 30 == len(set(found)) and found[0] == REFERENCE
    assert found[1] == Specification("sum", "confidence", "hellaswag")
    assert {s.without for s in found} == {"", *BENCHMARKS, *PAPER_MIXTURES}
    assert {s.normalisation for s in found} == {"sum", "char", "token", "byte", "pmi"}


def test_views_are_the_matrices_of_the_panel(measured: Panel) -> None:
    every = dict(views(measured))
    view = every[Specification("pmi", "confidence_joint", "V2P1")]
    kept = [m for m in range(9) if PAPER_MIXTURES[m] != "V2P1"]
    for s, scale in enumerate(measured.scales):
        for t, stage in enumerate(STAGES):
            for i, matrix in enumerate(("accuracy", "confidence_joint")):
                whole = measured.matrix(scale, stage, matrix, "pmi" if matrix == "accuracy" else "sum")
                np.testing.assert_array_equal(view.values[i, s, t], whole[kept])
    assert np.isnan(view.values[0, ..., BENCHMARKS.index("winogrande")]).all()  # has no unconditional scores
    assert view.mixtures == tuple(PAPER_MIXTURES[m] for m in kept)
    assert [design.web for design in view.designs if design] == ["RefinedWeb"] * 3 + ["FineWeb-Edu"] * 2 + ["DCLM"] * 3
    answers = {claim.name: claim.judge(view) for claim in CLAIMS}
    assert answers["Finding 4"] is None and answers["Finding 6"] is None  # both name WinoGrande
    assert sum(answer is None for answer in answers.values()) == 2


def test_specifications_share_what_does_not_depend_on_their_choice(measured: Panel) -> None:
    """Normalisation changes accuracy alone, the reading changes confidence alone; what is shared is as if made anew."""
    every = dict(views(measured))
    for without in ("", "piqa", "V2P1"):
        first = every[Specification("sum", "confidence", without)]
        other = every[Specification("char", "confidence", without)]
        joint = every[Specification("sum", "confidence_joint", without)]
        assert other.alignments is first.alignments and joint.alignments is not first.alignments
        anew = replace(other, computed={})
        for shared, own in ((other.pairs, anew.pairs), (other.alignments, anew.alignments)):
            np.testing.assert_array_equal(shared, own)


def test_what_is_left_out_is_really_left_out() -> None:
    """Nonsense in a benchmark's or mixture's cells changes nothing where it is left out, and something elsewhere."""
    random = np.random.default_rng(0)
    clean = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20)))
    for name, place in (("sciq", (..., BENCHMARKS.index("sciq"))), ("V3P0", (..., 6, slice(None)))):
        spoilt = replace(clean, values=clean.values.copy())
        spoilt.values[place] = 1e3 * random.random(spoilt.values[place].shape)
        before, after = (dict(views(panel_of(view))) for view in (clean, spoilt))
        left_out = Specification(without=name)
        np.testing.assert_array_equal(before[left_out].values, after[left_out].values)
        assert name not in (*before[left_out].benchmarks, *before[left_out].mixtures)
        for claim in CLAIMS:
            assert claim.judge(before[left_out]) == claim.judge(after[left_out])
        assert (before[REFERENCE].mean_transfer("accuracy") != after[REFERENCE].mean_transfer("accuracy")).all()


def test_the_benchmark_that_carries_a_claim_is_named() -> None:
    """Without HellaSwag the mean of the others is below 0.5."""
    rs = dict.fromkeys((("confidence", 0, slug) for slug in BENCHMARKS), 0.49)
    rs |= {("confidence", 0, "hellaswag"): 0.99, ("confidence", 0, "piqa"): 0.4}
    panel = panel_of(transfer_view(rs))  # mean (18 x 0.49 + 0.99 + 0.4) / 20 = 0.5105
    found = outcome(panel, "Implication 2")
    assert found.reference is True and found.published is True
    assert [name for name in found.flipped_by if name in BENCHMARKS] == ["hellaswag"]  # without it 0.485
    assert found.judged == 30 and found.share == pytest.approx(1 - len(found.flipped_by) / 30)
    assert found.by_normalisation == {"sum": found.share} and found.by_reading == {"confidence": found.share}


def test_the_mixture_that_carries_a_claim_is_named() -> None:
    """WiC has r < 0.3 only because of the last mixture, which is best after PT and worst after SFT."""
    rs = dict.fromkeys((("accuracy", s, slug) for s in (0, 1) for slug in ("multirc", "winogrande", "mnli")), -0.6)
    view = transfer_view(rs)
    wic = BENCHMARKS.index("wic")
    view.values[0, :, :, :, wic] = np.linspace(0.5, 0.6, 9)
    view.values[0, :, 1, 8, wic] = 0.1
    found = outcome(panel_of(view), "Finding 4")
    assert found.reference is True and found.flipped_by == ("V3P2",)
    # What Finding 4 names cannot be left out and still be judged.
    assert found.judged == 30 - 4 and found.share == pytest.approx(25 / 26)


def test_a_flip_is_a_change_of_the_reference_answer_in_either_direction() -> None:
    rs = {("accuracy", 0, "wsc"): 0.2} | {("accuracy", 0, "openbookqa"): -0.9}
    found = outcome(panel_of(transfer_view(rs)), "Implication 1")
    assert found.reference is False and found.flipped_by == ("openbookqa",)
    assert found.share == pytest.approx(1 / found.judged) and found.judged == 30 - 7


def test_shares_by_choice() -> None:
    """By characters, and by the joint probability, the scales change places: Finding 7 holds in one of four."""
    view = transfer_view()
    panel = panel_of(view)
    values = dict(panel.values)
    for s, scale in enumerate(panel.scales):
        for t, stage in enumerate(STAGES):
            values[scale, stage, "accuracy", "char"] = view.values[0, 1 - s, t][None]
            values[scale, stage, "confidence_joint", "sum"] = view.values[1, 1 - s, t][None]
    curve = specification_curve(replace(panel, values=values))
    assert curve.answers.shape == (4 * 30, 22) and curve.answers.dtype == np.int8
    (found,) = (o for o in curve.outcomes if o.claim.name == "Finding 7")
    assert found.judged == 120 and found.share == pytest.approx(0.25) and found.reference is True
    assert found.by_normalisation == {"sum": 0.5, "char": 0.0}
    assert found.by_reading == {"confidence": 0.5, "confidence_joint": 0.0} and found.flipped_by == ()
    column = [claim.name for claim in CLAIMS].index("Finding 7")
    holds = [s for s, a in zip(curve.specifications, curve.answers[:, column], strict=True) if a == 1]
    assert {(s.normalisation, s.reading) for s in holds} == {("sum", "confidence")} and len(holds) == 30


def test_confidence_is_aligned_with_the_answers_that_it_is_of() -> None:
    """By characters other answers are chosen, of which no confidence is known."""
    view = replace(transfer_view(), values=np.random.default_rng(2).random((2, 2, 2, 9, 20)))
    panel, values = panel_of(view), {}
    for s, scale in enumerate(panel.scales):
        for t, stage in enumerate(STAGES):
            values[scale, stage, "accuracy", "char"] = 1 - view.values[0, s, t][None]
    every = dict(views(replace(panel, values=panel.values | values)))
    for without in ("", "sciq", "V2P1"):
        plain, char = (every[Specification(name, "confidence", without)] for name in ("sum", "char"))
        np.testing.assert_array_equal(plain.alignments, char.alignments)
        assert not np.allclose(plain.category_accuracies("PT"), char.category_accuracies("PT"))
    np.testing.assert_allclose(every[REFERENCE].alignments, view.alignments)


def test_answers_agree_with_the_claims_themselves(measured: Panel) -> None:
    curve = specification_curve(measured)
    assert curve.answers.shape == (300, 22) and set(np.unique(curve.answers)) <= {UNKNOWN, 0, 1}
    for place, (specification, view) in enumerate(views(measured)):
        if place % 37 == 0:
            assert curve.specifications[place] == specification
            for claim, answer in zip(CLAIMS, curve.answers[place], strict=True):
                assert claim.judge(view) == {UNKNOWN: None, 0: False, 1: True}[int(answer)]


@pytest.mark.parametrize(
    ("scale", "judged"), [("240m", {"Finding 2", "Finding 3", "Finding 6"}), ("1b", {"C.3.7 item 5", "C.4.3"})]
)
def test_one_scale_judges_only_what_is_about_it(scale: str, judged: set[str]) -> None:
    random = np.random.default_rng(1)
    view = replace(transfer_view(), values=random.random((2, 2, 2, 9, 20)))
    found = multiverse(panel_of(view, scales=(scale,)))
    assert {o.claim.name for o in found if o.judged} == judged
    assert {o.claim.name for o in found if o.reference is not None} == judged


def test_one_mixture_judges_nothing() -> None:
    view = transfer_view()
    for mixture in PAPER_MIXTURES[1:]:
        view = view.without(mixture)
    assert all(o.judged == 0 and o.share is None and o.reference is None for o in multiverse(panel_of(view)))


def test_three_mixtures_cannot_lose_one() -> None:
    columns = {
        (metric, s, t, slug): turned(0.3 * (b + 1) / (t + 1), ACROSS[0], ACROSS[b + 1])
        for metric in METRICS
        for s in range(len(SCALES))
        for t in range(len(STAGES))
        for b, slug in enumerate(MEMBERS["NLI"][:3])
    }
    view = made(columns)
    for mixture in PAPER_MIXTURES[3:]:
        view = view.without(mixture)
    found = outcome(panel_of(view), "Finding 7")
    assert found.judged == 1 + 3  # nothing or one of three benchmarks left out


def test_an_empty_study_has_the_reference_alone() -> None:
    panel = replace(panel_of(transfer_view()), values={})
    assert next(views(panel))[0] == REFERENCE and len(list(views(panel))) == 30
    assert all(o.judged == 0 for o in multiverse(panel))


def test_table(measured: Panel, demo_tables: dict[str, Table]) -> None:
    table = demo_tables["multiverse"]
    assert table.keys == ("claim", "predicate") and len(table.rows) == 22
    for row, found in zip(table.rows, multiverse(measured), strict=True):
        assert row.keys == (found.claim.name, found.claim.predicate) and len(row.extra) == len(table.extra)
        assert row.estimate.value == found.share and row.estimate.n == found.judged
        assert row.estimate.points == "specifications"
        assert table.texts(row)[0] == {None: "not judged", True: "yes", False: "no"}[found.reference]
    by_name = {row.keys[0]: row for row in table.rows}
    assert by_name["Finding 4"].estimate.n == 4 * 2 * (30 - 4)  # not by PMI, not without the four that it names
    assert "pmi not judged" in table.texts(by_name["Finding 4"])[3]
    assert by_name["Finding 13"].extra[1] is True and table.texts(by_name["Finding 3"])[1] == "not judged"
    assert len({row.scores for row in table.rows}) == 1  # a claim that mentions PT rests on all score files
    assert "Finding 13" in as_text(table) and as_csv(table).count("specifications") == 22


def test_table_names_benchmarks_as_the_paper_does() -> None:
    rs = {("accuracy", 0, "wsc"): 0.2} | {("accuracy", 0, "openbookqa"): -0.9}
    rows = {row.keys[0]: row for row in multiverse_table(panel_of(transfer_view(rs))).rows}
    assert rows["Implication 1"].extra[0] is False and rows["Implication 1"].extra[2] == ("OpenBookQA",)
    assert rows["Finding 5"].estimate.value is not None and rows["Finding 11"].estimate.value is None
    assert format_verdict(rows["Finding 11"]) == "missing: cannot be judged in any specification"
