"""How fast benchmarks are scored, beside lm-evaluation-harness's HF backend: same models, same rows, in one run.

    python tests/perf/score_throughput.py --output tests/perf/results/score_cpu.json
    python tests/perf/score_throughput.py --quick

Random Llamas (hidden 64, two layers) in fp32, one thread each. Contenders take turns in rounds whose order rotates;
what is compared is the median over the rounds of the ratio within a round. The harness gets, for each workload, the
batch size that it is fastest with.

    evaluate       imports, the tokenizer and, for the harness, the model and the scan of its tasks are there before the
                   clock starts. In the time are reading rows, prompts, tokens, scores and files; for ours also weights
    whole process  from the start of a Python process to its end

    ours                     as it comes: also the unconditional log-probabilities, which the harness does not compute
    ours, same requests      only what the harness computes
    ..., plan kept           the plan is there already, as for every checkpoint of a study but the first

The decisions (argmax of the sums and, where the harness reports acc_norm, of the sums by character) that differ from
the harness's are counted in the same run, and so is the largest difference of a candidate's log-probability; the
harness sums in float32, in which sums beyond 512 nats are 6e-5 apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ray_eval"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from score_contenders import HARNESS, PROJECT, Found, Harness, Ours, Turn
from score_inputs import SHAPE, WORKLOADS, Inputs, Workload, prepare

from configs.artifacts import write_json
from configs.errors import user_errors

WARM_UP = Workload(WORKLOADS["suite"].benchmarks, 4, 8192)
"""Before any clock starts: what is imported at the first use is imported, and its bytecode is kept."""


def try_batch_sizes(workload: Workload, options: argparse.Namespace, work: Path) -> dict[int, float]:
    """The harness's processor time for some of the workload's items, by batch size."""
    some = dataclasses.replace(workload, items=64 if len(workload.benchmarks) == 1 else 8, checkpoints=1)
    inputs = prepare(some, "batch-sizes", options.data_root, work)
    seconds = {}
    for size in options.batch_sizes:
        with redirect_stdout(sys.stdout if options.verbose else io.StringIO()):
            seconds[size] = round(Harness(inputs, size, 1).evaluate().cpu_s, 2)
        print(f"  lm-eval, batch size {size}: {seconds[size]:.2f} s for {some.items} items", flush=True)
    return seconds


def contenders(inputs: Inputs, options: argparse.Namespace, kind: str, batch_size: int) -> dict[str, Any]:
    checkpoints = inputs.workload.checkpoints if options.full else 1
    made: dict[str, Any] = {
        HARNESS: Harness(inputs, batch_size, checkpoints),
        "ours": Ours(inputs),
        "ours, plan kept": Ours(inputs, keep_plan=True),
    }
    if kind == "evaluate":
        made["ours, same requests"] = Ours(inputs, unconditional=False)
        made["ours, same requests, plan kept"] = Ours(inputs, unconditional=False, keep_plan=True)
    return made


def measure(inputs: Inputs, options: argparse.Namespace, kind: str, batch_size: int) -> dict[str, Any]:
    """kind: evaluate, or process; batch_size: of the harness."""
    taking_part = contenders(inputs, options, kind, batch_size)
    turns: dict[str, list[Turn]] = {name: [] for name in taking_part}
    names = list(taking_part)
    for number in range(options.rounds or inputs.workload.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with redirect_stdout(sys.stdout if options.verbose else io.StringIO()):
                turn = getattr(taking_part[name], kind)()
            turns[name].append(turn)
            times = f" x {turn.times}" if turn.times > 1 else ""
            print(f"  {kind}, round {number + 1}: {name:<32}{turn.wall_s:9.2f} s{times}", flush=True)
    theirs = taking_part[HARNESS].found()
    goal = inputs.workload.evaluate_goal if kind == "evaluate" else inputs.workload.process_goal
    rows = {}
    for name, contender in taking_part.items():
        rows[name] = {
            "wall_s": [round(turn.wall_s * turn.times, 3) for turn in turns[name]],
            "cpu_s": [round(turn.cpu_s * turn.times, 3) for turn in turns[name]],
            "measured_once_and_multiplied_by": turns[name][0].times,
        }
        if name != HARNESS:
            rows[name] |= {"ratio": ratio(turns[HARNESS], turns[name]), "counters": turns[name][-1].counters}
            rows[name] |= compare(contender.found(), theirs)
    return {"goal": goal, "contenders": rows}


def ratio(theirs: Sequence[Turn], ours: Sequence[Turn]) -> dict[str, float]:
    """How many times less time ours takes: median over the rounds of the ratio within a round."""
    found = {}
    for clock in ("wall_s", "cpu_s"):
        pairs = zip(theirs, ours, strict=True)
        ratios = [getattr(a, clock) * a.times / (getattr(b, clock) * b.times) for a, b in pairs]
        found[clock] = round(statistics.median(ratios), 2)
    return found


def compare(ours: Found, theirs: Found) -> dict[str, Any]:
    """Over the checkpoints that the harness ran."""
    differ, largest, smallest_margin = 0, 0.0, float("inf")
    for key, expected in theirs.items():
        found = ours[key]
        decisions = {int(np.argmax(found.sums)) == int(np.argmax(expected.sums))}
        if expected.num_chars is not None:
            by_char = found.sums / found.num_chars, expected.sums / expected.num_chars
            decisions.add(int(np.argmax(by_char[0])) == int(np.argmax(by_char[1])))
        differ += decisions != {True}
        largest = max(largest, float(np.abs(found.sums - expected.sums).max()))
        second, first = np.sort(expected.sums)[-2:]
        smallest_margin = min(smallest_margin, float(first - second))
    return {
        "items": len(theirs),
        "decisions_differ": differ,
        "largest_difference_nats": largest,
        "smallest_margin_nats": smallest_margin,
    }


def show(name: str, workload: Workload, result: dict[str, Any]) -> None:
    goal = f", goal {result['goal']:g}x" if result["goal"] else ""
    asked = f"{workload.items:,} items of {len(workload.benchmarks)} benchmark(s), vocabulary {workload.vocab:,}"
    checkpoints = f", {workload.checkpoints} checkpoints" if workload.checkpoints > 1 else ""
    print(f"\n{name}, {result['kind']}{goal}: {asked}{checkpoints}")
    print(f"{'':<34}{'wall s':>9}{'CPU s':>9}{'ratio':>8}{'by CPU':>8}{'decisions differ':>17}{'largest':>12}")
    for contender, row in result["contenders"].items():
        seconds = "".join(f"{statistics.median(row[clock]):>9.2f}" for clock in ("wall_s", "cpu_s"))
        compared = ""
        if contender != HARNESS:
            compared = "".join(f"{row['ratio'][clock]:>7.1f}x" for clock in ("wall_s", "cpu_s"))
            compared += f"{row['decisions_differ']:>8} of {row['items']:<5,}{row['largest_difference_nats']:>12.1e}"
        print(f"{contender:<34}{seconds}{compared}")


def measure_all(options: argparse.Namespace, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of a workload, its numbers), one after another."""
    workloads = {name: WORKLOADS[name] for name in options.workloads}
    if options.quick:
        workloads = {name: smaller(workload) for name, workload in workloads.items()}
    else:
        first = prepare(WARM_UP, "warm-up", options.data_root, work)
        for kind in ("evaluate", "process"):
            for contender in contenders(first, options, kind, options.batch_sizes[0]).values():
                with redirect_stdout(sys.stdout if options.verbose else io.StringIO()):
                    getattr(contender, kind)()
    for name, workload in workloads.items():
        print(f"\n{name}", flush=True)
        tried = {} if len(options.batch_sizes) == 1 else try_batch_sizes(workload, options, work)
        size = min(options.batch_sizes, key=lambda size: tried.get(size, 0))
        inputs = prepare(workload, name, options.data_root, work)
        kinds = options.kinds or workload.kinds
        results = {kind: measure(inputs, options, kind, size) | {"kind": kind} for kind in kinds}
        for result in results.values():
            show(name, workload, result)
        batch = {"lm_eval_batch_size": size, "lm_eval_batch_sizes_tried_cpu_s": tried}
        yield name, dataclasses.asdict(workload) | batch | results


