"""The faults: each waits for its moment in a real study at work, strikes, and says what it hit.

In: a `Run` (one study, its driver at work) and a `Moment`. Out: a `Strike`; None where the moment never came, or where
nothing was alive or whole there to be hit, which does not count. After it the study is driven again, or still is.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from small_study import POLL_S, STEPS, Driver, Place, kinds_of

from configs.workflow.units import KINDS

DISK_BYTES = 640_000_000
"""Of the small file system; a driver wants 500 MB free before it begins."""
SOURCES = 10
NOTHING_TO_DO = "nothing was missing"
COUNTED = ("tokenize", "pretrain", "finetune")
"""Kinds of units whose progress can be seen from outside."""
SAVED, REFUSED = 75, 2
STOPPED_S = (0.3, 2.0)
COMPLETE = "complete"
"""The moment behind the last unit's."""
ADVICE_TAKEN = 6
"""Messages in a row that a user may be expected to follow."""


class Broken(Exception):
    """The study did not do what it promises."""


@dataclass(frozen=True)
class Moment:
    """While a unit of `kind` is at work: behind `share` of the time such a unit takes, or once it has got so far."""

    kind: str
    share: float
    by_progress: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.share:.2f}{' of its steps' if self.by_progress else ''}"


@dataclass(frozen=True)
class Strike:
    fault: str
    moment: Moment
    hit: str
    """What was hit."""
    phases: list[str]
    """Kinds of the units that were at work just then."""


@dataclass
class Run:
    place: Place
    seconds: dict[str, float]
    """Kind of unit -> how long one takes undisturbed."""
    rng: random.Random
    driver: Driver = field(init=False)
    drivers: list[Driver] = field(default_factory=list)

    def start(self, *more: str) -> Driver:
        self.driver = Driver(self.place, more)
        self.drivers.append(self.driver)
        return self.driver

    def wait_for(self, moment: Moment) -> dict[str, int] | None:
        """Units at work then; None where the driver ended before."""
        while self.driver.alive:
            units = self.driver.at_work()
            if moment.kind in kinds_of(units):
                break
            time.sleep(POLL_S)
        if moment.by_progress:
            while self.driver.alive and moment.kind in kinds_of(units := self.driver.at_work()):
                if self._progress(moment.kind, units) >= moment.share:
                    break
                time.sleep(POLL_S)
        else:
            until = time.monotonic() + moment.share * self.seconds[moment.kind]
            while self.driver.alive and time.monotonic() < until:
                time.sleep(POLL_S)
        return units if self.driver.alive and (units := self.driver.at_work()) else None

    def _progress(self, kind: str, units: dict[str, int]) -> float:
        """Steps of the training that is furthest, or sources that are tokenized; as a share."""
        if kind == "tokenize":
            return len(list((self.place.data / "tokens").glob("*/*/manifest.json"))) / SOURCES
        stage = "pt" if kind == "pretrain" else "sft-*"
        lines = [path.read_bytes().count(b"\n") for path in self.place.folder.glob(f"tiny/*/*/{stage}/metrics.jsonl")]
        return max(lines, default=0) / STEPS

    def finish(self) -> list[str]:
        """Drive until the study is through, doing what messages say; returns what was deleted. Raises Broken."""
        advice: list[str] = []
        while True:
            code, said = self.driver.end()
            if code == 0:
                return advice
            paths, more = follow_advice(said, self.place.root)
            if code != REFUSED or "Traceback" in said or not (paths or more) or len(advice) > ADVICE_TAKEN:
                raise Broken(f"exit code {code} after {advice}:\n{said[-3000:]}")
            for path in paths:
                remove(path)
            advice += [str(path.relative_to(self.place.root)) for path in paths] or list(more)
            self.drive_again(*more)

    def drive_again(self, *more: str) -> None:
        """After a driver that was ended: all of its processes must be gone, and the lock."""
        if left := self.driver.left_alive():
            raise Broken(f"processes {left} outlived their driver")
        if not self.place.lock_is_free():
            raise Broken("the study is locked, and nobody is there")
        self.start(*more)


Fault = Callable[[Run, Moment], Strike | None]


def kill_driver(run: Run, moment: Moment) -> Strike | None:
    units = run.wait_for(moment)
    if units is None:
        return None
    os.kill(run.driver.process.pid, signal.SIGKILL)
    if run.driver.end()[0] != -signal.SIGKILL:
        return None
    run.drive_again()
    return Strike("kill_driver", moment, "driver", kinds_of(units))


