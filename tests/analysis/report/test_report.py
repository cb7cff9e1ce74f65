"""The report as a file: it needs nothing beside itself, says what was measured, and names what was not."""

from __future__ import annotations

import csv
import html
import html.parser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.panel.load import load_panel
from analysis.protocols.decisions import protocols
from analysis.protocols.usable import above_chance
from analysis.report import page as report
from analysis.report import summary
from analysis.report.__main__ import main as report_main
from analysis.report.summary import format_mixtures
from analysis.report.verdict import Choice, Price, choices, verdicts
from analysis.stats.estimates import Estimate
from analysis.tables.catalogue import build_tables
from analysis.tables.decisions import decision_table
from analysis.tables.replication import replication_table
from analysis.tables.settings import settings_tables
from analysis.tables.transfer import transfer_table
from configs.drawing.scene import TEMPLATES, Figure, true_minus
from configs.errors import ArtifactError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import BENCHMARKS

FOUR = ("V1P0", "V1P1", "V2P0", "V3P2")
VOID = ("meta", "link", "br", "img", "input")


class Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch or follow, the ids, and the text; checks that elements close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "srcset", "data", "poster")]
        self.fetched += [tag] if tag in ("link", "iframe", "object", "embed") else []
        self.links += [v or "" for k, v in attrs if k.endswith("href")]
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(report_page: Path) -> str:
    return report_page.read_text()


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_the_page_needs_nothing_beside_itself(full: Path, report_page: Path, page: str, reader: Reader) -> None:
    assert report_page == full / "demo/report/index.html"
    assert reader.fetched == [] and "url(" not in page and "@import" not in page
    # the only addresses are names of XML namespaces
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page  # a browser refuses what slips through
    inside = {link[1:] for link in reader.links if link.startswith("#")}
    assert inside <= set(reader.ids) and len(reader.ids) == len(set(reader.ids))
    beside = {link for link in reader.links if not link.startswith("#")}
    assert len(beside) > 15 and all((report_page.parent / link).is_file() for link in beside)
    assert len(page.encode()) < 3_000_000  # 44 checkpoints x 20 benchmarks, more than the paper's 36 x 20
    figures = {path.name for path in (report_page.parent / "figures").iterdir()}
    assert {"declared_order.svg", "loss.svg", "reliability_mini_s.svg"} <= figures


def test_what_the_page_says(reader: Reader) -> None:
    for words in (
        "SYNTHETIC microworld",
        "880 / 880",
        "Declared and measured order",
        "Seed noise",
        "Table 11",
        "mini_s stands beside the paper's 240M; it is not that size",
        "every scored checkpoint has a score on every benchmark",
        "python -m analysis.tables --study demo --table 5",
        "generated in the form of Rowan/hellaswag, split validation",
        "30; 10,042 in the paper's Table 4",
    ):
        assert words in reader.words, words


def test_the_verdict_comes_first(full: Path, page: str) -> None:
    panel = load_panel(StudyFolder(full, "demo"))
    table5, decisions, replication = build_tables(panel, ["table5", "decisions", "replication"])
    found = verdicts(panel, table5, decisions, replication)
    matrix = page[page.index('class="grid matrix"') : page.index("How a verdict is made")]
    assert page.index("<h1>") < page.index('id="verdict"') < page.index('id="decision"') < page.index("<svg")
    levels = re.findall(r'data-level="([^"]+)"', matrix)
    assert levels == [str(found[slug, protocol].level) for slug in panel.benchmarks for protocol in protocols(panel)]
    early, late = (panel.matrix(*side).mean(axis=1) for side in (("mini_s", "PT"), ("mini_m", "SFT")))
    said = re.sub(r"<[^>]+>", "", page[page.index('class="decision"') :][:900])
    assert f"at mini_s PT trains {panel.mixtures[early.argmax()]}. " in said
    assert f"(mini_m SFT) {panel.mixtures[late.argmax()]} scored best" in said
    # Thirty examples a benchmark: after pretraining at the smaller scale none is clearly above chance.
    assert not above_chance(panel, "mini_s", "PT")
    assert "there is no decision to price, because its benchmarks are all at chance or constant (mini_s PT)" in said
    decision = page[page.index('id="decision"') : page.index('id="numbers"')]
    shown = [
        html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r'<td class="n [a-z ]+">.*?</td>', decision)
    ]
    inks = re.findall(r'<td class="n ([a-z ]+)">', decision)
    found_choices = choices(panel, decisions)
    assert len(shown) == len(inks) == len(found_choices) == 10
    for choice, text, ink in zip(found_choices, shown, inks, strict=True):
        assert ink == summary.INK[choice.price]
        if choice.regret is None:
            assert text == f"none: {choice.no_price}" and ink == "soft wrap"
        else:
            assert text.startswith(f"{100 * choice.regret:.1f} [") and ink in ("right", "unsure", "wrong")


