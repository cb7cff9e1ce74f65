"""What a driver does around the dispatch: units made again, and what is at work when it is asked to end."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import stat
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from finished_study import write_finished
from test_dispatch import unit

from configs.errors import ResourceError
from configs.load import load_study
from configs.runtime.locks import run_lock
from configs.workflow import driver
from configs.workflow.clean import clean
from configs.workflow.records.leases import LOCK, Failure, hold_lease, read_failure, study_lock
from configs.workflow.records.records import State, read_record, record_file, states
from configs.workflow.records.study_file import open_study
from configs.workflow.units import Unit, study_units
from configs.workflow.workers.dispatch import Event, WorkerDied, dispatch
from configs.workflow.workers.local import LocalWorkers
from configs.workflow.workers.slurm import Cluster
from mixtures.sources.identity import read_identities
from study import Work, emit_slurm, run


class Scripted:
    """Workers whose attempts end as listed: with a product, or an error."""

    def __init__(self, *ends: str | Exception, room: bool = True, patience_s: float = 0.0) -> None:
        self.ends, self.patience_s, self._room = list(ends), patience_s, room
        self.started: list[Unit] = []
        self.asked = 0

    def room(self, unit: Unit) -> bool:
        self.asked += 1
        return self._room or self.asked > 3

    def start(self, unit: Unit) -> Future[str]:
        self.started.append(unit)
        future: Future[str] = Future()
        end = self.ends.pop(0)
        if isinstance(end, str):
            future.set_result(end)
        else:
            future.set_exception(end)
        return future


def again(name: str) -> Unit:
    return Unit(name, (), {}, again=True)


def test_what_a_unit_left_is_removed_once_before_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record goes too: stopped, it is no longer stale, and goes on from where it is."""
    monkeypatch.setattr(driver, "dispatch", functools.partial(dispatch, pause_s=0.001))
    old = Unit("analyse", (), {})
    driver.record_done(tmp_path, old, "old", 1.0)
    removed: list[bool] = []
    workers = Scripted(WorkerDied("gone"), "new")
    stale = {"analyse": State("stale")}
    driver.drive(
        tmp_path,
        [again("analyse")],
        stale,
        workers,
        lambda unit: removed.append(record_file(tmp_path, unit.name).exists()),
    )
    assert removed == [True] and len(workers.started) == 2  # what is made of a unit goes before its record does
    record = read_record(tmp_path, "analyse")
    assert record is not None and record.product == "new"

    with pytest.raises(driver.UnitsFailed):
        driver.drive(tmp_path, [again("analyse")], stale, Scripted(ValueError("no")), lambda unit: None)
    assert read_record(tmp_path, "analyse") is None and read_failure(tmp_path, "analyse") == Failure(
        "ValueError: no", final=True
    )


def test_room_that_may_come_is_waited_for() -> None:
    events: list[Event] = []
    patient = Scripted("product", room=False, patience_s=60.0)
    assert not dispatch([unit("a", gpus=4)], patient, {"u/a": 1.0}, events.append, pause_s=0.001)
    with pytest.raises(ResourceError, match="needs 4 GPUs at once"):
        dispatch([unit("a", gpus=4)], Scripted(room=False), {"u/a": 1.0}, events.append, pause_s=0.001)