def kill_all(run: Run, moment: Moment) -> Strike | None:
    units = run.wait_for(moment)
    if units is None:
        return None
    os.killpg(run.driver.process.pid, signal.SIGKILL)
    if run.driver.end()[0] != -signal.SIGKILL:
        return None
    run.drive_again()
    return Strike("kill_all", moment, "driver and workers", kinds_of(units))


def kill_worker(run: Run, moment: Moment) -> Strike | None:
    """The driver must try its unit again by itself."""
    units = run.wait_for(moment)
    if units is None:
        return None
    unit = run.rng.choice([name for name in units if name.startswith(moment.kind)] or list(units))
    if not _signalled(units[unit], signal.SIGKILL):
        return None
    psutil.wait_procs([p for p in run.driver.family() if p.pid == units[unit]], timeout=10)
    return Strike("kill_worker", moment, unit, kinds_of(units))


def stop_worker(run: Run, moment: Moment) -> Strike | None:
    """A machine that stands still for a while."""
    units = run.wait_for(moment)
    if units is None:
        return None
    unit = run.rng.choice([name for name in units if name.startswith(moment.kind)] or list(units))
    if not _signalled(units[unit], signal.SIGSTOP):
        return None
    time.sleep(run.rng.uniform(*STOPPED_S))
    stood = _status(units[unit]) == psutil.STATUS_STOPPED and run.driver.alive
    _signalled(units[unit], signal.SIGCONT)
    return Strike("stop_worker", moment, unit, kinds_of(units)) if stood else None


def terminate(run: Run, moment: Moment) -> Strike | None:
    units = run.wait_for(moment)
    if units is None:
        return None
    run.driver.process.terminate()
    code, said = run.driver.end()
    if code == 0:  # its last unit was done
        return None
    if code != SAVED or "the same command goes on" not in said or "Traceback" in said:
        raise Broken(f"exit code {code} after SIGTERM:\n{said[-3000:]}")
    run.drive_again()
    return Strike("terminate", moment, "driver", kinds_of(units))


def second_driver(run: Run, moment: Moment) -> Strike | None:
    """It must be turned away, and the first go on."""
    units = run.wait_for(moment)
    if units is None:
        return None
    second = Driver(run.place)
    code, said = second.end()
    run.drivers.append(second)
    if code == 0 and not run.driver.alive and NOTHING_TO_DO in second.printed:  # the first had ended before
        return None
    if code != REFUSED or "another process is at work on this study" not in said or str(run.place.folder) not in said:
        raise Broken(f"the second driver ended with {code}:\n{said[-3000:]}")
    return Strike("second_driver", moment, "second driver", kinds_of(units))


def fill_disk(run: Run, moment: Moment) -> Strike | None:
    """Everything that is written from now on fails, until there is room again."""
    units = run.wait_for(moment)
    if units is None:
        return None
    filler = run.place.root / "filler"
    with filler.open("wb") as stream:
        _fill(stream.fileno())
    code, said = run.driver.end()
    filler.unlink()
    if code == 0:  # nothing was written any more
        return None
    if code != REFUSED or "space" not in said or "Traceback" in said:
        raise Broken(f"exit code {code} on a full disk:\n{said[-3000:]}")
    run.drive_again()
    return Strike("fill_disk", moment, "file system", kinds_of(units))


def corrupt(run: Run, moment: Moment) -> Strike | None:
    """Damage a finished file of a study whose driver was killed or is through; it must be named, or be made anew."""
    if moment.kind == COMPLETE:
        run.finish()
        units = {}
    else:
        found_at_work = run.wait_for(moment)
        if found_at_work is None:
            return None
        units = found_at_work
        os.kill(run.driver.process.pid, signal.SIGKILL)
        run.driver.end()
        run.driver.left_alive()
    found = finished_files(run.place)
    if not found:
        run.drive_again()
        return None
    victim = run.rng.choice(found[run.rng.choice(sorted(found))])
    what = damage(victim, run.rng)
    run.drive_again()
    return Strike("corrupt", moment, f"{what} {victim.relative_to(run.place.root)}", kinds_of(units) or [COMPLETE])