SEEN = Choice("240m PT", "1b SFT", "mean", ("A",), ("B",), True, 0.058, (0.0006, 0.091), Estimate(0.7))


@pytest.mark.parametrize(
    ("change", "price", "words"),
    [
        ({}, Price.WRONG, "the choice costs 5.8 points of accuracy"),
        (
            {"regret_interval": (0.0004, 0.091)},
            Price.OPEN,
            "the choice would have cost 5.8 points of accuracy, which noise alone might make",
        ),
        (
            {"regret_interval": None, "unmeasured": ("examples", "seeds")},
            Price.UNKNOWN,
            "the choice would have cost 5.8 points of accuracy; noise was not measured",
        ),
        (
            {"regret_interval": None, "unmeasured": ("examples",)},
            Price.UNKNOWN,
            "the choice would have cost 5.8 points of accuracy; the noise of the examples was not measured",
        ),
        (
            {"unmeasured": ("seeds",)},
            Price.UNKNOWN,
            "the choice would have cost 5.8 points of accuracy; the noise of the seeds was not measured",
        ),
        (
            {"regret_interval": None},
            Price.UNKNOWN,
            "the choice would have cost 5.8 points of accuracy; not every mixture's noise was measured",
        ),
        (
            {"first": ("B",), "regret": 0.0, "regret_interval": (0.0, 0.012)},
            Price.OPEN,
            "no mixture scored better than the choice, but noise may hide a cost of up to 1.2 points",
        ),
        (
            {"first": ("B",), "regret": 0.0, "regret_interval": (0.0, 0.0004)},
            Price.RIGHT,
            "the choice is right and costs nothing",
        ),
        (
            {"first": ("B",), "regret": 0.0, "regret_interval": None, "unmeasured": ("examples", "seeds")},
            Price.UNKNOWN,
            "no mixture scored better than the choice; noise was not measured",
        ),
        (
            {"regret": None, "regret_interval": None, "no_price": "all at chance or constant (1b SFT)"},
            Price.NOTHING,
            "there is no decision to price, because its benchmarks are all at chance or constant (1b SFT)",
        ),
    ],
)
def test_a_cost_is_named_by_what_is_known_of_its_noise(change: dict[str, Any], price: Price, words: str) -> None:
    choice = replace(SEEN, **change)
    assert choice.price is price and summary.describe_cost(choice) == words
    coloured = summary.INK[price] in ("right", "wrong")
    assert coloured == (price in (Price.RIGHT, Price.WRONG))


def test_what_is_not_measured_is_not_counted_as_nothing() -> None:
    """Numbers without answers, seeds or chance: no benchmark is known to be noise, and none to be at chance."""
    given = panel_of(random_cube(0))
    untested, line = summary.sentences(transfer_table(given), replication_table(given))
    assert untested.startswith("No correlation is tested between different seeds")
    assert line.endswith("it is not known which rest on noise: noise is not measured.")
    (clear,) = (words for words in summary.tiles(given, {}) if "above chance" in words[1])
    assert clear == ("–", "benchmarks clearly above chance, 240m: chance or standard errors are not known")
    for choice in choices(given, decision_table(given)):
        assert choice.price is Price.UNKNOWN and choice.unmeasured == ("examples", "seeds")
        assert "noise was not measured" in summary.describe_cost(choice)
        assert "noise alone" not in summary.describe_cost(choice)
    cubes = {key: np.concatenate([cube, cube + 0.01]) for key, cube in given.values.items()}
    seeded = panel_of(random_cube(0), seeds=(0, 1), values=cubes)
    assert {choice.unmeasured for choice in choices(seeded, decision_table(seeded))} == {("examples",)}


