"""All that there is to do on a machine with one GPU, by one command that ends within five minutes on an H200.

    python tests/gpu/measure.py OUT                      every step
    python tests/gpu/measure.py OUT --only scoring       one step, or several
    python tests/gpu/measure.py OUT --tiny               on any machine, at tiny sizes: does it work?
    python tests/gpu/measure.py --wheels                 what to carry to a machine that has PyTorch but no network

In: this checkout; the project need not be installed. Out: a JSON file a step in the folder OUT, written when the step
ends, also where it fails or its time is over; what it had measured by then is in it. Steps are processes of their own,
so that none can take the time or the memory of the next. Exit code 1 where a step failed. Only the standard library is
imported here: the script has to run before anything is installed, in order to say what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
WHEELS = {
    "megatron": "megatron-core",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
}
"""Module -> package: what an image with PyTorch, transformers and the usual libraries does not have."""
LINES_KEPT = 60
"""Last lines of a step's output that its file keeps."""
LINES_SHOWN = 25
TINY_LIMIT_S = 300
"""Limit of each step with --tiny; it is generous, for machines that have other work."""
GRACE_S = 5
"""Between the request to end and the end."""


@dataclass(frozen=True)
class Step:
    limit_s: int
    command: Sequence[str]
    """After `python`; `{file}` is where it writes what it measures."""
    tiny: Sequence[str]
    """The same at sizes of seconds on a CPU."""


def _training(config: str, tiny: str) -> Step:
    script, compared = "tests/perf/train_throughput.py", ["ours, compiled", "megatron-core", "PyTorch, compiled"]
    measured = [script, "--rounds", "1", "--micro-batches", "2", "--contenders", *compared]
    return Step(
        75,
        [*measured, "--config", config, "--output", "{file}"],
        [script, "--quick", "--config", tiny, "--output", "{file}"],
    )


STEPS = {
    "tests": Step(
        80,
        ["-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-rA", "-p", "no:cacheprovider"],
        ["-m", "pytest", "tests/gpu/test_gpu_attention.py", "-m", "not gpu", "-q", "-rA", "-p", "no:cacheprovider"],
    ),
    "attention": Step(
        25,
        ["tests/gpu/attention_times.py", "--output", "{file}"],
        ["tests/gpu/attention_times.py", "--tiny", "--output", "{file}"],
    ),
    "training_240m": _training("240m.yaml", "mini_s.yaml"),
    "training_1b": _training("1b.yaml", "mini_m.yaml"),
    "scoring": Step(
        40,
        ["tests/gpu/scoring_times.py", "--output", "{file}"],
        ["tests/gpu/scoring_times.py", "--tiny", "--output", "{file}"],
    ),
}
"""Steps in the order of their worth: the limits sum to five minutes, and a machine may be taken away before."""


def run(name: str, step: Step, out: Path, *, tiny: bool) -> bool:
    """Run a step and write OUT/NAME.json; was all of it done?"""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    arguments = [argument.replace("{file}", str(file)) for argument in (step.tiny if tiny else step.command)]
    log = out / f".{name}.log"
    limit_s = TINY_LIMIT_S if tiny else step.limit_s
    print(f"{name}: at most {limit_s} s", flush=True)
    began = time.monotonic()
    with log.open("w") as output:
        # A session of its own: torch.compile and pytest start further processes, which must end with the step.
        process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        _end(process)
    lines = log.read_text(errors="replace").splitlines()[-LINES_KEPT:]
    log.unlink()
    measured = None
    with contextlib.suppress(OSError, json.JSONDecodeError):
        measured = json.loads(file.read_text())
    ended = "done" if code == 0 else f"failed (exit code {code})" if code is not None else "out of time"
    record = {
        "step": name,
        "ended": ended,
        "wall_s": round(time.monotonic() - began, 1),
        "limit_s": limit_s,
        "command": "python " + " ".join(step.tiny if tiny else step.command).replace("{file}", "FILE"),
        "measured": measured,
        "last_lines": lines,
    }
    file.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(f"    {line}" for line in lines[-LINES_SHOWN:]))
    print(f"{name}: {ended} after {record['wall_s']} s", flush=True)
    return code == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a step and of the processes that it started."""
    for notice, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        try:
            os.killpg(process.pid, notice)
        except ProcessLookupError:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


def wheels() -> list[str]:
    """Requirements as constraints.txt pins them for Python 3.12 and newer."""
    pins = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if "<" not in marker:
            pins[requirement.partition("==")[0]] = requirement
    return [pins[package] for package in WHEELS.values()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder that gets the JSON files")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on whatever device there is")
    parser.add_argument("--wheels", action="store_true", help="print the requirements to carry, for pip download -r")
    options = parser.parse_args(argv)
    if options.wheels:
        print("\n".join(wheels()))
        return 0
    if options.out is None:
        parser.error("OUT is missing: the folder that gets the JSON files")
    if missing := [package for module, package in WHEELS.items() if find_spec(module) is None]:
        parser.error(
            f"not installed: {', '.join(missing)}. Where there is a network: python tests/gpu/measure.py --wheels > "
            "wheels.txt; pip download --no-deps --python-version 3.12 --only-binary :all: -d WHEELS -r wheels.txt. "
            "Here: pip install --no-index --no-deps --target SITE WHEELS/*; export PYTHONPATH=SITE"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    done = [run(name, STEPS[name], options.out.resolve(), tiny=options.tiny) for name in STEPS if name in options.only]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
