"""The tables of a study: every row says what it is, the paper's numbers stand where they belong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.panel.panel import STAGES, Panel
from analysis.paper.numbers import CATEGORIES, category_of, frame, numbers
from analysis.protocols import correlations as co
from analysis.rendering.table import Row, RowVerdict, Table
from analysis.rendering.writers import as_latex, as_markdown, as_text
from analysis.report.summary import compare_with_paper
from analysis.tables.catalogue import build_tables
from analysis.tables.paper import table7, table8, table11
from analysis.tables.protocols import MAKERS, code_means_table, scale_table
from analysis.tables.transfer import transfer_table

NAMES = [
    "matrix_similarity",
    "category_means",
    "scale_differences",
    "code_share",
    "code_share_means",
    "web_means",
    "web_differences",
]


def protocol_tables(panel: Panel) -> list[Table]:
    return [table for make in MAKERS.values() if (table := make(panel)).rows]


@pytest.fixture
def panel(demo_panel: Panel) -> Panel:
    return demo_panel


@pytest.fixture
def tables(demo_tables: dict[str, Table]) -> dict[str, Table]:
    return {name: demo_tables[name] for name in MAKERS if name in demo_tables}


def at(table: Table, *keys: str) -> Row:
    (row,) = (row for row in table.rows if row.keys == keys)
    return row


def test_every_number_says_what_it_is(tables: dict[str, Table]) -> None:
    assert list(tables) == NAMES
    rows = {"matrix_similarity": 4, "category_means": 40, "scale_differences": 50, "code_share": 96}
    rows |= {"code_share_means": 96, "web_means": 96, "web_differences": 96}
    assert {name: len(table.rows) for name, table in tables.items()} == rows
    for name, table in tables.items():
        assert all(len(row.keys) == len(table.keys) and len(row.extra) in (0, len(table.extra)) for row in table.rows)
        assert len({row.keys for row in table.rows}) == len(table.rows)
        for row in table.rows:
            e = row.estimate
            if e.value is None:
                assert e.reason
                continue
            assert e.n >= 1 and e.points
            assert (e.low is None) == (e.interval == "") and (e.low is not None or name == "code_share_means")
            assert name == "web_means" or (e.p is not None and e.null and e.smallest_p is not None)
            assert row.q is None or row.q >= (e.p or 0) - 1e-12


def test_the_mean_of_table_5_is_over_the_benchmarks_that_support_a_claim() -> None:
    """It names their number, and the paper's number beside it is the mean of the paper's rows for the same ones."""
    random = np.random.default_rng(4)
    mixtures, noise = random.normal(size=(1, 9, 20)), random.normal(size=(2, 3, 9, 20))
    noise[..., :6] *= 3.0  # six benchmarks on which seeds differ more than mixtures
    noise[..., 6:] *= 0.1
    cubes = {("240m", stage, "accuracy", "sum"): mixtures + side for stage, side in zip(STAGES, noise, strict=True)}
    first = {key[:3]: cube[0] for key, cube in cubes.items()}
    *own, mean = transfer_table(panel_of(first, values=cubes, seeds=(0, 1, 2))).rows
    counted = [row for row in own if row.estimate.value is not None and not row.no_claim]
    assert 10 < len(counted) < 20 and mean.keys[2:] == ("Mean", f"{len(counted)} of 20 benchmarks")
    assert mean.estimate.value == pytest.approx(np.mean([row.estimate.value for row in counted]))
    assert mean.paper == pytest.approx(np.mean([row.paper for row in counted]))


def test_tables_agree_with_tables_5_7_8_and_11(panel: Panel, tables: dict[str, Table]) -> None:
    five = {row.keys: row for row in transfer_table(panel).rows}
    small, large = (five[scale, "accuracy", "Commonsense", "PIQA"] for scale in panel.scales)
    change = at(tables["scale_differences"], "mini_s to mini_m", "accuracy", "Commonsense", "PIQA")
    assert change.estimate.value == pytest.approx((large.estimate.value or 0) - (small.estimate.value or 0))
    assert change.paper == pytest.approx(0.71 - 0.87)
    mean = at(tables["category_means"], "mini_m", "confidence", "all", "mean of r")
    own = [row for row in five.values() if row.keys[:2] == ("mini_m", "confidence") and row.keys[2] != "Mean"]
    assert mean.estimate.value == pytest.approx(np.mean([row.estimate.value for row in own if row.estimate.value]))
    assert mean.paper == pytest.approx(0.4095)
    for row in table7(panel).rows:
        scale, quantity, category = row.keys
        keys = (quantity.removesuffix(" (pp)"), scale, "PT", category, "FineWeb-Edu − RefinedWeb")
        mine = at(tables["web_differences"], *keys)
        assert mine.estimate == row.estimate and mine.paper == row.paper
    for row in table11(panel).rows:
        scale, web, category = row.keys
        mine = at(tables["web_means"], "accuracy", scale, "SFT", category, web)
        assert mine.estimate == row.estimate and mine.paper == row.paper
    for row in table8(panel).rows:
        scale, stage, web, category, reading = row.keys
        if reading == "averaged":
            mine = at(tables["web_means"], "alignment", scale, stage, category, web)
            assert mine.estimate.value == pytest.approx(row.estimate.value) and mine.paper == row.paper


def test_the_papers_numbers(panel: Panel, tables: dict[str, Table]) -> None:
    assert at(tables["matrix_similarity"], "mini_s", "confidence").paper == 0.73
    assert at(tables["matrix_similarity"], "mini_m", "confidence").paper is None
    for name in ("code_share", "code_share_means"):
        assert at(tables[name], "mini_s", "PT", "Commonsense", "").paper == -0.86
        assert at(tables[name], "mini_m", "SFT", "Science", "").paper == 0.73
        assert at(tables[name], "mini_s", "PT", "Commonsense", "HellaSwag").paper == -0.94
        # C.4.2 gives the 240M number for 1B, Figure 15 has -0.80
        assert at(tables[name], "mini_m", "PT", "Commonsense", "HellaSwag").paper == -0.80
        assert at(tables[name], "mini_m", "PT", "NLI", "MNLI").paper == -0.68
        assert sum(row.paper is not None for row in tables[name].rows) == 4 + 11
    edu = at(tables["web_differences"], "accuracy", "mini_m", "SFT", "NLI", "FineWeb-Edu − RefinedWeb")
    assert edu.paper == pytest.approx(44.1 - 43.2)
    dclm = at(tables["web_differences"], "alignment", "mini_s", "PT", "Science", "DCLM − FineWeb-Edu")
    assert dclm.paper == pytest.approx(0.73 - 0.68)
    assert at(tables["web_differences"], "accuracy", "mini_s", "SFT", "NLI", "DCLM − RefinedWeb").paper is None


def test_figure_1_is_the_mean_of_table_5() -> None:
    """The means that stand beside a study's are recomputed from Table 5's rows: Figure 1 agrees with them."""
    found = 0
    for row in frame("values_in_text").to_dict("records"):
        if row["where"] == "Figure 1":
            slugs = [slug for slug, category in category_of().items() if category == row["category_or_benchmark"]]
            mean = np.mean([numbers()["5", "confidence", row["scale"], slug] for slug in slugs])
            assert float(row["value"]) == pytest.approx(mean, abs=0.0051)
            found += 1
    assert found == 4


def test_caveats_stand_under_the_table_in_every_form(tables: dict[str, Table]) -> None:
    said = {name: tuple(map(str, table.caveats)) for name, table in tables.items()}
    assert any("on one line" in caveat for caveat in said["code_share"])
    assert any("three points" in str(caveat) for caveat in said["code_share_means"])
    for name in ("code_share", "web_means", "web_differences"):
        assert any("RefinedWeb: StarCoder" in caveat for caveat in said[name])
    for table in tables.values():
        assert table.notes[len(table.notes) - len(table.caveats) :] == list(map(str, table.caveats))
        assert all(str(caveat) in form for caveat in table.caveats for form in (as_text(table), as_markdown(table)))
        assert all(str(caveat) in as_latex(table) for caveat in table.caveats)


def test_terminal_shows_the_summary_and_files_everything(tables: dict[str, Table]) -> None:
    brief = {name: sum(row.brief for row in table.rows) for name, table in tables.items()}
    assert brief == {
        "matrix_similarity": 4,
        "category_means": 40,
        "scale_differences": 10,
        "code_share": 16,
        "code_share_means": 16,
        "web_means": 48,
        "web_differences": 48,
    }


def test_one_scale_one_mixture_or_nothing(panel: Panel) -> None:
    one_scale = panel_of(random_cube(0))
    assert [t.name for t in protocol_tables(one_scale)] == [name for name in NAMES if name != "scale_differences"]
    assert scale_table(one_scale).rows == ()
    lone = panel_of(random_cube(0, mixtures=1, scales=("240m", "1b")))
    for table in protocol_tables(lone):
        if table.name != "web_means":
            assert all(row.estimate.value is None and row.estimate.reason for row in table.rows)
        assert as_text(table)
    empty = panel_of({key: np.full((9, 20), np.nan) for key in random_cube(0, scales=("240m", "1b"))})
    assert all(row.estimate.value is None for table in protocol_tables(empty) for row in table.rows)


def test_some_benchmarks_only() -> None:
    """A category without benchmarks has no row of its own, or an empty one, and nothing fails."""
    few = panel_of(random_cube(1, benchmarks=3, scales=("240m", "1b")), ("hellaswag", "piqa", "arc_easy"))
    tables = {table.name: table for table in protocol_tables(few)}
    assert {row.keys[2] for row in tables["category_means"].rows} == {"Commonsense", "Science", "all"}
    accuracy = few.matrix("240m", "PT")
    row = at(tables["code_share"], "240m", "PT", "Science", "")
    assert row.estimate.value == pytest.approx(np.corrcoef(np.tile([25, 35, 45], 3), accuracy[:, 2])[0, 1])
    assert at(tables["matrix_similarity"], "1b", "accuracy").estimate.points == "mixtures, 3 pairs of 3 benchmarks"
    empty = [row for row in tables["web_means"].rows if row.keys[3] in ("NLI", "Semantic")]
    assert all(row.estimate.value is None for row in empty)


def test_more_than_three_code_shares_lose_the_warning() -> None:
    names = tuple(f"V{v}P{p}" for v in (1, 2, 3) for p in range(5))
    wide = panel_of(random_cube(2, mixtures=15, benchmarks=4), mixtures=names)
    table = code_means_table(wide)
    assert not any("three points" in str(caveat) for caveat in table.caveats)
    assert table.rows[0].estimate.n == 5 and table.rows[0].estimate.low is not None


def test_accuracy_is_in_per_cent_and_alignment_is_not(panel: Panel, tables: dict[str, Table]) -> None:
    accuracy = panel.matrix("mini_m", "PT")[:3, panel.members("NLI")]
    row = at(tables["web_means"], "accuracy", "mini_m", "PT", "NLI", "RefinedWeb")
    assert row.estimate.value == pytest.approx(100 * accuracy.mean())
    aligned = co.alignment_by_mixture(panel, "mini_m", "PT", CATEGORIES[0])
    row = at(tables["web_means"], "alignment", "mini_m", "PT", CATEGORIES[0], "DCLM")
    assert row.estimate.value == pytest.approx(aligned[6:].mean())


def test_each_number_of_the_paper_is_counted_once() -> None:
    """Although two readings of Tables 6, 8 and 9 stand beside it, and it returns in tables that extend others."""
    panel = panel_of(random_cube(1, scales=("240m", "1b")))
    names = [*map("table{}".format, (6, 7, 8, 9, 11)), "coherence", "category_means", *MAKERS]
    made = {table.name: table for table in build_tables(panel, list(dict.fromkeys(names)))}
    found = {one.name.removeprefix("table"): one for one in compare_with_paper(made)}
    known = Counter(key[0] for key in numbers())
    for name, of in {"6": "6", "7": "7", "8": "8", "9": "9", "11": "11", "coherence": "coherence"}.items() | {
        ("matrix_similarity", "similarity"),
        ("code_share", "code"),
    }:
        one = found[name]
        # A number that is not the paper's must not count.
        assert sum(one.counts[verdict] for verdict in RowVerdict if verdict) == known[of] == one.counts.total(), name
    assert set(found) == {"6", "7", "8", "9", "11", "coherence", "matrix_similarity", "code_share"}
    averaged = [row for row in made["table8"].rows if row.keys[-1] == "averaged"]
    assert found["8"].counts[RowVerdict.INSIDE] == sum(row.verdict == "inside" for row in averaged)
    assert found["8"].few == sum(len(panel.members(row.keys[3])) <= 4 for row in averaged) > 0