def test_choices_are_counted_by_what_is_known_of_them() -> None:
    nothing = replace(SEEN, regret=None, regret_interval=None, no_price="all at chance or constant (1b SFT)")
    within = replace(SEEN, regret_interval=(0.0, 0.1))
    assert summary.describe_choices([nothing, SEEN, within]) == (
        "Of the 3 choices below 1 have no decision to price; 2 are not the mixture that scored best in the end; "
        "1 cost more than noise alone might make."
    )
    unknown = replace(SEEN, regret_interval=None, unmeasured=("examples", "seeds"))
    assert summary.describe_choices([unknown, unknown]) == (
        "Of the 2 choices below 0 have no decision to price; 2 are not the mixture that scored best in the end; "
        "for 2 not all noise was measured."
    )


def test_the_same_study_gives_the_same_page(full: Path, page: str) -> None:
    panel = load_panel(StudyFolder(full, "demo"))
    tables = build_tables(panel, ["table5", "decisions", "replication", "calibration"])
    drawn: dict[str, list[Figure]] = {name: [] for name, _ in report.SECTIONS}
    first, second = (report.compose(panel, tables, settings_tables(panel), drawn)[0] for _ in range(2))
    assert first == second and first != page


@pytest.mark.slow
def test_the_same_study_gives_the_same_page_in_another_process(full: Path, page: str, tmp_path: Path) -> None:
    shutil.copytree(full / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("report"))
    command = [sys.executable, "-m", "analysis.report", "--runs", str(tmp_path), "--study", "demo"]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert (tmp_path / "demo/report/index.html").read_text() == page


