"""The study that the fault suite disturbs: two mixtures, one scale, PT and SFT, every step and every source a file.

In: a folder. Out: the real `python study.py run` of it as a process (`Driver`), and what it leaves behind
(`artefacts`), in which two runs of the study must be equal byte for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from tiny_study import write_study

from configs.artifacts import fingerprint, lock_file, read_json, sha256_file
from configs.layout import PROJECT_ROOT
from configs.load import load_study
from configs.workflow.records.leases import LOCK
from configs.workflow.records.records import states
from configs.workflow.units import KINDS, study_units
from mixtures.sources.identity import read_identities

NAME = "tiny"
STEPS = 20
MILESTONE_STEP = 10
POLL_S = 0.03
PATIENCE_S = 300.0
UNLIKE = re.compile(
    r"runs/\w+/(units/|status\.html$)|/checkpoints/|/tensorboard/|/provenance\.json$|\.tmp(/|$)|/\.parts-|\.partial/|\.lock$"
)
"""What tells when, where and how long, or is not finished: records and logs, resume points, curves, temporary names,
and the page of who is at work."""
TIMES = ("tokens_per_s", "memory_gib", "time")
"""Of a line of metrics.jsonl: what is measured, not computed."""


def write(folder: Path) -> Path:
    """The study's YAML, with its configs beside it; small enough that imports are most of its time."""
    path = write_study(folder, steps=STEPS)
    for name in ("tiny.yaml", "tiny_sft.yaml"):
        config = yaml.safe_load((folder / name).read_text())
        config |= {"checkpoint_every_steps": 5, "log_every_steps": 1}
        (folder / name).write_text(yaml.safe_dump(config))
    study = yaml.safe_load(path.read_text())
    study["checkpoint_tokens"] = {"tiny": [MILESTONE_STEP * 4 * 64]}  # 4 sequences of 64 tokens a step
    study["scoring"] = {"sample": 4}
    path.write_text(yaml.safe_dump(study))
    return path


@dataclass
class Place:
    """Where one run of the study lies."""

    study: Path
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "runs" / NAME

    @property
    def data(self) -> Path:
        return self.root / "data"

    def command(self, *more: str) -> list[str]:
        where = ["--data", str(self.data), "--runs", str(self.root / "runs"), "--workers", "2"]
        return [sys.executable, str(PROJECT_ROOT / "study.py"), "run", str(self.study), *where, *more]

    def units(self) -> dict[str, str]:
        """Unit -> done, stale or missing."""
        study = load_study(self.study)
        reads = read_identities(study, self.data / "microworld")
        found = states(self.folder, study_units(study, self.root / "runs", reads))
        return {name: state.kind for name, state in found.items()}

    @property
    def complete(self) -> bool:
        return (self.folder / "units/analyse.json").is_file()

    def lock_is_free(self) -> bool:
        if not self.folder.is_dir():
            return True
        with (self.folder / LOCK).open("a") as stream:
            return lock_file(stream.fileno())


def artefacts(place: Place) -> dict[str, str]:
    """File -> sha256 of everything that must be equal, with the folder's own name left out of pages and configs."""
    found = {}
    for path in sorted(path for path in place.root.rglob("*") if path.is_file()):
        name = path.relative_to(place.root).as_posix()
        if UNLIKE.search(name) or name.startswith("runs/.") or name == "filler":
            continue
        if path.name == "metrics.jsonl":
            found[name] = fingerprint([_computed(line) for line in path.read_text().splitlines()])
        elif path.suffix in (".html", ".json", ".yaml"):
            found[name] = fingerprint(path.read_text().replace(str(place.root), "<root>"))
        else:
            found[name] = sha256_file(path)
    return found


def _computed(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key not in TIMES}


def temporary_files(place: Place) -> int:
    """Left by processes that were killed; harmless as long as nobody takes them for what they were to become."""
    return len([path for path in place.root.rglob("*.tmp") if path.exists()])


def seconds_of(place: Place) -> dict[str, float]:
    """Kind of unit -> how long its longest took, from the records."""
    longest: dict[str, float] = {}
    for path in (place.folder / "units").rglob("*.json"):
        kind = path.relative_to(place.folder / "units").parts[0].removesuffix(".json")
        longest[kind] = max(longest.get(kind, 0.0), read_json(path)["seconds"])
    return longest


@dataclass
class Driver:
    """One `study.py run`; it leads a process group of its own."""

    place: Place
    more: tuple[str, ...] = ()
    process: subprocess.Popen[str] = field(init=False)
    printed: str = ""
    """On its standard output, once it has ended."""
    seen: dict[int, float] = field(default_factory=dict)
    """Process of it -> when that was created."""

    def __post_init__(self) -> None:
        self.place.root.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            self.place.command(*self.more),
            cwd=self.place.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> tuple[int, str]:
        """(exit code, what it said on its error stream)."""
        try:
            self.printed, said = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.printed, said = self.process.communicate()
            said = f"still alive after {PATIENCE_S} s, killed\n{self.printed}\n{said}"
        return self.process.returncode, said

    def family(self) -> list[psutil.Process]:
        """All processes below it."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.seen[process.pid] = process.create_time()
        return found

    def at_work(self) -> dict[str, int]:
        """Unit -> the process that works on it: the one that has its log open."""
        units, found = self.place.folder / "units", {}
        for process in self.family():
            try:
                opened = [str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
            except OSError:
                continue
            for path in opened:
                if path.startswith(f"{units}/") and path.endswith(".log"):
                    found[path.removeprefix(f"{units}/").removesuffix(".log")] = process.pid
        return found

    def left_alive(self) -> list[int]:
        """Processes of it that are there long after its end."""
        deadline = time.monotonic() + 15
        while (left := [pid for pid, born in self.seen.items() if _is_same(pid, born)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def _is_same(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kinds_of(units: dict[str, Any]) -> list[str]:
    return [kind for kind in KINDS if any(name.partition("/")[0] == kind for name in units)]
