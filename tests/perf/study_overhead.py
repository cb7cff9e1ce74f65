"""What the runner of a study costs beside its units, and how fast its commands answer.

    python tests/perf/study_overhead.py --study mini --work DIR --output tests/perf/results/study.json

The study is run as a user runs it, and its wall time is compared with the end of a simulated run: the same units with
the seconds that each took, started by the same rule, on as many workers, with nothing in between. Then the finished
study is run once more, and `plan paper` and `status` of a study of 1,010 units whose records are written beforehand are
timed as whole processes, medians of some rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.artifacts import write_json
from configs.layout import PROJECT_ROOT
from configs.load import load_study
from configs.workflow.driver import record_done
from configs.workflow.records.records import read_record
from configs.workflow.records.study_file import save_study
from configs.workflow.schedule import schedule
from configs.workflow.units import study_units
from mixtures.sources.identity import read_identities

GOALS = {"overhead": 0.05, "no-op run_s": 3.0, "plan_s": 3.0, "status_s": 1.0}
SEEDS = 7
"""Of the paper's study, which then has 1,010 units."""


def timed(arguments: Sequence[str], rounds: int) -> float:
    """Median seconds of `study.py` as a process; its output goes to this one's error stream."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, str(PROJECT_ROOT / "study.py"), *arguments], check=True, stdout=sys.stderr)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def overhead(name: str, work: Path, workers: int, rounds: int) -> dict[str, float]:
    place = ["--runs", str(work / "runs"), "--data", str(work / "data"), "--workers", str(workers)]
    wall_s = timed(["run", name, *place], 1)
    runs = work / "runs"
    study = load_study(name)
    units = [
        replace(unit, gpus=1) for unit in study_units(study, runs, read_identities(study, work / "data" / "microworld"))
    ]
    records = {unit.name: read_record(runs / study.name, unit.name) for unit in units}
    took = {unit: record.seconds for unit, record in records.items() if record is not None}
    ideal = schedule(units, took, workers)
    return {
        "units": len(units),
        "workers": workers,
        "wall_s": round(wall_s, 1),
        "units_s": round(sum(took.values()), 1),
        "longest chain_s": round(ideal.critical_s, 1),
        "simulated_s": round(ideal.total_s, 1),
        "overhead": round(wall_s / ideal.total_s - 1, 4),
        "no-op run_s": round(timed(["run", name, *place], rounds), 2),
    }


def answers(work: Path, rounds: int) -> dict[str, float]:
    runs = work / "large"
    study = load_study("paper", {"seeds": list(range(SEEDS))})
    save_study(study, None, runs)
    units = study_units(study, runs)
    for unit in units:
        record_done(runs / study.name, unit, "product", 1.0)
    return {
        "plan_s": round(timed(["plan", "paper", "--gpus", "64", "--runs", str(runs)], rounds), 2),
        "status_s": round(timed(["status", "paper", "--runs", str(runs)], rounds), 2),
        "status units": len(units),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="mini")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5, help="of what is a median (default: 5)")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = answers(args.work, args.rounds)
    found |= overhead(args.study, args.work, args.workers, args.rounds)
    for name, value in found.items():
        print(f"{name:<18}{value:>10}" + (f"   goal: below {GOALS[name]}" if name in GOALS else ""))
    if args.output:
        write_json(args.output, found | {"study": args.study})


if __name__ == "__main__":
    main()
