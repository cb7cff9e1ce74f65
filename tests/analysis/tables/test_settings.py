"""Tables 1 to 4: the published values to the letter, a study's own counted by hand, and what is not known said so."""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.panel.load import load_panel
from analysis.panel.panel import Panel
from analysis.rendering.table import Cell, Sheet
from analysis.tables import __main__ as tables
from analysis.tables.catalogue import parse_table_names
from analysis.tables.published import published_sheets
from analysis.tables.setting_rows import agrees
from analysis.tables.settings import settings_tables
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_study, load_train, save

NAMES = ("table1", "table2", "table3", "table4")
Rows = dict[tuple[str, ...], dict[str, Cell]]


def by_keys(sheet: Sheet) -> Rows:
    """Keys -> what stands under each heading."""
    return {
        tuple(str(cell) for cell in row[: sheet.keys]): dict(zip(sheet.header, row, strict=True)) for row in sheet.rows
    }


def made(runs: Path, panel: Panel) -> dict[str, Rows]:
    return {sheet.name: by_keys(sheet) for sheet in settings_tables(panel, NAMES)}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with scores of the study `paper`, as configs/studies/paper.yaml plans it."""
    from score_rows import make_study

    runs = tmp_path_factory.mktemp("paper")
    make_study(runs, "paper", scales=("240m", "1b"), mixtures=("V1P0", "V2P1"), n=3)
    save(load_study("paper"), runs / "paper/study.yaml")
    return runs


@pytest.fixture(scope="module")
def mini(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of `demo`, with the study.yaml of configs/studies/mini.yaml."""
    runs = tmp_path_factory.mktemp("mini")
    shutil.copytree(demo / "demo", runs / "demo")
    save(load_study("mini").model_copy(update={"name": "demo"}), runs / "demo/study.yaml")
    return runs


# ---------------------------------------------------------------------------------------------- the paper


@pytest.mark.shared_data
def test_published_tables_are_the_papers(shared_data: Path) -> None:
    found = {sheet.name: sheet for sheets in published_sheets().values() for sheet in sheets}
    for name in ("table1", "table2a", "table2b", "table3", "table4", "table5", "table11"):
        paths = [p for p in (shared_data.parent / "paper").glob("*.csv") if p.stem.split("_")[0] == name]
        assert len(paths) == 1
        with paths[0].open(newline="") as file:
            header, *rows = csv.reader(file)
        assert [*found[name].header] == header
        assert [[*row] for row in found[name].rows] == [[cell.replace("_", " ") for cell in row] for row in rows]


def test_paper_column_is_the_published_one(paper: Path) -> None:
    found = made(paper, load_panel(StudyFolder(paper, "paper"), "table2b"))
    for (scale, name), cells in found["table1"].items():
        wanted = {"model dimension": (768, 1680), "number of layers": (8, 12), "total parameters": ("240M", "1.0B")}
        if name in wanted:
            assert cells["paper"] == wanted[name][scale == "1b"]
    assert found["table1"]["240m", "vocabulary size"]["paper"] == 100864
    assert found["table2"]["PT", "240m", "warmup steps"]["paper"] == 2000
    assert found["table2"]["PT", "1b", "tokens (section 3.1)"]["paper"] == "52B"
    assert found["table2"]["SFT", "1b", "learning rate"]["paper"] == 1e-5
    assert [found["table3"]["V2P1", part]["paper"] for part in ("web", "code", "curated")] == [
        "FineWeb-Edu 45 %",
        "Stack-v2 35 %",
        "20 %",
    ]
    assert found["table4"]["Semantic", "QQP"]["paper"] == 40430


