"""Experiments: measurements and tests that take more than two minutes, run by hand; their numbers are committed.

    make experiments                              the list
    make experiments NAME=interval_coverage       one of them, at full size
    make experiments NAME="blend tokenize"        several

In: an experiment's name. Out: tests/perf/results/NAME.json with the command, the commit, the machine, the versions, the
wall time and what was measured, to be committed. Tests run each at a tiny size, so that it works on the day.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.artifacts import read_json, write_json
from configs.errors import ConfigError, user_errors
from configs.layout import PROJECT_ROOT
from configs.runtime.versions import git_commit, machine, versions

RESULTS = PROJECT_ROOT / "tests" / "perf" / "results"
PACKAGES = ("torch", "megatron-core", "ray", "numpy", "scipy", "pandas", "pyarrow", "tokenizers", "tiktoken")
PACKAGES += ("transformers", "lm-eval")


@dataclass(frozen=True)
class Experiment:
    """A script of tests/perf that takes --output FILE, or slow tests that know a full size."""

    asks: str
    """Its question, shown in the list."""
    script: str = ""
    full: Sequence[str] = ()
    """Arguments at full size; `{work}` is an empty folder."""
    tiny: Sequence[str] | None = ()
    """Arguments for a run of seconds; None: a test of its own runs it."""
    tests: Sequence[str] = ()
    """In place of a script: what pytest runs with --full-size."""

    def command(self, output: Path, work: Path, *, tiny: bool) -> list[str]:
        """Arguments of Python."""
        if self.tests:
            size = [] if tiny else ["--full-size"]
            return ["-m", "pytest", *self.tests, *size, "-q", "-m", "not gpu", f"--junit-xml={output}"]
        arguments = [text.replace("{work}", str(work)) for text in (self.tiny or () if tiny else self.full)]
        return [f"tests/perf/{self.script}.py", *arguments, "--output", str(output)]


REAL = ("--documents", "../shared/data")
EXPERIMENTS = {
    "analysis": Experiment(
        "seconds from score files to tables, and beside a loop over scipy", "analysis_throughput", tiny=None
    ),
    "blend": Experiment(
        "seconds for the index of a blend, beside megatron-core's", "bench_blend", tiny=("--repeat", "1")
    ),
    "category_coverage": Experiment(
        "tests and intervals of a category's mean correlation, beside partial pooling",
        "coverage/category_coverage",
        tiny=("--studies", "3"),
    ),
    "contamination": Experiment(
        "megabytes a second of the search for test items", "bench_contamination", REAL, (*REAL, "--planted", "30")
    ),
    "corrected_correlation": Experiment(
        "what correcting a correlation for noise does to it",
        "coverage/corrected_correlation",
        tiny=("--studies", "200", "--resampled", "5"),
    ),
    "decision_coverage": Experiment(
        "coverage of the intervals of decision accuracy and regret",
        "coverage/decision_coverage",
        tiny=("--studies", "4"),
    ),
    "interval_coverage": Experiment(
        "coverage of the intervals of a correlation",
        "coverage/interval_coverage",
        tiny=("--studies", "20"),
    ),
    "many_files": Experiment(
        "6,000 source files beside 6 of the same text",
        "bench_many_files",
        tiny=("--megabytes", "0.5", "--few", "2", "--many", "20"),
    ),
    "printed_numbers": Experiment(
        "coverage of the printed intervals, and how often the printed p-values reject",
        "coverage/printed_numbers",
        tiny=("--studies", "2"),
    ),
    "ray_kills": Experiment(
        "ten actors, nodes and drivers of a Ray cluster killed while they score",
        tests=("tests/ray_eval/workers/test_ray_faults.py",),
    ),
    "scale_changes": Experiment(
        "errors and power of what the report says about changes with scale",
        "coverage/scale_changes",
        full=("--studies", "500"),
        tiny=("--studies", "1"),
    ),
    "score_cpu": Experiment("scoring beside lm-evaluation-harness", "score_throughput", ("--work", "{work}"), None),
    "seed_noise_coverage": Experiment(
        "coverage of the interval of a cost where few seeds tell the noise",
        "coverage/seed_noise_coverage",
        tiny=("--studies", "2"),
    ),
    "statistics": Experiment(
        "megabytes a second of the statistics of the pool", "bench_statistics", REAL, (*REAL, "--repetitions", "1")
    ),
    "study": Experiment("what the runner of a study costs", "study_overhead", ("--work", "{work}"), None),
    "tokenize": Experiment(
        "tokenizing beside megatron-core's tool and the tokenizers alone",
        "bench_tokenize",
        tiny=("--megabytes", "3", "--vocab", "500", "--rounds", "1"),
    ),
    "tokenize_long": Experiment(
        "tokenizing under twenty kills, over two gigabytes, and of documents of 50 MB",
        tests=("tests/mixtures/test_tokenize_long.py",),
    ),
    "trust_rule": Experiment(
        'error rate and power of the verdict "trust"',
        "coverage/trust_rule",
        tiny=("--studies", "10", "--settings", "6"),
    ),
    "train_cpu": Experiment(
        "training beside megatron-core, PyTorch and transformers", "train_throughput", ("--end-to-end",), None
    ),
}


def run(name: str, *, results: Path, tiny: bool = False) -> dict[str, Any]:
    """Run one, and write <results>/<name>.json once it has ended well."""
    experiment = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory() as temporary:
        output, work = Path(temporary) / "measured", Path(temporary) / "work"
        work.mkdir()
        command = experiment.command(output, work, tiny=tiny)
        load, began = os.getloadavg()[0], time.monotonic()
        done = subprocess.run([sys.executable, *command], cwd=PROJECT_ROOT, check=False)
        if done.returncode:
            raise ConfigError(f"{name} ended with exit code {done.returncode}", where=" ".join(command))
        shown = " ".join(command).replace(str(output), "FILE").replace(str(work), "WORK")
        record = {
            "experiment": name,
            "command": f"python {shown}",
            "commit": git_commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "load_average": round(load, 2),
            "versions": {"python": platform.python_version()} | versions(PACKAGES),
            "wall_s": round(time.monotonic() - began, 1),
            "measured": _test_times(output) if experiment.tests else read_json(output),
        }
    write_json(results / f"{name}.json", record)
    return record


def _test_times(junit: Path) -> dict[str, float]:
    """Name of each test that ran -> its seconds."""
    cases = ET.parse(junit).getroot().iter("testcase")
    return {case.attrib["name"]: float(case.attrib["time"]) for case in cases if case.find("skipped") is None}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: list them)")
    parser.add_argument("--tiny", action="store_true", help="at a size of seconds: does it work?")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder for the JSON (default: tests/perf/results)"
    )
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in EXPERIMENTS:
            raise ConfigError(f"no experiment {name!r}", valid=", ".join(EXPERIMENTS))
    if not options.names:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:<24}{experiment.asks}")
    for name in options.names:
        record = run(name, results=options.results, tiny=options.tiny)
        print(f"{name}: {record['wall_s']:,.0f} s; commit {options.results / f'{name}.json'}")


if __name__ == "__main__":
    main()