def smaller(workload: Workload) -> Workload:
    items = min(max(4, workload.items // 100), 4 if len(workload.benchmarks) > 1 else 40)
    vocab = 1024 if workload.vocab < 50_000 else 4096
    return dataclasses.replace(workload, items=items, vocab=vocab, checkpoints=min(workload.checkpoints, 2))


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data-root", type=Path, default=PROJECT.parent / "shared" / "data", help="with benchmarks/ and corpora/")
    add("--work", type=Path, metavar="DIR", help="keeps tokenizers and rows for the next call (default: temporary)")
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME", help=", ".join(WORKLOADS))
    add("--kinds", nargs="+", choices=("evaluate", "process"), help="(default: those with a goal)")
    add("--rounds", type=int, help="turns of each contender (default: 3, for nine checkpoints 1)")
    add("--batch-sizes", type=int, nargs="+", default=[16, 32, 64], help="lm-eval gets the one that it is fastest with")
    add("--full", action="store_true", help="let lm-eval run all nine checkpoints, not one whose time is multiplied")
    add(
        "--quick",
        action="store_true",
        help="a few items, small vocabularies, one cold round: does it work?",
    )
    add("--verbose", action="store_true", help="show what the contenders print")
    add("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.batch_sizes = 1, options.batch_sizes[:1]
    torch.set_num_threads(1)
    model = SHAPE | {"dtype": "fp32", "weights": "random"}
    found: dict[str, Any] = {"model": model, "workloads": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for name, numbers in measure_all(options, (options.work or Path(temporary)).resolve()):
            found["workloads"][name] = numbers
            if options.output:
                write_json(options.output, found)


if __name__ == "__main__":
    main()