@pytest.mark.timeout(60)
def test_room_that_has_gone_is_waited_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a unit that is to be tried again, since its machine has gone."""
    workers = Scripted(WorkerDied("its machine has gone"), patience_s=0.2)
    monkeypatch.setattr(workers, "room", lambda unit: not workers.started)
    with pytest.raises(ResourceError, match="needs 4 GPUs at once, and there are fewer; waited 0 s for more"):
        dispatch([unit("a", gpus=4)], workers, {"u/a": 1.0}, lambda event: None, pause_s=0.001)


def slow_unit(folder: Path, unit: Unit) -> str:
    time.sleep(4)
    (folder / "went on to its end").touch()
    return "product"


def test_a_process_that_is_only_starting_is_stopped_too(tmp_path: Path) -> None:
    workers = LocalWorkers(functools.partial(slow_unit, tmp_path), lambda unit, launch: [], lambda unit, code: "", 2)
    with pytest.raises(KeyboardInterrupt), workers:
        future = workers.start(unit("a"))
        raise KeyboardInterrupt
    assert isinstance(future.exception(), WorkerDied) and not list(tmp_path.iterdir())


def test_a_unit_of_several_gpus_is_asked_to_end_and_leaves_nobody(tmp_path: Path) -> None:
    """SIGTERM reaches the command, which may save; whatever it started ends with it."""
    script = (
        "import pathlib, signal, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "def end(*_): pathlib.Path(sys.argv[1], 'saved').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1], 'child').write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )

    def outcome(unit: Unit, code: int) -> str:
        raise WorkerDied(f"ended with {code}")

    workers = LocalWorkers(str, lambda unit, launch: [sys.executable, "-c", script, str(tmp_path)], outcome, gpus=2)
    with pytest.raises(KeyboardInterrupt), workers:
        future = workers.start(unit("both", gpus=2))
        while not (tmp_path / "child").is_file() or not (tmp_path / "child").read_text():
            time.sleep(0.02)
        raise KeyboardInterrupt
    assert (tmp_path / "saved").is_file() and str(future.exception()) == "ended with 1"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10  # it was killed, and the kernel takes a moment; by itself it would sleep for 60 s
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_study_has_one_driver_over_nfs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_lock(tmp_path):
        with (
            pytest.raises(ResourceError, match="another process is at work on this study"),
            study_lock(tmp_path),
        ):
            pass
        with (
            hold_lease(tmp_path, "analyse", wait_s=0.0),
            pytest.raises(ResourceError),
            hold_lease(tmp_path, "analyse", 0.0),
        ):
            pass
    seen: list[int] = []

    def as_nfs(descriptor: int, operation: int) -> None:
        """An exclusive lock between machines is a POSIX lock: of a file, open for writing."""
        at = os.fstat(descriptor)
        writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        assert stat.S_ISREG(at.st_mode) and writable
        seen.append(at.st_ino)

    monkeypatch.setattr("configs.artifacts.fcntl.flock", as_nfs)
    with study_lock(tmp_path), hold_lease(tmp_path, "analyse"):
        assert seen == [path.stat().st_ino for path in (tmp_path / LOCK, tmp_path / "units/analyse.lock")]

    def without_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("configs.artifacts.fcntl.flock", without_locks)
    with study_lock(tmp_path), hold_lease(tmp_path, "analyse"):
        pass


def test_what_must_be_refused_is_before_anything_is_done(tmp_path: Path) -> None:
    units = [
        Unit("tokenize", (), {"vocab": 1}),
        Unit("pretrain/x", ("tokenize",), {"lr": 1}),
        Unit("score/x", ("pretrain/x",), {"rows": 1}),
    ]
    assert driver.check_stale(tmp_path, units, "refuse")  # nothing is finished
    driver.record_done(tmp_path, units[0], "shards", 1.0)
    assert driver.check_stale(tmp_path, units, "refuse")  # only what is brought up to date anyway
    for done in units[1:]:
        driver.record_done(tmp_path, done, "product", 1.0)
    assert not driver.check_stale(tmp_path, units, "refuse")
    other = [replace(units[0], identity={"vocab": 2}), *units[1:]]
    assert not driver.check_stale(tmp_path, other, "refuse")  # the shards may come out as they were
    changed = [*units[:2], replace(units[2], identity={"rows": 2})]
    with pytest.raises(ResourceError, match=r"1 finished units no longer match[^:]*\n  score/x: rows 1 -> 2"):
        driver.check_stale(tmp_path, changed, "refuse")
    assert driver.check_stale(tmp_path, changed, "redo") and driver.check_stale(tmp_path, changed, "keep")
    record_file(tmp_path, "pretrain/x").unlink()
    assert not driver.check_stale(tmp_path, units, "refuse")  # it is made again first


def test_a_folder_in_which_somebody_trains_by_hand_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unit fails, with the name of the process; the others are done."""
    monkeypatch.setattr("configs.runtime.locks.RUN_WAIT_S", 0.0)
    made = write_finished(tmp_path)
    trained = [replace(unit, again=True) for unit in made.units if unit.kind == "pretrain"]
    busy, free = trained[0].folder, trained[1].folder
    assert busy is not None and free is not None
    stale = {unit.name: State("stale") for unit in trained}
    work = Work(made.study, None, made.data, made.study_folder)
    with run_lock(busy), pytest.raises(driver.UnitsFailed, match=f"at work on {busy.name}: {os.getpid()} on "):
        driver.drive(made.folder, trained, stale, Scripted("product"), work.remove)
    assert busy.done.is_file() and read_record(made.folder, trained[0].name) is not None
    assert not free.path.exists()
    with run_lock(busy), pytest.raises(ResourceError, match=f"another process is at work on {busy.name}"):
        clean(made.folder, made.units, made.data)
    work.remove(trained[0])
    assert not busy.path.exists()


@pytest.mark.parametrize("slurm", [False, True])
def test_a_refused_study_is_as_it_was(tmp_path: Path, slurm: bool) -> None:
    made = write_finished(tmp_path)

    def content() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"}

    before = content()
    study = load_study(tmp_path / "tiny_study.yaml", {"scoring.sample": 4})
    with pytest.raises(ResourceError, match="6 finished units no longer match"):
        if slurm:
            emit_slurm(study, None, made.data, made.runs, tmp_path / "jobs", Cluster())
        else:
            run(study, None, made.data, made.runs, workers=1)
    assert content() == before
    assert {state.kind for state in states(made.folder, made.units).values()} == {"done"}
    if slurm:  # taken as they are, it is begun with what was asked
        emit_slurm(study, None, made.data, made.runs, tmp_path / "jobs", Cluster(), "keep")
        begun, documents = open_study(made.study_folder)
        units = study_units(begun, made.runs, read_identities(begun, documents))
        assert begun.scoring.sample == 4 and {state.kind for state in states(made.folder, units).values()} == {"done"}
