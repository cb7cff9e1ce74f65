"""Equations 1 to 8 on small panels, against scipy and double loops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.panel.load import load_panel
from analysis.panel.panel import Design, Panel
from analysis.paper.numbers import category_of, frame, numbers
from analysis.protocols import correlations as co
from analysis.rendering.table import RowVerdict
from analysis.rendering.writers import format_verdict
from analysis.stats.resampling import DRAWS
from analysis.tables.catalogue import build_tables
from analysis.tables.transfer import PROVISIONAL, transfer_table
from configs.errors import ArtifactError, ConfigError
from configs.layout import StudyFolder
from configs.load import BENCHMARKS

SCIENCE = ("arc_challenge", "arc_easy", "sciq", "openbookqa")
MIXTURES = tuple(f"V{v}P{p}" for v in (1, 2, 3) for p in (0, 1, 2))


def panel_of(cube: dict[tuple[str, str], np.ndarray], benchmarks: tuple[str, ...] = SCIENCE, **change: Any) -> Panel:
    """A one-scale panel; cube[stage, metric] is [mixtures, benchmarks] or [seeds, mixtures, benchmarks]."""
    values = {}
    for (stage, metric), matrix in cube.items():
        values["240m", stage, metric, "" if metric in ("uniform", "chance") else "sum"] = np.atleast_3d(
            matrix if matrix.ndim == 3 else matrix[None]
        )
    first = next(iter(values.values()))
    fields: dict[str, Any] = {
        "study": StudyFolder(Path("runs"), "demo"),
        "config": None,
        "synthetic": True,
        "scales": ("240m",),
        "mixtures": MIXTURES[: first.shape[1]],
        "benchmarks": benchmarks,
        "recipe": "mini",
        "other_recipes": (),
        "other_variants": (),
        "seeds": tuple(range(first.shape[0])),
        "average_seeds": False,
        "design": {m: Design(f"W{m[1]}", 25.0 + 10 * int(m[3])) for m in MIXTURES[: first.shape[1]]},
        "values": values,
        "stderrs": {},
        "examples": 0,
    }
    return Panel(**(fields | change))


@pytest.fixture(scope="module")
def random_panel() -> Panel:
    rng = np.random.default_rng(5)
    return panel_of({(s, m): rng.random((9, 4)) for s in ("PT", "SFT") for m in ("accuracy", "confidence")})


def test_equations_1_and_2_against_scipy(random_panel: Panel) -> None:
    for metric in ("accuracy", "confidence"):
        pt, sft = (random_panel.matrix("240m", s, metric) for s in ("PT", "SFT"))
        reference = [stats.pearsonr(pt[:, b], sft[:, b]).statistic for b in range(4)]
        assert [a.estimate.value for a in co.cross_stage(random_panel, "240m", metric)] == pytest.approx(reference)
        mean = co.mean_cross_stage(random_panel, "240m", metric)
        assert mean.value == pytest.approx(np.mean(reference)) and mean.missing == 0
        assert mean.low is not None and mean.high is not None and mean.low < np.mean(reference) < mean.high


@pytest.mark.parametrize(
    ("protocol", "first", "second"), [("PT", "PT", "PT"), ("SFT", "SFT", "SFT"), ("cross", "PT", "SFT")]
)
def test_equations_3_to_6_both_readings_against_a_double_loop(
    random_panel: Panel, protocol: str, first: str, second: str
) -> None:
    x, y = (random_panel.matrix("240m", s) for s in (first, second))
    pairs = {(i, j): stats.pearsonr(x[:, i], y[:, j]).statistic for i, j in itertools.permutations(range(4), 2)}
    ordered = co.coherence(random_panel, "240m", "Science", protocol, "accuracy", "ordered")
    upper = co.coherence(random_panel, "240m", "Science", protocol, "accuracy", "i<j")
    assert ordered.value == pytest.approx(np.mean(list(pairs.values())))
    assert upper.value == pytest.approx(np.mean([r for (i, j), r in pairs.items() if i < j]))
    if protocol == "cross":
        assert abs((ordered.value or 0) - (upper.value or 0)) > 1e-3  # asymmetric: the readings differ
    else:
        assert ordered.value == pytest.approx(upper.value)


def test_coherence_null_is_centred_and_a_strong_one_is_found() -> None:
    common = np.random.default_rng(2).random((9, 1))
    strong = panel_of({(s, "accuracy"): np.repeat(common, 4, axis=1) for s in ("PT", "SFT")})
    found = co.coherence(strong, "240m", "Science", "PT", "accuracy", "ordered")
    assert found.value == pytest.approx(1) and found.p == found.smallest_p == 1 / (DRAWS + 1)


def test_coherence_leaves_out_constant_benchmarks_and_incomplete_mixtures() -> None:
    rng = np.random.default_rng(7)
    pt, sft = rng.random((9, 4)), rng.random((9, 4))
    pt[:, 1] = 0.25
    sft[4, 2] = np.nan
    found = co.coherence(
        panel_of({("PT", "accuracy"): pt, ("SFT", "accuracy"): sft}), "240m", "Science", "cross", "accuracy", "ordered"
    )
    rows, keep = [0, 1, 2, 3, 5, 6, 7, 8], [0, 2, 3]
    reference = np.mean(
        [stats.pearsonr(pt[rows, i], sft[rows, j]).statistic for i, j in itertools.permutations(keep, 2)]
    )
    assert found.value == pytest.approx(reference) and found.n == 8 and found.missing == 1


def test_equation_8_averaged_pooled_and_adjusted(random_panel: Panel) -> None:
    a, c = (random_panel.matrix("240m", "PT", m) for m in ("accuracy", "confidence"))
    each = [stats.pearsonr(a[m], c[m]).statistic for m in range(9)]
    averaged = co.alignment(random_panel, "240m", "PT", "Science", "averaged")
    assert averaged.value == pytest.approx(np.mean(each))
    assert co.alignment_by_mixture(random_panel, "240m", "PT", "Science") == pytest.approx(each)
    pooled = co.alignment(random_panel, "240m", "PT", "Science", "pooled")
    assert pooled.value == pytest.approx(stats.pearsonr(a.ravel(), c.ravel()).statistic)
    two = co.alignment(random_panel, "240m", "PT", "Science", "averaged", ["V1P0", "V2P1"])
    assert two.value == pytest.approx((each[0] + each[4]) / 2)
    # points are the four benchmarks; all 24 orders of them are the null
    assert averaged.n == 4 and averaged.arrangements == 24
    null = [
        np.mean([stats.pearsonr(a[m], c[m][list(o)]).statistic for m in range(9)])
        for o in itertools.permutations(range(4))
    ]
    assert averaged.p == pytest.approx(np.mean(np.abs(null) >= abs(np.mean(each)) - 1e-10))
    null = [stats.pearsonr(a.ravel(), c[:, list(o)].ravel()).statistic for o in itertools.permutations(range(4))]
    assert pooled.p == pytest.approx(np.mean(np.abs(null) >= abs(pooled.value or 0) - 1e-10))


def test_chance_adjustment_removes_one_over_k() -> None:
    uniform = np.tile([0.25, 0.25, 0.5, 0.5], (9, 1))
    gain = np.random.default_rng(1).random((2, 9, 4)) * 0.2
    cube = {("PT", "uniform"): uniform}
    for metric, part in zip(("accuracy", "confidence"), gain, strict=True):
        cube["PT", metric] = uniform + part * (1 - uniform)
    panel = panel_of(cube)
    assert co.chance_adjusted(panel, "240m", "PT", "accuracy") == pytest.approx(gain[0])
    reference = np.mean([stats.pearsonr(gain[0][m], gain[1][m]).statistic for m in range(9)])
    assert co.alignment(panel, "240m", "PT", "Science", "chance-adjusted").value == pytest.approx(reference)
    assert (co.alignment(panel, "240m", "PT", "Science", "averaged").value or 0) > reference


def test_alignment_of_constant_and_incomplete_mixtures_is_missing_and_counted() -> None:
    rng = np.random.default_rng(3)
    cube = {(s, m): rng.random((9, 4)) for s in ("PT", "SFT") for m in ("accuracy", "confidence")}
    cube["PT", "accuracy"][2] = 0.5
    cube["PT", "confidence"][3, 1] = np.nan
    panel = panel_of(cube)
    each = co.alignment_by_mixture(panel, "240m", "PT", "Science")
    assert np.flatnonzero(np.isnan(each)).tolist() == [2, 3]
    assert co.alignment(panel, "240m", "PT", "Science", "averaged").missing == 2
    persistence = co.persistence(panel, "240m", "Science")
    other = co.alignment_by_mixture(panel, "240m", "SFT", "Science")
    keep = [0, 1, 4, 5, 6, 7, 8]
    assert persistence.n == 7 and persistence.value == pytest.approx(stats.pearsonr(each[keep], other[keep]).statistic)


def test_low_reliability_makes_no_claim_and_unmeasured_is_said(demo_panel: Panel) -> None:
    rng = np.random.default_rng(0)
    seeds = rng.random((3, 9, 4))  # seeds differ as much as mixtures
    noisy = panel_of({(s, m): seeds for s in ("PT", "SFT") for m in ("accuracy", "confidence")})
    assert any(format_verdict(row).startswith("no claim: reliability") for row in transfer_table(noisy).rows)
    single = panel_of({(s, m): seeds[:1] for s in ("PT", "SFT") for m in ("accuracy", "confidence")})
    table = transfer_table(single)
    assert all(table.texts(row)[0] in ("not measured", "") for row in table.rows) and PROVISIONAL in table.notes
    few = transfer_table(demo_panel).notes  # answers are there, and seeds of one mixture
    assert PROVISIONAL in few and "seed noise from 1 of 9 mixtures, 2 degrees of freedom" in few


def test_declared_order_is_spearman() -> None:
    rng = np.random.default_rng(4)
    panel = panel_of({("PT", "accuracy"): rng.random((3, 9, 4))})
    dose = {m: float(i // 2) for i, m in enumerate(MIXTURES)}  # tied doses
    found = co.declared_order(panel, {"sciq": dose, "piqa": dose}, "240m", "PT")
    mean = panel.over_seeds("240m", "PT")[:, :, 2].mean(axis=0)
    assert found["sciq"].value == pytest.approx(stats.spearmanr(list(dose.values()), mean).statistic)
    assert found["piqa"].value is None


def test_paper_numbers_and_table_5_means() -> None:
    # recomputed from the CSV's own rows: the paper prints 0.49 0.59 0.66 0.41
    means = {(metric, scale): [] for metric in ("accuracy", "confidence") for scale in ("240M", "1B")}
    for key, value in numbers().items():
        if key[0] == "5" and key[3] != "mean":
            means[key[1], key[2]].append(value)
    assert {k: (len(v), round(float(np.mean(v)), 4)) for k, v in means.items()} == {
        ("accuracy", "240M"): (20, 0.4875),
        ("accuracy", "1B"): (20, 0.5865),
        ("confidence", "240M"): (20, 0.6645),
        ("confidence", "1B"): (20, 0.4095),
    }
    for (metric, scale), values in means.items():
        # the paper rounds half up in the last place; 0.005 covers it
        assert numbers()["5", metric, scale, "mean"] == pytest.approx(np.mean(values), abs=0.0051)
    count = {n: sum(key[0] == n for key in numbers()) for n in ("5", "6", "7", "8", "9", "10", "11", "coherence")}
    assert count == {"5": 84, "6": 16, "7": 16, "8": 48, "9": 48, "10": 8, "11": 12, "coherence": 6}
    assert numbers()["8", "1B", "SFT", "FineWeb-Edu", "Semantic"] == -0.44
    assert frame("table4")["test_examples"].astype(int).sum() == sum(
        (
            10042,
            1838,
            500,
            1954,
            1221,
            1267,
            3270,
            1172,
            2376,
            1000,
            500,
            9815,
            5463,
            277,
            56,
            40430,
            408,
            638,
            104,
            4848,
        )
    )
    assert list(category_of()) == list(BENCHMARKS)


def test_tables_7_and_11_by_hand(demo: Path) -> None:
    panel = load_panel(StudyFolder(demo, "demo"))
    tables = {t.name: t for t in build_tables(panel, ("table7", "table11"))}
    accuracy = panel.matrix("mini_s", "PT")[:, panel.members("NLI")].mean(axis=1)
    edu, refined = accuracy[3:6], accuracy[:3]  # V2 is FineWeb-Edu, V1 RefinedWeb, P0..P2 the shares
    row = next(r for r in tables["table7"].rows if r.keys == ("mini_s", "accuracy (pp)", "NLI"))
    assert row.estimate.value == pytest.approx(100 * (edu - refined).mean()) and row.paper == 5.0
    row = next(r for r in tables["table11"].rows if r.keys == ("mini_m", "DCLM", "Science"))
    after = panel.matrix("mini_m", "SFT")[6:, panel.members("Science")]
    assert row.estimate.value == pytest.approx(100 * after.mean()) and row.paper == 54.8


def test_missing_cells_stay_missing_and_are_counted(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study = study_maker(tmp_path, n=6)
    for path in (study / "scores/mini_m").rglob("sft-mini/*.parquet"):
        path.unlink()
    for path in (study / "scores/mini_s/V2P1").rglob("*.parquet"):
        path.unlink()
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    # without study.yaml the plan is the union of what was scored: V2P1 of mini_s and the SFT of mini_m
    assert panel.coverage() == (20 * (8 + 8 + 9), 20 * 36)
    table = transfer_table(panel)
    small = [r for r in table.rows if r.keys[0] == "mini_s" and r.keys[2] != "Mean"]
    large = [r for r in table.rows if r.keys[0] == "mini_m"]
    assert all(r.estimate.n == 8 and r.estimate.missing == 1 for r in small)
    assert all(r.estimate.value is None and r.q is None and r.verdict is RowVerdict.MISSING for r in large)
    assert any("missing and left empty" in note for note in table.notes)
    names = ["table6", "table8", "table9", "calibration", "temperature", "code_share", "code_share_means"]
    assert all(
        r.estimate.value is None for t in build_tables(panel, names) for r in t.rows if r.keys[:2] == ("mini_m", "SFT")
    )


def test_last_checkpoint_counts_and_milestones_do_not(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study = study_maker(tmp_path, n=6, milestone=True)
    whole = load_panel(StudyFolder(tmp_path, "demo")).matrix("mini_s", "PT")
    (study / "scores/mini_s/V1P1/seed0/pt/step-0000100.parquet").unlink()
    fewer = load_panel(StudyFolder(tmp_path, "demo")).matrix("mini_s", "PT")
    assert np.isnan(fewer[1]).all() and np.array_equal(np.delete(fewer, 1, 0), np.delete(whole, 1, 0))


def test_each_stage_is_shown_as_it_was_asked_most_plainly(
    tmp_path: Path, writer: Callable[..., Path], make_row: Callable[..., dict[str, Any]]
) -> None:
    """Fine-tuned checkpoints asked in chat, a benchmark of one's own, and a second prompt set beside the first."""
    keys = {"mixture": "V1P0", "category": "commonsense"}
    pt = [
        make_row(**keys, variant="lettered/0shot", logprob_sum=[-2.0, -1.0]),
        make_row(**keys, variant="lm_eval/0shot"),
        make_row(**keys, benchmark="riddles", variant="own/0shot"),
    ]
    sft = [make_row(**keys, stage="SFT", recipe="mini", variant="lm_eval/0shot/chat", checkpoint="d" * 64)]
    writer(tmp_path / "demo/scores/pt.parquet", pt)
    writer(tmp_path / "demo/scores/sft.parquet", sft)
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    assert panel.benchmarks == ("piqa", "riddles") and panel.other_variants == ("lettered/0shot",)
    assert panel.matrix("240m", "PT").tolist() == [[1.0, 1.0]]
    assert np.array_equal(panel.matrix("240m", "SFT"), [[1.0, np.nan]], equal_nan=True)