ALL: dict[str, Fault] = {
    "kill_driver": kill_driver,
    "fill_disk": fill_disk,
    "corrupt": corrupt,
    "kill_worker": kill_worker,
    "terminate": terminate,
    "second_driver": second_driver,
    "kill_all": kill_all,
    "stop_worker": stop_worker,
}
DESCRIBED = {
    "kill_driver": "`kill -9` of the driver",
    "kill_worker": "`kill -9` of the process that works on a unit",
    "kill_all": "`kill -9` of the driver and its workers at once",
    "terminate": "SIGTERM to the driver",
    "stop_worker": "SIGSTOP of a worker for 0.3 to 2 s, then SIGCONT",
    "second_driver": "a second driver of the same study",
    "fill_disk": "the file system is full, later it has room",
    "corrupt": "a finished file is cut short, or one bit of it flipped, while no driver runs",
}


def finished_files(place: Place) -> dict[str, list[Path]]:
    """Kind -> files that are complete by the study's own rules: their unit has its record, their folder its manifest.

    Checkpoints are those of trainings that still need them.
    """
    units, runs, data = place.folder / "units", place.folder, place.data
    recorded = [path.relative_to(units).with_suffix("").as_posix() for path in units.rglob("*.json")]
    found: dict[str, list[Path]] = {"record": [units / f"{name}.json" for name in recorded]}
    if "tokenize" in recorded:
        found["shard"] = sorted([*data.glob("tokens/*/*/*.bin"), *data.glob("tokens/*/*/*.idx")])
        found["manifest"] = [
            path
            for kind in ("tokenizers/*", "tokens/*/*", "sft/*/*")
            for path in sorted(data.glob(f"{kind}/manifest.json"))
        ]
        found["SFT set"] = sorted(data.glob("sft/*/*/*.npy"))
    found["export"] = sorted(
        path.parent / name
        for path in runs.glob("tiny/*/*/*/export/*/export.json")
        for name in ("model.safetensors", "export.json", "config.json")
    )
    found["checkpoint"] = [
        path
        for path in sorted(runs.glob("tiny/*/*/*/checkpoints/step-*/*"))
        if not (path.parents[2] / "DONE").is_file()
    ]
    found["DONE"] = sorted(runs.glob("tiny/*/*/*/DONE"))
    found["scores"] = [path for path in sorted(runs.glob("scores/**/*.parquet")) if _scored(path, runs, recorded)]
    found["metrics"] = [runs / "metrics.parquet"] if "analyse" in recorded else []
    return {kind: files for kind, files in found.items() if files}


def _scored(path: Path, runs: Path, recorded: list[str]) -> bool:
    """Whether the record of a score file was written: `last` is the name of the unit of the last step."""
    where = path.parent.relative_to(runs / "scores").as_posix()
    return f"score/{where}/{path.stem}" in recorded or f"score/{where}/last" in recorded


def damage(path: Path, rng: random.Random) -> str:
    if rng.random() < 0.5:
        cut(path, rng)
        return "truncated"
    flip(path, rng)
    return "bit flipped in"


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flip(path: Path, rng: random.Random) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def follow_advice(said: str, root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """(files and folders that a message says to delete, further arguments that it asks for)."""
    if "--stale redo" in said:
        return [], ("--stale", "redo")
    paths = [Path(text.rstrip(".,;:")) for text in re.findall(rf"delete ({re.escape(str(root))}[^\s,;:]*)", said)]
    if not paths and re.search(r"delete (it|the)\b", said):
        paths = [Path(text.rstrip(".,;:")) for text in re.findall(rf"{re.escape(str(root))}[^\s,;:]*", said)]
        paths = [path for path in paths if path.exists() and path.suffix != ".log"][:1]
    return [path for path in paths if path.exists()], ()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def small_disk(root: Path) -> Iterator[bool]:
    """A file system of `DISK_BYTES` at `root`; False where this machine does not allow one."""
    root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(root)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


def _fill(descriptor: int) -> None:
    """Take every block that is free."""
    size, piece = 0, 1 << 26
    while piece >= 4096:
        try:
            os.posix_fallocate(descriptor, size, piece)
            size += piece
        except OSError:
            piece //= 2


def _signalled(pid: int, number: int) -> bool:
    """Whether the signal reached a live process."""
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
        os.kill(pid, number)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def _status(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def draw_moment(rng: random.Random, kind: str | None = None) -> Moment:
    kind, share, by_progress = kind or rng.choice(KINDS), round(rng.random(), 3), rng.random() < 0.5
    return Moment(kind, share, by_progress and kind in COUNTED)
