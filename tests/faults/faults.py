"""Disturb a real study at random times, N times, and compare what it ends with.

In: a number of runs and a seed. Out: a progress line for each run, the table of outcomes, and results/faults.json. Each
run is `python study.py run` of a tiny study under 1 to 3 faults (`injections`), driven again until it is through; it is
recovered if every artefact is then, byte for byte, that of the undisturbed study. A run in which a fault hit nothing is
not counted; another is drawn. Before that, every kind of file of the finished study is damaged (`damages`).

    python tests/faults/faults.py --runs 50 --seed 0
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import injections
from damages import Damage, damage_each
from injections import ALL, COMPLETE, DESCRIBED, Broken, Moment, Run, Strike, draw_moment
from small_study import Place, artefacts, seconds_of, temporary_files, write

from configs.artifacts import write_json
from configs.workflow.units import KINDS

RESULTS = Path(__file__).parent / "results" / "faults.json"
PUBLISHED = (50, 0)
"""Runs and first seed of those results."""
DRAWS = 4
"""Of a run, until all of its faults hit something."""


@dataclass
class Outcome:
    seed: int
    strikes: list[Strike] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    """What was deleted because a message said so."""
    differing: list[str] = field(default_factory=list)
    """Artefacts that are not as they should be."""
    broken: str = ""
    """The promise that was not kept."""
    drivers: int = 0
    leftovers: int = 0
    """Temporary files that killed processes left behind."""
    mounted: bool = True
    """False: no small file system could be had for a full disk, and everything was killed instead."""
    draws: int = 0
    seconds: float = 0.0

    @property
    def recovered(self) -> bool:
        return bool(self.strikes) and not self.broken and not self.differing


@dataclass
class Reference:
    """The undisturbed study."""

    place: Place
    seconds: dict[str, float]
    artefacts: dict[str, str]

    @classmethod
    def make(cls, folder: Path) -> Reference:
        place = Place(write(folder), folder / "undisturbed")
        run = Run(place, {}, random.Random(0))
        run.start()
        run.finish()
        return cls(place, seconds_of(place), artefacts(place))


def disturbed(reference: Reference, folder: Path, seed: int) -> Outcome:
    """One run that counts: all of its faults hit something, or it broke."""
    began = time.monotonic()
    for draw in range(DRAWS):
        rng = random.Random(f"{seed}/{draw}")
        outcome = _once(reference, folder / f"run-{seed}-{draw}", seed, plan(seed, rng), rng)
        outcome.draws, outcome.seconds = draw + 1, round(time.monotonic() - began, 1)
        if outcome.strikes or outcome.broken:
            return outcome
    return outcome


def plan(seed: int, rng: random.Random) -> list[tuple[str, Moment]]:
    """1 to 3 faults in the order of their moments; the first fault goes round with the seed, and so does its phase."""
    kinds = list(ALL)
    chosen = [kinds[seed % len(kinds)], *rng.choices(kinds, k=rng.choice((0, 1, 1, 2)))]
    drawn = []
    for number, fault in enumerate(chosen):
        phases = (*KINDS, COMPLETE, COMPLETE) if fault == "corrupt" else KINDS
        kind = phases[seed // len(kinds) % len(phases)] if number == 0 and seed >= len(kinds) else rng.choice(phases)
        drawn.append((fault, draw_moment(rng, kind)))
    return sorted(drawn, key=lambda one: (*KINDS, COMPLETE).index(one[1].kind))


def _once(
    reference: Reference, root: Path, seed: int, faults: Sequence[tuple[str, Moment]], rng: random.Random
) -> Outcome:
    """No strikes: some fault hit nothing."""
    outcome = Outcome(seed)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        if any(name == "fill_disk" for name, _ in faults) and not stack.enter_context(injections.small_disk(root)):
            outcome.mounted = False
            faults = [("kill_all" if name == "fill_disk" else name, moment) for name, moment in faults]
        run = Run(Place(reference.place.study, root), reference.seconds, rng)
        stack.callback(_end_all, run)
        try:
            run.start()
            for name, moment in faults:
                strike = ALL[name](run, moment)
                if strike is None:
                    return Outcome(seed)
                outcome.strikes.append(strike)
            outcome.advice = run.finish()
            _check(run)
        except Broken as broken:
            outcome.broken = str(broken).replace(str(root), "<root>")
            outcome.strikes = outcome.strikes or [Strike(name, moment, "", [])]
            return outcome
        found, wanted = artefacts(run.place), reference.artefacts
        outcome.differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        outcome.drivers, outcome.leftovers = len(run.drivers), temporary_files(run.place)
    return outcome


def _check(run: Run) -> None:
    """After the end: every unit done by its record, nobody left, and the lock free."""
    if undone := [name for name, state in run.place.units().items() if state != "done"]:
        raise Broken(f"exit code 0, and not done: {undone}")
    if left := [pid for driver in run.drivers for pid in driver.left_alive()]:
        raise Broken(f"processes {left} outlived their driver")
    if not run.place.lock_is_free():
        raise Broken("the study is locked, and nobody is there")


def _end_all(run: Run) -> None:
    for driver in run.drivers:
        if driver.alive:
            driver.family()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.process.pid, 9)
            driver.end()


# ---------------------------------------------------------------------------------------------- results


def table(results: dict[str, Any]) -> str:
    """Markdown: of each fault how often it was injected and in which phases, and how its runs ended."""
    times: Counter[str] = Counter()
    recovered: Counter[str] = Counter()
    phases: dict[str, Counter[str]] = {name: Counter() for name in DESCRIBED}
    for outcome in results["runs"]:
        for strike in outcome["strikes"]:
            times[strike["fault"]] += 1
            recovered[strike["fault"]] += outcome["recovered"]
            phases[strike["fault"]].update(strike["phases"])
    lines = ["| fault | times | recovered | units at work when it hit |", "|---|---|---|---|"]
    for name, text in DESCRIBED.items():
        order = (*KINDS, COMPLETE)
        seen = ", ".join(f"{kind} {phases[name][kind]}" for kind in order if phases[name][kind]) or "none"
        lines.append(f"| {text} | {times[name]} | {recovered[name]} | {seen} |")
    good = sum(outcome["recovered"] for outcome in results["runs"])
    lines.append(f"| **all, in {len(results['runs'])} runs** | {times.total()} | {recovered.total()} | |")
    again = sum(outcome["draws"] - 1 for outcome in results["runs"])
    lines += ["", f"{good} of {len(results['runs'])} runs ended with the bytes of the undisturbed study."]
    lines += [f"{again} times a run was drawn again, because a fault had hit nothing."]
    return "\n".join(lines)


def damage_line(results: dict[str, Any]) -> str:
    """Markdown: how many damages of a finished study were recovered from, and to what kinds of files."""
    damages = results["damages"]
    good = [damage for damage in damages if damage["recovered"]]
    named = sum(bool(damage["advice"]) for damage in good)
    kinds = ", ".join(dict.fromkeys(damage["kind"] for damage in damages))
    return f"{len(good)} of {len(damages)} recovered, {named} by a message that named the file or its folder: {kinds}."


def as_results(outcomes: Sequence[Outcome], damages: Sequence[Damage]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make faults",
        "hardware": f"{os.cpu_count()} CPUs {platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "pyarrow")},
        "runs": [asdict(outcome) | {"recovered": outcome.recovered} for outcome in outcomes],
        "damages": [asdict(damage) | {"recovered": damage.recovered} for damage in damages],
    }


def line_of(outcome: Outcome, number: int, total: int, eta_s: float) -> str:
    hits = ", ".join(f"{strike.fault} ({strike.moment}: {strike.hit})" for strike in outcome.strikes) or "no fault hit"
    eta = f"{number}/{total} ETA {eta_s / 60:.0f} min"
    return f"{eta}  seed {outcome.seed}: {hits}: {outcome_words(outcome)}, {outcome.seconds:.0f} s"


def outcome_words(outcome: Outcome | Damage) -> str:
    return "recovered" if outcome.recovered else f"DIFFERS {outcome.differing[:5]}{outcome.broken}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        yield Path(name)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="example: python tests/faults/faults.py --runs 5 --seed 100"
    )
    parser.add_argument("--runs", type=int, default=PUBLISHED[0], metavar="N", help="that count (default: 50)")
    parser.add_argument(
        "--seed", type=int, default=PUBLISHED[1], help="of the first run; the others follow (default: 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the results (default: of these 50, the published)")
    args = parser.parse_args(argv)
    out = args.out or (RESULTS if (args.runs, args.seed) == PUBLISHED else None)
    outcomes: list[Outcome] = []
    damages: list[Damage] = []
    with _folder() as folder:
        print("the undisturbed study", flush=True)
        reference, began = Reference.make(folder), time.monotonic()
        for damage in damage_each(reference.place, reference.artefacts):
            damages.append(damage)
            print(f"{damage.file} {damage.way}: {outcome_words(damage)}", flush=True)
        for number in range(args.runs):
            outcomes.append(disturbed(reference, folder, args.seed + number))
            eta_s = (time.monotonic() - began) / (number + 1) * (args.runs - number - 1)
            print(line_of(outcomes[-1], number + 1, args.runs, eta_s), flush=True)
            if out is not None:
                write_json(out, as_results(outcomes, damages))
    results = as_results(outcomes, damages)
    print(table(results), damage_line(results), sep="\n\n")
    return 0 if all(one.recovered for one in [*outcomes, *damages]) else 1


if __name__ == "__main__":
    sys.exit(main())
