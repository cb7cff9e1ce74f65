"""Dispatch of units: everything once and in order, whatever dies; real processes of this machine, really killed."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError, ResourceError
from configs.layout import PROJECT_ROOT
from configs.workflow.status.display import StudyDisplay
from configs.workflow.status.progress import describe_work
from configs.workflow.units import Unit
from configs.workflow.workers.dispatch import ATTEMPTS, Event, WorkerDied, dispatch
from configs.workflow.workers.local import LocalWorkers


def unit(name: str, *inputs: str, gpus: int = 0) -> Unit:
    return Unit(f"u/{name}", tuple(f"u/{i}" for i in inputs), {}, gpus=gpus)


class Threads:
    """Workers that keep count; `troubles`: unit -> errors that its first attempts end with."""

    patience_s = 0.0

    def __init__(self, limit: int, troubles: dict[str, list[BaseException]]) -> None:
        self.pool, self.limit, self.troubles = ThreadPoolExecutor(8), limit, troubles
        self.running: set[str] = set()
        self.finished: list[str] = []
        self.attempts: dict[str, int] = {}

    def room(self, unit: Unit) -> bool:
        return len(self.running) < self.limit

    def start(self, unit: Unit) -> Future[str]:
        assert set(unit.inputs) <= set(self.finished) and unit.name not in self.running
        self.running.add(unit.name)
        self.attempts[unit.name] = self.attempts.get(unit.name, 0) + 1
        assert len(self.running) <= self.limit
        return self.pool.submit(self._do, unit)

    def _do(self, unit: Unit) -> str:
        try:
            left = self.troubles.get(unit.name, [])
            if left:
                raise left.pop(0)
            self.finished.append(unit.name)
            return f"product of {unit.name}"
        finally:
            self.running.discard(unit.name)


TROUBLES = {
    "none": [],
    "dies once": [WorkerDied()],
    "dies thrice": [WorkerDied(), OSError(), WorkerDied()],
    "dies always": [WorkerDied()] * ATTEMPTS,
    "a mistake": [ConfigError("no such thing")],
    "a bug": [ZeroDivisionError()],
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_unit_is_done_once_but_for_what_hangs_on_a_failure(data: st.DataObject) -> None:
    units: list[Unit] = []
    for i in range(data.draw(st.integers(1, 8))):
        inputs = data.draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set()
        units.append(unit(str(i), *map(str, sorted(inputs))))
    trouble = {u.name: data.draw(st.sampled_from(sorted(TROUBLES))) for u in units}
    workers = Threads(data.draw(st.integers(1, 3)), {name: list(TROUBLES[kind]) for name, kind in trouble.items()})
    events: list[Event] = []
    failed = dispatch(units, workers, {u.name: 1.0 for u in units}, events.append, pause_s=0.001)

    hopeless = {name for name, kind in trouble.items() if kind in ("dies always", "a mistake", "a bug")}
    lost: set[str] = set()
    for u in units:
        if u.name in hopeless or lost & set(u.inputs):
            lost.add(u.name)
    assert sorted(workers.finished) == sorted({u.name for u in units} - lost)  # once each
    assert set(failed) == {u.name for u in units if u.name in hopeless and not lost & set(u.inputs)}
    for name, tries in workers.attempts.items():
        assert tries == min(ATTEMPTS, 1 + len(TROUBLES[trouble[name]])) if "dies" in trouble[name] else tries == 1
    done = {e.unit.name: e.product for e in events if e.kind == "done" and e.unit}
    assert done == {name: f"product of {name}" for name in workers.finished}


def test_the_longest_way_to_the_end_goes_first() -> None:
    units = [unit("short"), unit("long"), unit("after", "long"), unit("middling")]
    weight = {"u/short": 1.0, "u/long": 3.0, "u/after": 4.0, "u/middling": 5.0}
    workers = Threads(1, {})
    assert not dispatch(units, workers, weight, lambda event: None)
    assert workers.finished == ["u/long", "u/middling", "u/after", "u/short"]


def test_a_unit_that_there_is_never_room_for_is_refused() -> None:
    class Small(Threads):
        def room(self, unit: Unit) -> bool:
            return unit.gpus <= 1 and super().room(unit)

    workers = Small(1, {})
    with pytest.raises(ResourceError, match="u/big needs 8 GPUs at once"):
        dispatch([unit("a"), unit("big", gpus=8)], workers, {"u/a": 1.0, "u/big": 9.0}, lambda event: None)
    assert workers.finished == ["u/a"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("no such thing"), "no such thing"),
        (WorkerDied("it died"), "it died"),
        (AssertionError(), "AssertionError: "),  # without a word, as ours are
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_every_error_has_a_line_in_the_display(
    error: BaseException, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    display = StudyDisplay(tmp_path, [unit("a")], set(), {"u/a": 1.0})
    display.handle(Event("started", unit("a")))
    display.handle(Event("failed", unit("a"), error=error))
    assert capsys.readouterr().out == f"u/a failed: {words}\n"


def test_tokenizing_is_told_by_its_log(tmp_path: Path) -> None:
    tokenize = Unit("tokenize", (), {})
    assert describe_work(tokenize, tmp_path) == "tokenize"
    (tmp_path / "units").mkdir()
    (tmp_path / "units/tokenize.log").write_text("wikipedia: 3 of 9 files\nwikipedia: 4 of 9 files\nwikip")
    assert describe_work(tokenize, tmp_path) == "wikipedia: 4 of 9 files"


# ---------------------------------------------------------------------------------------------- real processes


def work(folder: Path, unit: Unit) -> str:
    """Leave a note of who did it; a unit `dies…` kills its process at the first attempt."""
    with (folder / unit.name.replace("/", "-")).open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    if "dies" in unit.name and len((folder / unit.name.replace("/", "-")).read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"


def outcome(folder: Path, unit: Unit, code: int) -> str:
    if code:
        raise WorkerDied(f"exit code {code}")
    return (folder / unit.name.replace("/", "-")).read_text()


def local(folder: Path, workers: int, gpus: int = 0, command: Sequence[str] = ()) -> LocalWorkers:
    return LocalWorkers(
        functools.partial(work, folder),
        lambda unit, launch: [part.format(unit.name.replace("/", "-")) for part in command],
        functools.partial(outcome, folder),
        workers,
        gpus,
    )


def pids(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().split() for path in folder.iterdir() if path.is_file()}


def test_a_process_serves_many_units_and_one_that_dies_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    units = [unit("a"), unit("dies"), unit("b", "dies"), unit("c"), unit("d")]
    events: list[Event] = []
    with local(tmp_path, workers=2) as workers:
        assert not dispatch(units, workers, {u.name: 1.0 for u in units}, events.append, pause_s=0.01)
    tried = pids(tmp_path)
    assert {name: len(found) for name, found in tried.items()} == {"u-a": 1, "u-dies": 2, "u-b": 1, "u-c": 1, "u-d": 1}
    assert len({found[-1] for found in tried.values()}) <= 3  # two processes and the one that took the dead one's place
    (retried,) = (event for event in events if event.kind == "retried")
    assert retried.unit == units[1] and "died" in str(retried.error)
    assert {event.product for event in events if event.kind == "done"} == {f"{max(1, (os.cpu_count() or 1) // 2)} "}


def test_units_of_several_gpus_are_commands_on_gpus_that_nobody_else_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    script = "import os, sys, time; time.sleep(0.3); open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    units = [unit("both", gpus=2), unit("one", gpus=1), unit("more", gpus=2), unit("cpu")]
    events: list[Event] = []
    command = [sys.executable, "-c", script, str(tmp_path / "{}")]
    with local(tmp_path, 9, gpus=3, command=command) as workers:
        assert not dispatch(units, workers, {u.name: 1.0 for u in units}, events.append)
    products = {e.unit.name: e.product for e in events if e.kind == "done" and e.unit}
    assert products["u/both"] == "4,5" and products["u/one"].split()[1] == "7"
    assert set(products["u/more"].split(",")) < {"4", "5", "7"}
    failing = local(tmp_path, 9, gpus=2, command=[sys.executable, "-c", "raise SystemExit(3)"])
    with failing as workers:
        failed = dispatch([unit("both", gpus=2)], workers, {"u/both": 1.0}, lambda event: None, pause_s=0.001)
    assert "exit code 3" in str(failed["u/both"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_nobody_works_on_when_the_driver_is_killed(tmp_path: Path) -> None:
    script = (
        "from concurrent.futures import wait\nfrom pathlib import Path\nfrom test_dispatch import local, unit\n"
        "import test_dispatch, time, sys\n"
        f"if __name__ == '__main__':\n workers = local(Path({str(tmp_path)!r}), 2)\n"
        " futures = [workers.start(unit(f'{i}')) for i in range(2)]\n wait(futures)\n print('warm', flush=True)\n"
        " time.sleep(60)\n"
    )
    (tmp_path / "driver").mkdir()
    path = tmp_path / "driver" / "driver.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": f"{PROJECT_ROOT}{os.pathsep}{Path(__file__).parent}"}
    driver = subprocess.Popen([sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "warm\n"
    workers = [psutil.Process(int(found[0])) for name, found in pids(tmp_path).items()]
    assert len(workers) == 2 and all(process.is_running() for process in workers)
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
