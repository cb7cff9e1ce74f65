"""How fast one optimizer step trains, beside megatron-core as it comes, plain PyTorch and transformers.

    python tests/perf/train_throughput.py --output tests/perf/results/train_cpu.json
    python tests/perf/train_throughput.py --output tests/perf/results/train_gpu.json --end-to-end

A step is forward, backward, clipping and AdamW on random tokens in memory. All contenders (train_contenders.py) start
from the same weights and take the same batches, and their first losses must agree. They take turns in rounds whose
order rotates; what is compared is the median over the rounds of the ratio within a round. On a CPU there is one thread,
and seconds are processor time, which other programs disturb less than the clock. On a GPU, where not all of them fit
together, a contender is built anew for each round. The first step, in which a compiled contender is compiled (nothing
is left from earlier runs), is in no timing but in a column of its own. MFU counts attention in full and, in brackets,
its causal half. `--end-to-end` adds whole runs of ours, with data, logging and checkpoints (train_end_to_end.py).
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from configs.artifacts import write_json
from configs.cost.model import flops_per_token
from configs.errors import user_errors
from configs.load import load_train
from configs.schema import TrainConfig
from megatron_train import cli
from megatron_train.data import MicroBatch
from megatron_train.kernels.device import peak_flops, utilisation
from megatron_train.ranks import parallel

OURS = "ours"
LR = 1e-3
WARM_UP = 3
"""Steps before the clock starts; their losses are compared."""
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
QUICK = {"model.layers": 1, "model.context_tokens": 32, "batch.sequences": 4, "batch.micro_sequences": 2}


@dataclass
class Timing:
    """One contender at one size."""

    first_step_s: float = 0.0
    """From its first call to the end of the first step; compilation is in it."""
    losses: list[float] = field(default_factory=list)
    """Of the warm-up steps."""
    seconds: list[list[float]] = field(default_factory=list)
    """Of each step, by round."""
    peak_bytes: int | None = None
    failure: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(second for block in self.seconds for second in block)


class Stopwatch:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(
    contenders: dict[str, Any],
    start: Any,
    batch: list[MicroBatch],
    rounds: int,
    steps: int,
    keep: Callable[[dict[str, Timing]], None] = lambda timings: None,
) -> dict[str, Timing]:
    """`contenders`: name -> what builds it from `start`. `keep` gets what there is after each turn."""
    device = start.ranks.device
    watch, kept = Stopwatch(device), {}
    timings = {name: Timing() for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            timing = timings[name]
            if timing.failure:
                continue
            try:
                contender = kept.get(name) or _warm(contenders[name](start), timing, batch, watch)
                if device.type == "cpu":
                    kept[name] = contender
                timing.seconds.append(_time(contender, batch, steps, watch))
                if device.type == "cuda":
                    timing.peak_bytes = torch.cuda.max_memory_allocated(device)
            except torch.OutOfMemoryError as error:
                timing.failure = "out of memory: " + str(error).split(". ")[0]
            contender = None
            if device.type == "cuda":
                torch.compiler.reset()
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            print(f"  round {number + 1}: {name:<20}{timing.failure or f'{1e3 * timing.median:10.2f} ms'}", flush=True)
            keep(timings)
    return timings


def _warm(contender: Any, timing: Timing, batch: list[MicroBatch], watch: Stopwatch) -> Any:
    # Compilers are other processes: the clock on the wall, not this process's time.
    began = time.perf_counter()
    losses = [contender.step(batch, LR).item()]
    if not timing.losses:
        timing.first_step_s = time.perf_counter() - began
    timing.losses = losses + [contender.step(batch, LR).item() for _ in range(WARM_UP - 1)]
    return contender


def _time(contender: Any, batch: list[MicroBatch], steps: int, watch: Stopwatch) -> list[float]:
    ticks = [watch.now()]
    for _ in range(steps):
        contender.step(batch, LR)
        ticks.append(watch.now())
    return [after - before for before, after in itertools.pairwise(ticks)]


def check_losses(timings: dict[str, Timing], precision: str) -> None:
    """The same work: equal losses before the first update, and after one and two; which have moved them."""
    finished = {name: timing.losses for name, timing in timings.items() if not timing.failure}
    expected = next(iter(finished.values()), [])
    for name, losses in finished.items():
        worst = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
        assert worst <= LOSS_TOLERANCE[precision], f"{name} computes something else: {finished}"
    assert not finished or abs(expected[0] - expected[-1]) > 1e-3, f"nothing is learnt: {expected}"


def ratio(timings: dict[str, Timing], a: str, b: str) -> float:
    """Tokens/s of a over those of b: median over the rounds of the ratio within a round."""
    pairs = zip(timings[a].seconds, timings[b].seconds, strict=False)  # an unfinished round has no pair
    return statistics.median(statistics.median(y) / statistics.median(x) for x, y in pairs)


def summarise(config: TrainConfig, timings: dict[str, Timing], tokens: int, device: torch.device) -> dict[str, Any]:
    flops, peak = flops_per_token(config.model), peak_flops(device, config.precision)
    rows: dict[str, dict[str, Any]] = {}
    for name, timing in timings.items():
        if timing.failure or not timing.seconds:
            rows[name] = {"failure": timing.failure or "its turn has not come"}
            continue
        every = sorted(tokens / second for block in timing.seconds for second in block)
        rows[name] = {
            "tokens_per_s": round(tokens / timing.median, 1),
            "tokens_per_s_quartiles": [round(every[len(every) * k // 4], 1) for k in (1, 3)],
            "first_step_s": round(timing.first_step_s, 2),
            "first_losses": timing.losses,
            "peak_bytes": timing.peak_bytes,
            "step_seconds": timing.seconds,
        }
        if peak:
            mfu = utilisation(tokens / timing.median, flops, peak, 1)
            rows[name] |= {"mfu_full": round(mfu.full, 4), "mfu_causal": round(mfu.causal, 4)}
    finished = [name for name, row in rows.items() if "failure" not in row]
    others = [name for name in finished if not name.startswith(OURS)]
    best = max(others, key=lambda n: rows[n]["tokens_per_s"], default=None)
    return {
        "model": config.model.model_dump(),
        "precision": config.precision,
        "tokens_per_step": tokens,
        "flops_per_token": {"full": flops.full, "causal": flops.causal},
        "peak_flops": peak,
        "contenders": rows,
        "best_other": best,
        "ours_over_best_other": {
            name: round(ratio(timings, name, best), 3) for name in finished if name.startswith(OURS) and best
        },
    }


def show(name: str, result: dict[str, Any]) -> None:
    peak = result["peak_flops"]
    of = f", peak {peak / 1e12:g} TFLOP/s" if peak else ", no peak known: no MFU"
    print(f"\n{name}: {result['tokens_per_step']:,} tokens a step, {result['precision']}{of}")
    print(f"{'':<20}{'tokens/s':>10}{'quartiles':>20}{'MFU':>16}{'first step':>12}{'memory':>11}")
    for contender, row in result["contenders"].items():
        if "failure" in row:
            print(f"{contender:<20}{row['failure']}")
            continue
        low, high = row["tokens_per_s_quartiles"]
        mfu = f"{row['mfu_full']:.1%} ({row['mfu_causal']:.1%})" if peak else "-"
        memory = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else "-"
        print(
            f"{contender:<20}{row['tokens_per_s']:>10,.0f}{f'{low:,.0f} - {high:,.0f}':>20}{mfu:>16}"
            f"{row['first_step_s']:>10.1f} s{memory:>11}"
        )
    for contender, value in result["ours_over_best_other"].items():
        print(f"{contender} / {result['best_other']}: {value:.3f}")
    if whole := result.get("end_to_end"):
        mfu = f", MFU {whole['mfu_full']:.1%} ({whole['mfu_causal']:.1%})" if peak else ""
        print(
            f"whole run: {whole['tokens_per_s']:,.0f} tokens/s{mfu} with a checkpoint every "
            f"{whole['checkpoint_every_steps']:,} steps, each {whole['checkpoint_s']:.2f} s; "
            f"{whole['tokens_per_s_between_checkpoints']:,.0f} tokens/s between them"
        )


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"


def compare(config: TrainConfig, options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """`keep` gets the summary after each turn: an hour of a machine may end before the last one."""
    from train_contenders import CONTENDERS, Start
    from train_step import random_micro_batches

    ranks = parallel.initialise(1, config.batch.sequences)
    try:
        count = min(options.micro_batches, config.batch.sequences // config.batch.micro_sequences)
        batch = random_micro_batches(config, count, ranks.device)
        # Compilation would take a minute of a run that takes seconds.
        names = options.contenders or [n for n in CONTENDERS if not (options.quick and n.endswith("compiled"))]
        contenders = {name: CONTENDERS[name] for name in names}
        tokens = sum(micro.tokens.numel() for micro in batch)

        def keep_so_far(timings: dict[str, Timing]) -> None:
            keep(summarise(config, timings, tokens, ranks.device))

        timings = measure(contenders, Start.of(config, ranks), batch, options.rounds, options.steps, keep_so_far)
        check_losses(timings, config.precision)
        return summarise(config, timings, tokens, ranks.device)
    finally:
        parallel.shut_down()


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    stand_ins: list[str] = []
    if device.type == "cpu":
        from train_contenders import CPU_STAND_INS as stand_ins
    print("\n".join(f"stand-in: {line}" for line in stand_ins), flush=True)
    configs: dict[str, Any] = {}
    measured = {"rounds": options.rounds, "steps": options.steps, "stand_ins": stand_ins, "configs": configs}
    found = {"device": describe(device), "torch": torch.__version__} | measured

    def keep(scale: str, result: dict[str, Any]) -> None:
        configs[scale] = result
        if options.output:
            write_json(options.output, found)

    for name in options.config:
        overrides = QUICK if options.quick else {}
        config = load_train(name, overrides)
        cli.expect_stage(config, "pt", name)
        if missing := cli.missing_device(config):
            cli.refuse(missing)
        print(config.scale, flush=True)
        keep(config.scale, compare(config, options, functools.partial(keep, config.scale)))
        if options.end_to_end:
            from train_end_to_end import end_to_end

            steps = 16 if device.type == "cuda" or options.quick else 120
            keep(config.scale, configs[config.scale] | {"end_to_end": end_to_end(name, overrides, steps)})
    return found


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    cuda = torch.cuda.is_available()
    default = ["240m.yaml", "1b.yaml"] if cuda else ["mini_s.yaml", "mini_m.yaml"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", nargs="+", default=default, metavar="YAML", help=f"(default: {' '.join(default)})")
    parser.add_argument("--rounds", type=int, default=2 if cuda else 9, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=5 if cuda else 10, help="timed steps of a turn")
    parser.add_argument("--micro-batches", type=int, default=4, metavar="N", help="at most, in a step (default: 4)")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="(default: all; see train_contenders.py)")
    parser.add_argument("--end-to-end", action="store_true", help="also whole runs: data, logging, checkpoints")
    parser.add_argument("--quick", action="store_true", help="one layer, two steps, nothing compiled: does it work?")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, as JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.steps = 1, 2
    if not cuda:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        found = measure_all(options)
    for scale, result in found["configs"].items():
        show(scale, result)


if __name__ == "__main__":
    main()
