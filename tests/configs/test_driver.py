"""What a driver does around the dispatch: units made again, and what is at work when it is asked to end."""

from __future__ import annotations

import functools
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest
from test_dispatch import unit

from configs.errors import ResourceError
from configs.workflow import driver
from configs.workflow.claims import Failure, failure
from configs.workflow.dispatch import Event, WorkerDied, dispatch
from configs.workflow.local import LocalWorkers
from configs.workflow.records import State, read_record, record_file
from configs.workflow.units import Unit


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
    driver.finish(tmp_path, old, "old", 1.0)
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
    assert read_record(tmp_path, "analyse") is None and failure(tmp_path, "analyse") == Failure(
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