def test_the_papers_configs_meet_the_paper_but_for_known_departures(paper: Path) -> None:
    """By hand: 241,054,464 = 100864 x 768 + 8 (4 x 768 x 2048 + 3 x 768 x 6144) + 17 x 768 parameters, and so on."""
    found = made(paper, load_panel(StudyFolder(paper, "paper"), "table2b"))
    differing = {
        (name, *keys): cells["this study"]
        for name, rows in found.items()
        for keys, cells in rows.items()
        if cells["verdict"] == "differs" and name != "table4"
    }
    assert differing == {
        ("table1", "240m", "total parameters"): 100864 * 768 + 8 * (4 * 768 * 2048 + 3 * 768 * 6144) + 17 * 768,
        ("table1", "1b", "total parameters"): 100864 * 1680 + 12 * (4 * 1680 * 2048 + 3 * 1680 * 13440) + 25 * 1680,
        ("table2", "PT", "240m", "training steps"): 12_000_000_000 // (256 * 4096),
        ("table2", "PT", "1b", "training steps"): 52_000_000_000 // (256 * 4096),
        ("table2", "SFT", "240m", "training steps"): -(-5 * 326_154 // 256),
        ("table2", "SFT", "1b", "training steps"): -(-10 * 326_154 // 256),
        ("table2", "SFT", "1b", "epochs (section 3.1)"): 10.0,
    }
    pretraining = found["table2"]["PT", "240m", "tokens (section 3.1)"]
    assert (pretraining["this study"], pretraining["verdict"]) == (11_444 * 256 * 4096, "same")
    flops = 6 * (241_054_464 - 17 * 768) + 12 * 8 * 2048 * 4096
    assert found["table1"]["240m", "FLOPs a token, attention in full"]["this study"] == flops
    assert found["table2"]["PT", "240m", "FLOPs, attention in full"]["this study"] == flops * 11_444 * 256 * 4096
    assert found["table2"]["SFT", "240m", "SFT data set"]["this study"] == "tulu-v2-mix"
    assert found["table1"]["1b", "gated MLP"]["verdict"] == "the paper is silent"
    # The scores are of step 100, which is not where the plan ends.
    assert found["table2"]["PT", "240m", "training steps"]["note"] == "scored: step 100"
    text = made(paper, load_panel(StudyFolder(paper, "paper"), "text"))["table2"]
    assert text["SFT", "1b", "epochs"]["verdict"] == "differs"
    assert text["SFT", "1b", "epochs (section 3.1)"]["verdict"] == "same"


@pytest.mark.parametrize(
    ("printed", "value", "same"),
    [
        ("12B", 11_999_903_744, True),
        ("12B", 12_499_999_999, True),
        ("12B", 12_600_000_000, False),
        ("1.0B", 1_049_000_000, True),
        ("1.0B", 1_147_495_440, False),
        ("240M", 241_054_464, False),
        ("240M", 239_600_000, True),
        ("10 %", "10 %", True),
        (100864, 100864, True),
        (2e-5, 2.0e-5, True),
        (0.001, 0.01, False),
        ("240M", "unknown", False),
    ],
)
def test_a_rounded_number_agrees_with_what_it_rounds(printed: Cell, value: Cell, same: bool) -> None:
    assert agrees(printed, value) is same


# ---------------------------------------------------------------------------------------------- a study


def test_a_miniature_counted_by_hand(mini: Path) -> None:
    found = made(mini, load_panel(StudyFolder(mini, "demo")))
    small = {name: cells["this study"] for (scale, name), cells in found["table1"].items() if scale == "mini_s"}
    assert small["total parameters"] == 1280 * 24 + 2 * (4 * 24 * 64 + 3 * 24 * 192) + 5 * 24 == 70_776
    assert (small["expand factor"], small["output embedding"], small["gated MLP"]) == (8, "tied", "swiglu")
    assert found["table1"]["mini_s", "expand factor"]["verdict"] == "same"
    training = found["table2"]
    assert training["PT", "mini_s", "training steps"]["this study"] == 600_000 // (8 * 128) == 585
    assert training["PT", "mini_s", "tokens (section 3.1)"]["this study"] == 585 * 8 * 128
    assert training["PT", "mini_s", "precision"]["this study"] == "float32"
    assert training["SFT", "mini_s", "SFT data set"]["this study"] == "sft, microworld"
    # 100 steps were set: how many passes over the generated set they are, no config says.
    assert training["SFT", "mini_s", "training steps"]["this study"] == 100
    assert training["SFT", "mini_s", "epochs"]["verdict"] == "unknown"
    assert found["table3"]["V1P2", "curated"]["note"] == "Wikipedia 7.5, ArXiv 7.5, StackExchange 7.5, Books 7.5"
    assert {cells["this study"] for cells in found["table4"].values()} == {30}
    for sheet in settings_tables(load_panel(StudyFolder(mini, "demo")), ("table3", "table4")):
        assert any("SYNTHETIC" in note for note in sheet.notes)


def test_what_a_run_left_counts_more_than_the_configs(mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini / "demo", tmp_path / "demo")
    folder = StudyFolder(tmp_path, "demo").run("mini_s", "V1P1", 0, "pt").path
    run = load_train("mini_s.yaml", {"model.hidden": 32, "optimizer.lr": 0.5, "data.mixture": "only_theirs"})
    save(run, folder / "config.yaml")
    found = made(tmp_path, load_panel(StudyFolder(tmp_path, "demo")))
    assert found["table1"]["mini_s", "model dimension"]["this study"] == 32
    assert found["table1"]["mini_m", "model dimension"]["this study"] == 52
    assert found["table2"]["PT", "mini_s", "learning rate"]["this study"] == 0.5
    assert found["table2"]["SFT", "mini_s", "learning rate"]["this study"] == 1e-3
    # Of another version of the project, or damaged: no reason to withhold the other tables.
    (folder / "config.yaml").write_text("model: 3\n")
    sheet, *_ = settings_tables(load_panel(StudyFolder(tmp_path, "demo")), ["table2"])
    assert by_keys(sheet)["PT", "mini_s", "learning rate"]["verdict"] == "unknown"
    (note,) = (note for note in sheet.notes if "config.yaml" in note)
    assert note.startswith("mini_s/V1P1/seed0/pt/config.yaml: ") and str(tmp_path) not in note


def test_without_study_yaml_what_is_unknown_is_said(demo: Path) -> None:
    panel = load_panel(StudyFolder(demo, "demo"))
    found = made(demo, panel)
    assert {cells["verdict"] for cells in found["table1"].values()} == {"unknown"}
    known = {keys[2]: cells for keys, cells in found["table2"].items() if cells["verdict"] != "unknown"}
    assert set(known) == {"training steps", "tokens (section 3.1)"}
    steps = found["table2"]["SFT", "mini_m", "training steps"]
    assert (steps["this study"], steps["note"], steps["verdict"]) == (100, "as the scores say", "differs")
    assert found["table2"]["PT", "mini_m", "tokens (section 3.1)"]["this study"] == 200_000
    assert found["table3"]["V3P0", "web"]["this study"] == "DCLM 65 %"  # by its name
    sheets = settings_tables(panel)
    assert [sheet.name for sheet in sheets] == ["table2", "table3", "table4"]  # of Table 1 nothing is known
    assert any("neither a run folder nor study.yaml" in note for note in sheets[0].notes)
    assert any("not known without study.yaml" in note for note in sheets[1].notes)


def test_a_study_of_others_with_configs_of_their_own_is_unknown(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "demo", tmp_path / "demo")
    text = (save_mini(tmp_path / "demo/study.yaml")).read_text().replace("config: mini_s.yaml", "config: theirs.yaml")
    (tmp_path / "demo/study.yaml").write_text(text)
    found = made(tmp_path, load_panel(StudyFolder(tmp_path, "demo")))
    assert found["table1"]["mini_m", "model dimension"]["this study"] == 52
    # Its fine-tuning config is ours, and its model is the same.
    assert found["table1"]["mini_s", "model dimension"]["this study"] == 24
    assert found["table2"]["PT", "mini_s", "learning rate"]["verdict"] == "unknown"
    (sheet,) = settings_tables(load_panel(StudyFolder(tmp_path, "demo")), ["table2"])
    assert "mini_s: no such config file" in sheet.notes


def save_mini(path: Path) -> Path:
    save(load_study("mini").model_copy(update={"name": "demo"}), path)
    return path


def test_mixtures_benchmarks_and_scales_that_the_paper_lacks(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study_maker(tmp_path, mixtures=("V1P0", "V1P3", "mine"), scales=("s", "m", "l"), benchmarks=("piqa", "cb"), n=4)
    panel = load_panel(StudyFolder(tmp_path, "demo"))
    sheets = {sheet.name: sheet for sheet in settings_tables(panel, NAMES)}
    found = {name: by_keys(sheet) for name, sheet in sheets.items()}
    assert found["table3"]["V1P3", "web"]["verdict"] == "no counterpart"
    assert found["table3"]["mine", "web"] == {
        "mixture": "mine",
        "part": "web",
        "paper": None,
        "this study": None,
        "verdict": "unknown",
        "note": "configs/mixtures lacks it",
    }
    assert any("V3P2: not in this study" in note for note in sheets["table3"].notes)
    assert found["table4"]["Commonsense", "PIQA"]["verdict"] == "differs"
    assert any(note.startswith("the paper's HellaSwag, COPA") for note in sheets["table4"].notes)
    assert found["table2"]["PT", "m", "training steps"]["verdict"] == "no counterpart"
    given = dataclasses.replace(
        panel,
        beside_paper=False,
        benchmarks=("piqa", "riddles"),
        category_of=panel.category_of | {"riddles": "Wordplay"},
        displays=panel.displays | {"riddles": "Riddles"},
        sizes={"riddles": 7},
    )
    found = made(tmp_path, given)
    assert {cells["paper"] for cells in found["table3"].values()} == {None}
    riddles = found["table4"]["Wordplay", "Riddles"]
    assert (riddles["paper"], riddles["this study"], riddles["verdict"]) == (None, 7, "no counterpart")
    assert found["table4"]["Commonsense", "PIQA"]["verdict"] == "unknown"


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_in_any_form(mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--runs", str(mini), "--study", "demo", "--table"]
    tables.main([*told, "4", "--format", "csv"])
    rows = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert len(rows) == len(BENCHMARKS) and rows[0]["paper"] == "10042" and rows[0]["this study"] == "30"
    tables.main([*told, "1,2,3,4"])
    out = capsys.readouterr().out
    assert all(f"Table {n}. " in out for n in range(1, 5)) and "Table 5." not in out
    assert "100,864" in out and "70,776" in out
    tables.main([*told, "1,7", "--out", str(tmp_path / "out")])
    capsys.readouterr()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"{name}.{suffix}" for name in ("table1", "table7") for suffix in ("csv", "md", "tex")
    }
    tables.main([*told, "11,3", "--format", "md"])
    assert re.findall(r"^# Table (\d+)", capsys.readouterr().out, flags=re.MULTILINE) == ["11", "3"]  # as asked
    assert parse_table_names("3, decisions") == ["table3", "decisions"]


def test_the_papers_tables_in_any_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main(["--paper", "--table", "2", "--format", "md"])
    out = capsys.readouterr().out
    assert "# Table 2a. Pretraining" in out and "| learning rate | 2e-5 | 1e-5 |" in out
    tables.main(["--paper", "--table", "11,1", "--format", "csv"])
    assert capsys.readouterr().out.startswith("category,RefinedWeb,FineWeb-Edu,DCLM\n")
    tables.main(["--paper", "--out", str(tmp_path / "out")])
    capsys.readouterr()
    assert len([*(tmp_path / "out").glob("*.tex")]) == 12  # eleven tables, the second in halves
    tables.main(["--runs", str(tmp_path / "none"), "--table", "10", "--format", "csv"])
    done = capsys.readouterr()
    assert done.out.startswith("scale,Commonsense") and "no study with scores" in done.err
    with pytest.raises(SystemExit) as stop:
        tables.main(["--paper", "--table", "decisions"])
    assert stop.value.code == 2 and "no table 'decisions' in the paper" in capsys.readouterr().err
