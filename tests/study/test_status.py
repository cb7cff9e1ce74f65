"""What a status says of a study: from records, locks that processes really hold, logs and the lines of trainings."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from tiny_study import write_study

from configs.artifacts import read_json, write_json
from configs.errors import ResourceError
from configs.layout import PROJECT_ROOT
from configs.load import load_study
from configs.workflow.driver import record_done
from configs.workflow.records.leases import (
    Failure,
    current_lease,
    hold_lease,
    last_lease,
    read_failure,
    was_begun,
    write_failure,
)
from configs.workflow.records.records import units_dir
from configs.workflow.records.study_file import save_study
from configs.workflow.status.page import Page, status_page
from configs.workflow.status.survey import Survey, headline, survey
from configs.workflow.status.terminal import view
from configs.workflow.units import Unit, study_units

PRETRAIN = "pretrain/tiny/V1P0/seed0"


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    """Of a study of two mixtures; its folder is <tmp_path>/runs/tiny."""
    return study_units(load_study(write_study(tmp_path, steps=100)), tmp_path / "runs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny"


def named(units: list[Unit], name: str) -> Unit:
    return next(unit for unit in units if unit.name == name)


def words(found: Survey, everything: bool = False) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(view(found, everything))
    return console.export_text()


@contextmanager
def another_process_at_work(folder: Path, unit: str) -> Iterator[subprocess.Popen[str]]:
    script = "import sys, time; from pathlib import Path; from configs.workflow.records.leases import hold_lease\n"
    script += "with hold_lease(Path(sys.argv[1]), sys.argv[2]): print('here', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), unit], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_unit_is_worked_on_by_one_process_and_a_killed_one_holds_nothing(folder: Path) -> None:
    with another_process_at_work(folder, PRETRAIN) as other:
        lease = current_lease(folder, PRETRAIN)
        assert lease is not None and lease.pid == other.pid and abs(time.time() - lease.began) < 60
        with (
            pytest.raises(ResourceError, match=f"at work on {PRETRAIN}: {other.pid} on "),
            hold_lease(folder, PRETRAIN, 0.0),
        ):
            pass
    assert current_lease(folder, PRETRAIN) is None and was_begun(folder, PRETRAIN)
    with hold_lease(folder, PRETRAIN, 0.0):
        assert current_lease(folder, PRETRAIN) is not None
    assert current_lease(folder, PRETRAIN) is None
    last = last_lease(folder, PRETRAIN)
    assert last is not None and last.pid == os.getpid() and f"{os.cpu_count()} CPUs" in last.hardware


def test_who_waits_for_a_unit_gets_it_when_the_other_ends(folder: Path) -> None:
    with another_process_at_work(folder, PRETRAIN) as other:
        other.kill()
        with hold_lease(folder, PRETRAIN, 20.0):
            pass


def test_a_failure_is_forgotten_when_the_unit_is_begun_again(folder: Path) -> None:
    write_failure(folder, PRETRAIN, "no such thing\n", final=False)
    assert read_failure(folder, PRETRAIN) == Failure("no such thing", final=False)
    with hold_lease(folder, PRETRAIN):
        assert read_failure(folder, PRETRAIN) is None


def test_every_state_with_what_a_person_wants_to_know(units: list[Unit], folder: Path) -> None:
    record_done(folder, units[0], "shards", 10.0)
    for name, seconds in ((PRETRAIN, 30.0), ("score/tiny/V1P0/seed0/pt/last", 5.0)):
        record_done(folder, named(units, name), "product", seconds)
    record = units_dir(folder) / "score/tiny/V1P0/seed0/pt/last.json"
    written = read_json(record)
    written["identity"]["scoring"]["sample"] = 9
    write_json(record, written, sealed=True)
    tuned = named(units, "finetune/tiny/V1P0/seed0/tiny")
    (units_dir(folder) / f"{tuned.name}.log").parent.mkdir(parents=True)
    (units_dir(folder) / f"{tuned.name}.log").write_text("one\ntwo\nValueError: \x1b[31m<script>\n")
    write_failure(folder, tuned.name, "ValueError: <script>\n  next:  mend it", final=True)
    with hold_lease(folder, "score/tiny/V1P0/seed0/pt/step-0000010"):
        pass
    running = named(units, "pretrain/tiny/V2P2/seed0")
    assert running.folder is not None and running.run is not None
    running.folder.path.mkdir(parents=True)
    line = {"step": 40, "loss": 2.5, "tokens_per_s": running.run.config.tokens_per_step * 2.0}
    running.folder.metrics.write_text(json.dumps(line) + "\n")
    with another_process_at_work(folder, running.name):
        found = survey(folder, units)
    by_name = {one.unit.name: one for one in found.standings}
    assert {state: len(found.having(state)) for state in ("done", "running", "failed", "stopped", "stale")} == {
        "done": 2,
        "running": 1,
        "failed": 1,
        "stopped": 1,
        "stale": 1,
    }
    assert by_name[running.name].left_s == pytest.approx(60 / 2.0)  # 60 steps at 2 a second
    assert by_name[tuned.name].log == ("one", "two", "ValueError:  [31m<script>")
    assert by_name["score/tiny/V1P0/seed0/pt/last"].reasons == ("scoring.sample 9 -> 8",)
    assert found.left_s is None  # no fine-tuning and no score is done: nobody knows how long they take
    flops = sum(unit.flops for unit in units)
    done = named(units, PRETRAIN).flops + 0.4 * running.flops
    assert found.share == pytest.approx(done / flops)

    said = words(found)
    assert "step 40/100, loss 2.500, 0:30 left" in said and "ValueError: <script>" in said and "| two" in said
    assert "scoring.sample 9 -> 8" in said and "finetune/tiny/V2P2" not in said and "\x1b" not in said
    assert "finetune/tiny/V2P2" in words(found, everything=True)

    page = status_page(found, "report/index.html", now=0.0)
    assert "1970-01-01 00:00:00 UTC" in page and 'http-equiv="refresh"' in page and 'href="report/index.html"' in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert 'http-equiv="refresh"' not in status_page(survey(folder, units))


def test_what_is_left_of_a_study_at_its_present_pace(units: list[Unit], folder: Path) -> None:
    """Scores took 3 s each, fine-tunings 20 s; a fine-tuning and three scores are left, one of them at work."""
    left = ["finetune/tiny/V2P2/seed0/tiny", "score/tiny/V2P2/seed0/pt/last", "score/tiny/V2P2/seed0/sft-tiny/last"]
    took = {"tokenize": 1.0, "pretrain": 9.0, "finetune": 20.0, "score": 3.0}
    for unit in units:
        if unit.name not in left and unit.kind != "analyse":
            record_done(folder, unit, "product", took[unit.kind])
    with another_process_at_work(folder, left[0]):
        found = survey(folder, units)
    assert found.left_s == pytest.approx(20.0 + 2 * 3.0, abs=5.0)  # a moment has passed
    assert "1 unit at work, about 0:2" in headline(found)


def test_what_only_follows_from_a_stale_unit_is_counted_not_named(units: list[Unit], folder: Path) -> None:
    for unit in units:
        record_done(folder, unit, "product", 1.0)
    record = units_dir(folder) / f"{PRETRAIN}.json"
    written = read_json(record)
    written["identity"]["optimizer"]["lr"] = 0.5
    write_json(record, written, sealed=True)
    said = words(survey(folder, units))
    assert "optimizer.lr 0.5 -> 0.01" in said and "made of what is stale" in said and "finetune/tiny/V1P0" not in said
    assert said.count("tiny/V1P0") == 1


def test_the_drivers_page_is_kept_and_a_full_disk_ends_nothing(
    units: list[Unit], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    page = Page(folder, units)
    page.keep()
    assert "0% of its computation done" in (folder / "status.html").read_text()
    (folder / "status.html").unlink()
    page.keep()  # not yet again
    assert not (folder / "status.html").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("configs.workflow.status.page.write_text", full)
    page.keep(at_once=True)


def test_the_command(units: list[Unit], folder: Path, tmp_path: Path) -> None:
    save_study(load_study(tmp_path / "tiny_study.yaml"), None, tmp_path / "runs")
    command = [sys.executable, str(PROJECT_ROOT / "study.py"), "status", "tiny", "--runs", str(tmp_path / "runs")]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "nobody is at work on it" in plain and "report: not yet" in plain
    every = subprocess.run([*command, "--all"], capture_output=True, text=True, check=True).stdout
    assert all(unit.name in every for unit in units)
    subprocess.run([*command, "--watch"], capture_output=True, text=True, check=True, timeout=60)
    subprocess.run([*command, "--html", str(tmp_path / "at.html")], capture_output=True, text=True, check=True)
    page = (tmp_path / "at.html").read_text()
    assert "0/2" in page and "No report yet" in page
    report = folder / "report" / "index.html"
    report.parent.mkdir()
    report.touch()
    subprocess.run([*command, "--html", str(tmp_path / "at.html")], capture_output=True, text=True, check=True)
    assert f'href="{report.resolve().as_uri()}"' in (tmp_path / "at.html").read_text()
    piped = subprocess.run(f"{shlex.join(command)} --all | head -1", shell=True, capture_output=True, text=True)
    assert piped.stdout.startswith("tiny: 0%") and "Traceback" not in piped.stderr
