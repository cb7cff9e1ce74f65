"""How fast score files become numbers: a study of the paper's size, and correlations beside a plain scipy loop.

    python tests/perf/analysis_throughput.py --output tests/perf/results/analysis.json
    python tests/perf/analysis_throughput.py --quick

36 checkpoints answer 20 benchmarks at the sizes of Table 4: 3.1 million rows with nested lists, made from known truth.
Each step is a process of its own, one thread, from its start to its end.

    metrics        python -m analysis.scores.metrics: read, checked, hashed; metrics and single answers written
    everything     python -m analysis.report after it: all protocols with 10,000 bootstrap draws and exact permutations,
                   tables, figures, report

The scipy loop does what Table 5 says of a correlation, one benchmark after another, with a call of scipy a resample: r
and its Fisher interval, 10,000 bootstrap draws, all 362,880 orders. It is run on a share of the draws and orders, and
its time is multiplied.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "analysis"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow.parquet as pq
from scipy import stats
from simulated_study import paper_sizes, write_simulated

from analysis.stats.association import correlate
from analysis.stats.resampling import DRAWS, all_orders, bootstrap_counts
from configs.artifacts import write_json
from configs.errors import user_errors
from configs.layout import StudyFolder

PROJECT = Path(__file__).resolve().parents[2]
STUDY = "simulated"


def timed(command: Sequence[str], bytecode: Path) -> dict[str, Any]:
    """A process from its start to its end; its output is shown if it fails."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=PROJECT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        assert process.returncode == 0, output.read().decode()
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_bytes": used.ru_maxrss * 1024,
    }


def study_steps(root: Path, share: float) -> dict[str, Any]:
    # In a process of its own: what this one holds would count as what its children hold.
    timed(["tests/perf/analysis_throughput.py", "--simulate", str(root), "--share", str(share)], root / "bytecode")
    files = list(StudyFolder(root, STUDY).scores.rglob("*.parquet"))
    steps = {
        "rows": sum(pq.read_metadata(path).num_rows for path in files),
        "bytes": sum(path.stat().st_size for path in files),
    }
    given = ["--runs", str(root), "--study", STUDY]
    derive = "import sys; from pathlib import Path; from analysis.scores.metrics import write_metrics; "
    derive += "from configs.layout import StudyFolder; write_metrics(StudyFolder(Path(sys.argv[1]), sys.argv[2]))"
    timed(["-c", "import analysis.scores.gather, analysis.scores.metrics"], root / "bytecode")
    steps["metrics"] = timed(["-c", derive, str(root), STUDY], root / "bytecode")
    stamp = StudyFolder(root, STUDY).metrics.stat().st_mtime_ns
    steps["everything"] = timed(["-m", "analysis.report", *given], root / "bytecode")
    assert StudyFolder(root, STUDY).metrics.stat().st_mtime_ns == stamp, "metrics were derived twice"
    return steps


def correlations(rounds: int, share: float) -> dict[str, Any]:
    """20 benchmarks over nine mixtures, as Table 5's column."""
    x, y = np.random.default_rng(0).normal(size=(2, 20, 9))

    def ours() -> None:
        bootstrap_counts.cache_clear()
        all_orders.cache_clear()
        correlate(x, y, "mixtures")

    def loop() -> None:
        random = np.random.default_rng(1)
        for a, b in zip(x, y, strict=True):
            result = stats.pearsonr(a, b)
            result.confidence_interval()
            for _ in range(round(share * DRAWS)):
                drawn = random.integers(0, 9, 9)
                stats.pearsonr(a[drawn], b[drawn])
            for _ in range(round(share * 362_880)):
                stats.pearsonr(a, random.permutation(b))

    walls: dict[str, list[float]] = {"ours": [], "scipy loop": []}
    contenders: list[tuple[str, Callable[[], None], float]] = [("ours", ours, 1.0), ("scipy loop", loop, 1 / share)]
    for number in range(rounds):
        for name, run, times in contenders[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            run()
            walls[name].append(round((time.perf_counter() - start) * times, 3))
    ratio = float(np.median([b / a for a, b in zip(walls["ours"], walls["scipy loop"], strict=True)]))
    return {"wall_s": walls, "loop_run_on_a_share_of": share, "ratio": round(ratio, 1)}


@user_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--work", type=Path, help="folder for the study (default: a temporary one)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows, one round; shows that it runs")
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        sizes = {slug: max(20, round(args.share * n)) for slug, n in paper_sizes().items()}
        write_simulated(args.simulate, STUDY, sizes)
        return
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        steps = study_steps(Path(work), 0.01 if args.quick else 1.0)
    share = 1e-5 if args.quick else 5e-4
    found = {"study": steps, "correlations": correlations(1 if args.quick else 3, share)}
    print(f"{steps['rows']:,} rows in {steps['bytes'] / 1e6:.0f} MB")
    for name in ("metrics", "everything"):
        step = steps[name]
        times = f"{step['wall_s']:6.1f} s wall  {step['cpu_s']:6.1f} s CPU"
        print(f"  {name:<12} {times}  {step['peak_bytes'] / 1e9:.2f} GB peak")
    print(f"correlations: {found['correlations']['ratio']:.0f} times as fast as a scipy loop {found['correlations']}")
    if args.output:
        write_json(args.output, found)


if __name__ == "__main__":
    main()