def test_missing_cells_are_named(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    slugs = ("piqa", "sciq", "rte", "wic")
    study = study_maker(tmp_path, mixtures=("V1P0", "V2P0", "V3P0", "V3P1"), benchmarks=slugs, n=12)
    (study / "scores/mini_m/V3P0/seed0/sft-mini/step-0000100.parquet").unlink()
    words = Reader(report.build_report(StudyFolder(tmp_path, "demo")).read_text()).words
    assert "mini_m SFT V3P0 seed 0 all 4" in words and "60 / 64" in words and "4 missing" in words


def test_metrics_alone(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study_maker(
        tmp_path / "scored", mixtures=("V1P0", "V2P0", "V3P0", "V3P1"), benchmarks=("piqa", "sciq", "rte"), n=12
    )
    load_panel(StudyFolder(tmp_path / "scored", "demo"))
    (tmp_path / "demo").mkdir()
    shutil.copy(tmp_path / "scored/demo/metrics.parquet", tmp_path / "demo")
    path = report.build_report(StudyFolder(tmp_path, "demo"))
    words = Reader(path.read_text()).words
    assert "SYNTHETIC" not in words and "run folders are not here" in words and "48 / 48" in words
    assert "Reliability diagrams need single answers" in words and "reliability diagrams cannot be drawn" in words
    assert "number not known (published metrics only)" in words and "single answers are not here" in words
    assert "unknown: metrics only" not in words  # they carry the fingerprint of the scores they were made from


def test_given_numbers_have_a_report_too(tmp_path: Path) -> None:
    """Without chance, standard errors, confidence, answers, or a counterpart in the paper."""
    random = np.random.default_rng(0)
    lines = ["model,stage,benchmark,value"]
    for m in range(5):
        for name in ("alpha", "beta"):
            early = random.uniform()
            lines += [f"m{m},PT,{name},{early:.4f}", f"m{m},SFT,{name},{early / 2:.4f}"]
    (tmp_path / "numbers.csv").write_text("\n".join(lines))
    from analysis.tidy.__main__ import main

    main([str(tmp_path / "numbers.csv"), "--study", "ours", "--runs", str(tmp_path)])
    words = Reader(report.build_report(StudyFolder(tmp_path, "ours")).read_text()).words
    assert "No number here stands beside one of the paper" in words and "Confidence is not measured" in words
    assert "chance not known" in words and "at chance" not in words.split("How a verdict is made")[0]


def test_the_page_says_which_seeds_it_shows(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study_maker(tmp_path, mixtures=FOUR, scales=("mini_s",), extra_seeds={"V1P0": (1,)}, benchmarks=("piqa",), n=9)
    folder, said = tmp_path / "demo/report", {}
    for seeds in ("first", "mean"):
        report_main(["--runs", str(tmp_path), "--study", "demo", "--seeds", seeds])
        words = Reader((folder / "index.html").read_text()).words
        said[seeds] = "Numbers are of seed 0 of every mixture" in words, "mean over its seeds; checkpoints" in words
        assert ("--table 5 --seeds mean" in words) == (seeds == "mean")
        panel = load_panel(StudyFolder(tmp_path, "demo"), average_seeds=seeds == "mean")
        row = next(csv.DictReader((folder / "tables/table5.csv").open()))
        pt, sft = (panel.matrix("mini_s", stage)[:, 0] for stage in ("PT", "SFT"))
        assert float(row["value"]) == pytest.approx(np.corrcoef(pt, sft)[0, 1])
    assert said == {"first": (True, False), "mean": (False, True)}


def test_declared_order_reaches_the_report(full: Path, tmp_path: Path) -> None:
    panel = load_panel(StudyFolder(full, "demo"))
    found = report.read_declared(panel)
    assert set(found) == {(s, t) for s in ("mini_s", "mini_m") for t in ("PT", "SFT")}
    assert set(found["mini_s", "PT"]) == {"piqa", "sciq"}
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/declared.json").write_text('{"learnable": 3}')
    with pytest.raises(ArtifactError, match=r"declared\.json"):
        report.read_declared(replace(panel, study=StudyFolder(tmp_path, "demo")))


def test_every_figure_says_where_its_numbers_are(page: str) -> None:
    figures = dict(re.findall(r'<figure id="figure-([^"]+)">(.*?)</figure>', page, re.DOTALL))
    assert len(figures) > 20 + 2 * 20
    without = {name for name, figure in figures.items() if 'href="#' not in figure}
    own = {f"{kind}_{slug}" for kind in ("accuracy", "reliability") for slug in BENCHMARKS}  # beside their tables
    assert without == own | {"declared_order", "loss"}  # whose numbers no table has


def test_minus_signs() -> None:
    assert true_minus("ARC-Easy: -0.31 [-0.5, +0.1], p 2e-05") == "ARC-Easy: −0.31 [−0.5, +0.1], p 2e-05"


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 of two colours as #rrggbb."""

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_every_text_colour_can_be_read_in_both_themes() -> None:
    sheets = [
        path.read_text().split("@media (prefers-color-scheme: dark)")
        for path in (TEMPLATES / "style.css", report.TEMPLATES / "page.css")
    ]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for theme in (0, 1):
        colours = dict(pair for sheet in sheets for pair in re.findall(r"--([\w-]+): (#\w{6})", sheet[theme]))
        on_paper = ["ink", "soft", "link", "warn", "right", "wrong", "commonsense", "science", "nli", "semantic"]
        assert min(contrast(colours[name], colours["paper"]) for name in on_paper) >= 4.5
        assert contrast(colours["warn"], colours["warn-back"]) >= 4.5
        tints = [name for name in colours if re.fullmatch(r"(pos|neg)\d", name)]
        assert len(tints) == 8 and min(contrast(colours["ink"], colours[tint]) for tint in tints) >= 4.5


def test_a_tie_of_all_mixtures_is_told_in_few_words() -> None:
    assert format_mixtures(["A", "B"], ["A", "B", "C"], " or ") == "A or B"
    assert format_mixtures(["A", "B"], ["A", "B"], " or ") == "any of the 2, all alike"
    assert format_mixtures(["A"], ["A"], " or ") == "A"
