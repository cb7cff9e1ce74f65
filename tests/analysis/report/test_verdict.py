"""The rule of trust, branch by branch; and on a study against numbers that are computed here anew."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from panels import panel_of

from analysis.panel.panel import Panel
from analysis.protocols.decisions import Protocol, protocols
from analysis.protocols.replication import ONE_SEED
from analysis.protocols.usable import above_chance
from analysis.rendering.table import Table
from analysis.report.verdict import Level, Price, Signal, choices, judge, verdicts
from analysis.stats.estimates import CONSTANT, Estimate, absent
from analysis.tables.catalogue import build_tables
from analysis.tables.decisions import decision_table
from analysis.tables.replication import replication_table
from analysis.tables.transfer import transfer_table
from configs.layout import PROJECT_ROOT
from configs.load import BENCHMARKS, PAPER_MIXTURES

SURE = Signal(
    agreement=Estimate(0.9, n=9, low=0.75, high=1.0, p=0.001),
    clearance=(12.0, 15.0),
    reliability=(0.8, 0.9),
    replication=Estimate(0.85, n=9, p=0.0005),
    q=0.01,
    r=Estimate(0.92, n=9, low=0.66, high=0.98, p=0.001),
)
NAN = math.nan
TABLES = ("table5", "decisions", "replication")
OTHER_SEEDS = "other seeds: r +0.85, q 0.01"


def test_nothing_against_it_is_trust() -> None:
    verdict = judge(SURE)
    assert verdict.level is Level.TRUST and verdict.reasons == ()
    assert verdict.numbers == (OTHER_SEEDS, "r +0.92 [+0.66, +0.98]", "90 % of pairs [75, 100]")
    assert verdict.brief == verdict.numbers[0]


@pytest.mark.parametrize(
    ("change", "level", "what", "detail"),
    [
        ({"clearance": (3.0, 15.0)}, Level.NO, "at chance", "early"),
        ({"clearance": (2.0, -1.0)}, Level.NO, "at chance", "early, late"),
        ({"reliability": (0.8, 0.199)}, Level.NO, "reliability", "0.20, late"),
        ({"reliability": (-0.4, 0.1)}, Level.NO, "reliability", "below 0, early"),
        ({"r": Estimate(-0.9, low=-0.98, high=-0.5)}, Level.NO, "reversed", "r −0.90 [−0.98, −0.50]"),
        ({"agreement": Estimate(0.2, low=0.1, high=0.4)}, Level.NO, "reversed", "20 % of pairs [10, 40]"),
        ({"q": 0.051}, Level.WEAK, "not replicated", "other seeds: r +0.85, q 0.051"),
        ({"q": None, "replication": absent(ONE_SEED)}, Level.WEAK, "not replicated", ONE_SEED),
        ({"clearance": (NAN, 15.0)}, Level.WEAK, "chance not known", "early"),
        ({"unmeasured": ("seeds were not repeated",)}, Level.WEAK, "provisional", "seeds were not repeated"),
        ({"r": absent("only 2 mixtures")}, Level.UNKNOWN, "no number", "only 2 mixtures"),
        ({"r": absent(CONSTANT)}, Level.NO, "no variation", "all mixtures score alike"),
        ({"r": absent("only 2 mixtures"), "clearance": (1.0, NAN)}, Level.NO, "at chance", "early"),
        ({"r": absent("only 2 mixtures"), "reliability": (0.1, 0.9)}, Level.NO, "reliability", "0.10, early"),
    ],
)
def test_each_objection_alone(change: dict[str, object], level: Level, what: str, detail: str) -> None:
    verdict = judge(replace(SURE, **change))  # type: ignore[arg-type]
    assert verdict.level is level
    assert [(reason.what, reason.detail) for reason in verdict.reasons] == [(what, detail)]


NO_EVIDENCE = Estimate(0.6, low=-0.1, high=0.9)
NO_ENDS = Estimate(0.9)


@pytest.mark.parametrize(
    ("change", "levels", "what"),
    [
        ({"r": NO_EVIDENCE}, (Level.TRUST, Level.NO), "includes 0"),
        ({"r": NO_ENDS}, (Level.TRUST, Level.WEAK), "no interval"),
        ({"agreement": Estimate(0.7, low=0.5, high=0.9)}, (Level.TRUST, Level.WEAK), "not replicated"),
    ],
)
def test_the_interval_of_the_shown_runs_counts_where_nothing_replicates(
    change: dict[str, object], levels: tuple[Level, Level], what: str
) -> None:
    """One run may hide a correlation that three seeds of all mixtures show."""
    replicated, alone = (judge(replace(SURE, q=q, **change)) for q in (0.01, 0.2))  # type: ignore[arg-type]
    assert (replicated.level, alone.level) == levels
    assert alone.reasons[0].what == what


@pytest.mark.parametrize(
    ("agreement", "q", "level"),
    [
        (Estimate(0.9, low=0.75, high=1.0), 0.01, Level.TRUST),
        (Estimate(0.9, low=0.75, high=1.0), 0.2, Level.WEAK),
        (Estimate(0.6, low=0.4, high=0.8), 0.01, Level.TRUST),
        (Estimate(0.6, low=0.4, high=0.8), 0.2, Level.NO),
        (Estimate(0.2, low=0.1, high=0.4), 0.01, Level.NO),
        (absent("only 2 mixtures"), None, Level.UNKNOWN),
    ],
)
def test_between_scales_the_share_of_pairs_stands_for_r(agreement: Estimate, q: float | None, level: Level) -> None:
    assert judge(replace(SURE, r=None, agreement=agreement, q=q)).level is level


def test_a_refusal_outweighs_every_doubt() -> None:
    verdict = judge(replace(SURE, q=0.5, clearance=(0.0, 9.0), unmeasured=("seeds were not repeated",)))
    assert verdict.level is Level.NO and [reason.what for reason in verdict.reasons] == [
        "at chance",
        "not replicated",
        "provisional",
    ]


# ---------------------------------------------------------------------------------------------- of a study


@pytest.fixture
def panel(demo_panel: Panel) -> Panel:
    return demo_panel


@pytest.fixture
def tables(demo_tables: dict[str, Table]) -> dict[str, Table]:
    return demo_tables


def test_above_chance_is_three_standard_errors_of_one_checkpoint(panel: Panel) -> None:
    for scale in panel.scales:
        found = above_chance(panel, scale, "SFT")
        for b, slug in enumerate(panel.benchmarks):
            right = panel.answers_over_seeds(scale, "SFT", slug)  # [seeds, mixtures, examples]
            seeds = [right[:, m][np.isfinite(right[:, m]).all(axis=1)] for m in range(len(panel.mixtures))]
            accuracy = np.mean([mine.mean() for mine in seeds])
            error = np.mean([np.mean(mine.std(axis=1, ddof=1)) / math.sqrt(right.shape[2]) for mine in seeds])
            chance = panel.matrix(scale, "SFT", "chance", "")[0, b]
            assert (slug in found) == (accuracy - chance > 3 * error)


def test_verdicts_follow_the_tables(panel: Panel, tables: dict[str, Table]) -> None:
    found = verdicts(panel, tables["table5"], tables["decisions"], tables.get("replication"))
    assert set(found) == {(slug, protocol) for slug in panel.benchmarks for protocol in protocols(panel)}
    refused = {
        (row.keys[0], row.keys[3])
        for row in tables["table5"].rows
        if row.no_claim.startswith("reliability") and row.keys[1] == "accuracy"
    }
    for (slug, protocol), verdict in found.items():
        what = {reason.what for reason in verdict.reasons}
        chance = any(slug not in above_chance(panel, *end) for end in (protocol.early, protocol.late))
        assert ("at chance" in what) == chance
        few = {reason.detail for reason in verdict.reasons if reason.what == "provisional"}
        assert few == {"seed noise from 1 of 9 mixtures, 2 degrees of freedom"}  # three seeds of V1P0
        if protocol.early[0] == protocol.late[0]:
            assert ("reliability" in what) == ((protocol.early[0], panel.displays[slug]) in refused)
            pt, sft = (panel.matrix(*end)[:, panel.benchmarks.index(slug)] for end in (protocol.early, protocol.late))
            assert verdict.numbers[0].startswith(f"r {np.corrcoef(pt, sft)[0, 1]:+.2f}".replace("-", "−"))


def test_without_answers_and_seeds_nothing_is_trusted(panel: Panel) -> None:
    alone = replace(panel, items=None, seeds=(0,), values={key: cube[:1] for key, cube in panel.values.items()})
    alone = replace(alone, stderrs={key: cube[:1] for key, cube in panel.stderrs.items()})
    table5, decisions, replication = build_tables(alone, TABLES)
    assert replication.rows == ()
    for verdict in verdicts(alone, table5, decisions, None).values():
        details = {reason.detail for reason in verdict.reasons if reason.what == "provisional"}
        untested = {reason.detail for reason in verdict.reasons if reason.what == "not replicated"}
        assert verdict.level is not Level.TRUST and untested <= {"not tested between different seeds"}
        assert details == {"seeds were not repeated", "single answers are not here"}


def test_one_mixture_s_seeds_do_not_speak_for_nine() -> None:
    """The same scores with the seeds of one mixture and with those of all (docs/mini_seeds.csv)."""
    measured = pd.read_csv(PROJECT_ROOT / "docs/mini_seeds.csv")
    provisional, reliability = {}, {}
    for seeded in (PAPER_MIXTURES[:1], PAPER_MIXTURES):
        mine = measured[(measured.seed == 0) | measured.mixture.isin(seeded)]
        cubes = {
            (str(scale), str(stage), "accuracy", "sum"): np.array(
                [
                    [[rows.get((seed, mixture, slug), NAN) for slug in BENCHMARKS] for mixture in PAPER_MIXTURES]
                    for seed in range(3)
                ]
            )
            for (scale, stage), part in mine.groupby(["scale", "stage"])
            for rows in [part.set_index(["seed", "mixture", "benchmark"]).accuracy.to_dict()]
        }
        first = {(scale, stage, metric): cube[0] for (scale, stage, metric, _), cube in cubes.items()}
        panel = panel_of(first, BENCHMARKS, scales=("mini_s", "mini_m"), seeds=(0, 1, 2), values=cubes)
        table5 = transfer_table(panel)
        verdict = verdicts(panel, table5, decision_table(panel), replication_table(panel))[
            "copa", Protocol(("mini_m", "PT"), ("mini_m", "SFT"))
        ]
        provisional[len(seeded)] = {r.detail for r in verdict.reasons if r.what == "provisional"}
        (row,) = (row for row in table5.rows if row.keys[0] == "mini_m" and row.keys[3] == "COPA")
        texts = table5.texts(row)
        reliability[len(seeded)], other_seeds = texts[0], texts[3]
        freedom = 2 * len(seeded)
        assert f"seed noise from {len(seeded)} of 9 mixtures, {freedom} degrees of freedom" in table5.notes
        assert bool(other_seeds) == (len(seeded) == 9)
    assert reliability == {1: "≤ 0.70", 9: "≤ 0.02"}
    answers = "single answers are not here"
    assert provisional == {1: {"seed noise from 1 of 9 mixtures, 2 degrees of freedom", answers}, 9: {answers}}


def test_choices_are_those_of_the_means(panel: Panel, tables: dict[str, Table]) -> None:
    found = choices(panel, tables["decisions"])
    assert [choice.early for choice in found] == ["mini_s PT"] * 5 + ["mini_m PT"] * 5
    late = panel.matrix("mini_m", "SFT")
    for choice in found:
        category = choice.score.removeprefix("mean of ")
        columns = panel.members(category) if category in panel.categories else list(range(len(panel.benchmarks)))
        early, paid = (
            panel.matrix(choice.early.split()[0], "PT")[:, columns].mean(axis=1),
            late[:, columns].mean(axis=1),
        )
        first = [m for m, x in zip(panel.mixtures, early, strict=True) if x > early.max() - 1e-9]
        best = [m for m, x in zip(panel.mixtures, paid, strict=True) if x > paid.max() - 1e-9]
        assert choice.first == tuple(first) and choice.best == tuple(best)
        cost = paid.max() - np.mean([paid[panel.mixtures.index(m)] for m in first])
        assert choice.right == (set(first) <= set(best))
        ends = [(choice.early.split()[0], "PT"), ("mini_m", "SFT")]
        mute = [
            " ".join(end) for end in ends if not any(panel.benchmarks[b] in above_chance(panel, *end) for b in columns)
        ]
        if mute:
            assert choice.price is Price.NOTHING and choice.regret is choice.regret_interval is None
            assert choice.no_price == f"all at chance or constant ({', '.join(mute)})"
        else:
            assert choice.regret == pytest.approx(cost) and choice.regret_interval and not choice.no_price
    assert {choice.regret is None for choice in found} == {True, False}


def test_a_stage_or_a_benchmark_that_was_not_scored_has_no_decision(panel: Panel) -> None:
    """A study may be read before it has ended: answers of the other checkpoints are there."""
    late = ("mini_m", "SFT")
    for columns in (slice(None), [2]):
        values = {key: cube.copy() for key, cube in panel.values.items()}
        for key, cube in values.items():
            if key[:2] == late:
                cube[:, :, columns] = NAN
        slugs = np.array(panel.benchmarks)[columns]
        assert panel.items is not None
        answers = {
            key: np.full_like(table, NAN) if key[:2] == late and key[2] in slugs else table
            for key, table in panel.items.values.items()
        }
        rows = decision_table(replace(panel, values=values, items=replace(panel.items, values=answers))).rows
        gone = [row for row in rows if row.keys[1] == "mini_m SFT" and row.keys[2] in map(panel.displays.get, slugs)]
        assert gone and all(row.estimate.value is None for row in gone)
