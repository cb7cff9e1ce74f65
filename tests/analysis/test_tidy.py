"""One's own numbers as a study: what is believed, what is refused, and that the protocols see the numbers given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.panel.load import load_panel
from analysis.tables.catalogue import build_tables
from analysis.tidy.__main__ import main
from analysis.tidy.table import write_tidy
from configs.errors import ArtifactError
from configs.layout import PROJECT_ROOT, StudyFolder


def tidy(models: int = 12, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for m in range(models):
        for benchmark, category in (("riddles", "puzzles"), ("mazes", "puzzles"), ("piqa", "")):
            early = random.random()
            for stage, value in (("PT", early), ("SFT", 0.5 * early + 0.2 * random.random())):
                rows.append(
                    {
                        "model": f"model {m:02}",
                        "group": "AB"[m % 2],
                        "stage": stage,
                        "benchmark": benchmark,
                        "category": category,
                        "value": value,
                        "stderr": 0.01,
                        "n": 300,
                    }
                )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_protocols_see_the_numbers_given(suffix: str, tmp_path: Path) -> None:
    frame = tidy().sample(frac=1, random_state=1)  # the order of rows is nobody's business
    path = tmp_path / f"own.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    main([str(path), "--study", "own", "--runs", str(tmp_path)])
    panel = load_panel(StudyFolder(tmp_path, "own"))
    assert panel.benchmarks == ("piqa", "mazes", "riddles") and panel.categories == ("Commonsense", "puzzles")
    assert panel.displays["piqa"] == "PIQA" and panel.displays["mazes"] == "mazes"
    assert panel.scales == ("all",) and len(panel.mixtures) == 12
    assert panel.web_blocks() == tuple(m % 2 for m in range(12))
    built = {table.name: table for table in build_tables(panel, ("table5", "calibration"))}
    for slug in panel.benchmarks:
        wide = frame[frame["benchmark"] == slug].pivot(index="model", columns="stage", values="value")
        row = next(r for r in built["table5"].rows if r.keys[1] == "accuracy" and r.keys[3] == panel.displays[slug])
        assert row.estimate.value == pytest.approx(stats.pearsonr(wide["PT"], wide["SFT"]).statistic)
        assert row.estimate.n == 12 and row.paper is None and row.estimate.arrangements is not None
    assert all(row.estimate.value is None for row in built["calibration"].rows)
    assert np.allclose(panel.stderr("all", "PT"), 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="stage"), "column stage is missing"),
        (lambda f: f.assign(mood=1), "unknown column mood"),
        (lambda f: f.iloc[:0], "holds no row"),
        (lambda f: f.assign(stage="DPO"), "line 2: stage is neither PT nor SFT: 'DPO'"),
        (lambda f: f.assign(value=[*f["value"][:-1], "many"]), "line 73: value is no number: 'many'"),
        (lambda f: f.assign(value=[np.nan, *f["value"][1:]]), "line 2: value is missing or not finite"),
        (lambda f: f.assign(metric="mood"), "unknown metric: 'mood'"),
        (lambda f: f.assign(model=""), "model is empty"),
        (lambda f: pd.concat([f, f.iloc[[4]]]), "line 74: this number is there twice: 'model 00'"),
        (lambda f: f.assign(category=[f"c{i}" for i in range(len(f))]), "benchmark .* has category 'c"),
        (lambda f: f.assign(group=[str(i) for i in range(len(f))]), "model .* has group"),
    ],
)
def test_what_cannot_be_believed_is_refused_by_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    change(tidy()).to_csv(path, index=False)
    with pytest.raises(ArtifactError) as error:
        write_tidy(path, StudyFolder(tmp_path, "own"))
    assert re.search(message, str(error.value)) and str(path) in str(error.value)
    assert not (tmp_path / "own").exists()


def test_a_table_that_is_none_and_a_study_that_has_scores(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    path.write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ArtifactError, match="not a readable Parquet file"):
        write_tidy(path, StudyFolder(tmp_path, "own"))
    with pytest.raises(ArtifactError, match="no such file"):
        write_tidy(tmp_path / "none.csv", StudyFolder(tmp_path, "own"))
    tidy().to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "own/scores").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="the study has score files"):
        write_tidy(tmp_path / "own.csv", StudyFolder(tmp_path, "own"))


def test_scales_and_seeds_are_kept_apart(tmp_path: Path) -> None:
    parts = [tidy(seed=s).assign(scale=scale, seed=s % 2) for s, scale in enumerate(("1b", "1b", "240m", "240m"))]
    pd.concat(parts).to_csv(tmp_path / "own.csv", index=False)
    write_tidy(tmp_path / "own.csv", StudyFolder(tmp_path, "own"))
    panel = load_panel(StudyFolder(tmp_path, "own"))
    assert panel.scales == ("240m", "1b") and panel.seeds == (0, 1)
    wanted = parts[3].query("stage == 'SFT' and benchmark == 'mazes'").set_index("model")["value"]
    assert np.allclose(panel.over_seeds("240m", "SFT")[1, :, panel.benchmarks.index("mazes")], wanted.sort_index())


@pytest.mark.shared_data
def test_the_worked_example_of_the_page(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code and the commands of docs/own_numbers.md, on the published table."""
    page = (PROJECT_ROOT / "docs/own_numbers.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    (tmp_path / "train_before_test.csv").write_bytes((shared_data / "decisions/train_before_test.csv").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "own_numbers.md", "exec"), {})
    main(["harmony.csv", "--study", "harmony", "--runs", str(tmp_path)])
    panel = load_panel(StudyFolder(tmp_path, "harmony"))
    assert len(panel.mixtures) == 61 and len(panel.benchmarks) == 27
    wide = pd.read_csv("train_before_test.csv")
    built = {t.name: t for t in build_tables(panel, ("table5", "decisions", "fewer_benchmarks"))}
    rows = [row for row in built["table5"].rows if row.keys[1] == "accuracy" and row.estimate.value is not None]
    found = {row.keys[3]: row.estimate for row in rows}
    for task, part in wide.groupby("task"):
        expected = stats.pearsonr(part["direct_eval"], part["train_before_test"]).statistic
        assert found[panel.displays[str(task)]].value == pytest.approx(expected)
    mean = next(row for row in rows if row.keys[2] == "Mean").estimate
    said = " ".join(page.split())
    assert f"mean r over the 24 tasks that all 61 models were scored on is {mean.value:.2f}" in said
    assert all(text in said for text in ("1.00 (HellaSwag)", "0.39 (QNLI), 0.44 (MRPC) and 0.49 (QQP, CoLA)"))
    shown = {"HellaSwag": 1.00, "PIQA": 0.98, "WinoGrande": 0.98, "QNLI": 0.39, "MRPC": 0.44, "QQP": 0.49, "cola": 0.49}
    assert {name: round(found[name].value or 0, 2) for name in shown} == shown
    whole = next(row.estimate for row in built["decisions"].rows if row.keys[2] == "mean of 27 benchmarks")
    one = built["fewer_benchmarks"].rows[0]
    assert f"in {100 * (whole.value or 0):.0f} of 100 cases" in said and one.extra[0][0][0] == "HellaSwag"
    assert f"by the late mean of all tasks in {100 * (one.estimate.value or 0):.0f}." in said
    assert whole.n == one.estimate.n == 53 and "over the 53 models that have them all" in said
    early, late = (
        wide.pivot(index="task", columns="model", values=side) for side in ("direct_eval", "train_before_test")
    )
    every = early.notna().all(axis=1) & late.notna().all(axis=1)
    seen, paid = early[every], late[every].mean()
    pairs = list(itertools.combinations(paid.index, 2))
    alike = [
        100 * np.mean([(one[a] > one[b]) == (paid[a] > paid[b]) for a, b in pairs])
        for one in (seen.mean(), seen.loc["hellaswag"])
    ]
    assert every.sum() == 24 and len(paid) == 61
    assert f"24 tasks and 61 models of the mean r it is {alike[0]:.0f} and {alike[1]:.0f}" in said


@pytest.mark.shared_data
def test_the_example_of_two_sizes_of_the_page(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (PROJECT_ROOT / "docs/own_numbers.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "dclm_evals.csv").write_bytes((shared_data / "decisions/dclm_evals.csv").read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "own_numbers.md", "exec"), {})
    main(["dclm.csv", "--study", "dclm", "--runs", str(tmp_path)])
    panel = load_panel(StudyFolder(tmp_path, "dclm"))
    said = " ".join(page.split())
    assert f"holds {len(panel.mixtures)} data sets" in said and f"and {len(panel.benchmarks)} tasks on which" in said

    wide = pd.read_csv("dclm.csv").pivot(index=["stage", "benchmark"], columns="model", values="value")
    early, late = wide.loc["PT"], wide.loc["SFT"]
    r = {task: stats.pearsonr(early.loc[task], late.loc[task]).statistic for task in early.index}
    built = {t.name: t for t in build_tables(panel, ("table5", "decisions"))}
    found = {row.keys[3]: row.estimate.value for row in built["table5"].rows if row.keys[1] == "accuracy"}
    assert all(found[panel.displays[task]] == pytest.approx(value) for task, value in r.items())
    assert f"mean r over the 53 tasks is {np.mean(list(r.values())):.2f}" in said
    for name, task in (("HellaSwag", "hellaswag"), ("PIQA", "piqa"), ("ARC-Challenge", "arc_challenge")):
        assert f"{name} ({r[task]:.2f})" in said
    for name, task in (("CommonsenseQA", "commonsense_qa"), ("SIQA", "siqa"), ("five-shot MMLU", "mmlu_fewshot")):
        assert f"{name} ({r[task]:.2f})" in said

    small, large = early.mean(), late.mean()
    pairs = list(itertools.combinations(small.index, 2))
    alike = np.mean([(small[a] > small[b]) == (large[a] > large[b]) for a, b in pairs])
    by = {row.keys[2]: row for row in built["decisions"].rows}
    assert by["mean of 53 benchmarks"].estimate.value == pytest.approx(alike)
    assert f"in {100 * alike:.0f} of 100 cases" in said
    assert f"by the science benchmarks alone in {100 * (by['mean of Science'].estimate.value or 0):.0f}" in said
    assert f"is {100 * (large.max() - large[small.idxmax()]):.1f} points behind the best at 7B" in said
