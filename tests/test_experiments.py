"""The experiments that are run by hand: each one works at a tiny size, and its record says where it comes from."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from configs.artifacts import read_json
from configs.errors import ConfigError
from configs.layout import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "tests" / "perf"))
sys.path.insert(0, str(PROJECT_ROOT / "tests" / "perf" / "coverage"))
from experiments import EXPERIMENTS, main, run
from reliance import DOCUMENT, updated

FAST = (
    "category_coverage",
    "corrected_correlation",
    "decision_coverage",
    "interval_coverage",
    "printed_numbers",
    "scale_changes",
    "seed_noise_coverage",
    "trust_rule",
)
NEED_REAL_DATA = ("contamination", "many_files", "statistics", "tokenize")


@pytest.mark.parametrize(
    "name",
    [
        *FAST,
        pytest.param("blend", marks=pytest.mark.slow),
        *(pytest.param(name, marks=(pytest.mark.slow, pytest.mark.shared_data)) for name in NEED_REAL_DATA),
    ],
)
def test_a_tiny_run_leaves_a_record(name: str, tmp_path: Path) -> None:
    run(name, results=tmp_path, tiny=True)
    record = read_json(tmp_path / f"{name}.json")
    assert record["experiment"] == name and record["measured"]
    assert record["command"].startswith("python tests/perf/") and str(tmp_path) not in record["command"]
    assert record["wall_s"] > 0 and record["versions"]["numpy"] and record["machine"]


def test_every_script_is_there_and_has_a_tiny_run_or_a_test_of_its_own() -> None:
    elsewhere = {"analysis", "score_cpu", "study", "train_cpu"}  # their own tests run the script
    for name, experiment in EXPERIMENTS.items():
        assert experiment.tests or (PROJECT_ROOT / "tests" / "perf" / f"{experiment.script}.py").is_file(), name
        assert (name in elsewhere) == (experiment.tiny is None), name


def test_the_document_has_the_numbers_of_the_committed_results() -> None:
    """After an experiment: `python tests/perf/coverage/reliance.py`."""
    assert DOCUMENT.read_text() == updated(DOCUMENT.read_text())


def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["decision_cover"])
    message = capsys.readouterr().err
    assert ended.value.code == 2 and "no experiment 'decision_cover'" in message and "decision_coverage" in message


def test_an_experiment_that_fails_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = replace(EXPERIMENTS["decision_coverage"], tiny=("--no-such-option",))
    monkeypatch.setitem(EXPERIMENTS, "decision_coverage", bad)
    with pytest.raises(ConfigError, match="exit code 2"):
        run("decision_coverage", results=tmp_path, tiny=True)
    assert list(tmp_path.iterdir()) == []