def test_seed_policies(demo: Path) -> None:
    first, mean = load_panel(StudyFolder(demo, "demo")), load_panel(StudyFolder(demo, "demo"), average_seeds=True)
    seeds = first.over_seeds("mini_s", "PT")
    assert np.array_equal(first.matrix("mini_s", "PT"), seeds[0])
    assert mean.matrix("mini_s", "PT")[0] == pytest.approx(seeds[:, 0].mean(axis=0))  # V1P0 has three seeds
    assert np.array_equal(mean.matrix("mini_s", "PT")[1:], seeds[0, 1:])


def test_unknown_recipe_and_scores_outside_the_study(
    demo: Path, tmp_path: Path, study_maker: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match="no SFT recipe 'x'"):
        load_panel(StudyFolder(demo, "demo"), recipe="x")
    import yaml

    study = study_maker(tmp_path, mixtures=("V1P0", "V9P9"), benchmarks=("piqa",), n=4)
    config = {
        "name": "demo",
        "data": {"kind": "microworld"},
        "scales": {s: {"config": "x.yaml", "sft": {"mini": "y.yaml"}} for s in ("mini_s", "mini_m")},
        "mixtures": ["V1P0"],
        "recipes": ["mini"],
    }
    (study / "study.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ArtifactError, match="V9P9"):
        load_panel(StudyFolder(tmp_path, "demo"))
