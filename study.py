"""Run a whole study: documents, token shards, training of every mixture, scores, metrics, report.

In: configs/studies/<name>.yaml. Out: <runs>/<study>/ with every run folder, scores/, metrics.parquet and
report/index.html. Every unit is idempotent: after an interruption the same command goes on where it stopped, and
what is done and unchanged is skipped. Ray runs the units; the training of an SFT waits for its pretraining.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import load as config_files
from configs.artifacts import read_json, write_json
from configs.cost import add_hardware_options, hardware_of
from configs.errors import ArtifactError, ConfigError, DataError, ResourceError, user_errors
from configs.layout import RunFolder, data_root, report_dir, runs_root
from configs.load import load_study, parse_overrides, pretrain_config, sft_config
from configs.schema import StudyConfig, TrainConfig
from configs.workflow.plan import plan_lines

if TYPE_CHECKING:
    from ray_eval.scoring import Progress as ScoringProgress

EXAMPLES = """examples:
  study.py plan paper --gpu H100 --gpus 64 --price 2.5                what it takes: GPU-hours, money, days
  study.py run configs/studies/mini.yaml                              the synthetic microworld, minutes on two cores
  study.py run configs/studies/real_small.yaml --documents ../shared/data
  study.py run mini --workers 1 scoring.sample=50                     dotted overrides of the study
  study.py status mini
"""
REFRESH_S = 2.0
LINE_EVERY_S = 20.0
"""Between progress lines where the output is not a terminal."""
SPARE_BYTES = 500e6
"""Kept free on the disk besides what the plan needs."""


@dataclass(frozen=True)
class Unit:
    """One training run of the study; fine-tuning starts from `parent`."""

    config: TrainConfig
    folder: RunFolder
    parent: RunFolder | None
    flops: float
    steps: int

    def train(self, data: Path) -> None:
        """Train, resume or skip; prints go to <run>/log.txt."""
        from megatron_train import pretrain, sft

        self.folder.path.parent.mkdir(parents=True, exist_ok=True)
        log = self.folder.path.with_suffix(".log")
        with log.open("a") as stream, contextlib.redirect_stdout(stream):
            if self.parent is None:
                pretrain.run(self.config, self.folder.study, data, self.folder.runs)
            else:
                sft.run(self.config, self.parent.path, self.folder.study, data, self.folder.runs)

    def fraction_done(self) -> float:
        """Share of the steps in metrics.jsonl."""
        if self.folder.done.is_file():
            return 1.0
        line = last_metrics(self.folder)
        return min(1.0, line.get("step", 0) / self.steps)


def units(study: StudyConfig, runs: Path) -> list[Unit]:
    """Every training run, pretraining before the fine-tuning that needs it."""
    from configs.cost import plan_run

    found = []
    for scale in study.scales:
        for mixture in study.mixtures:
            for seed in study.seeds_of(mixture):
                config = pretrain_config(study, scale, mixture, seed)
                plan = plan_run(config)
                pt = RunFolder(runs, study.name, scale, mixture, seed, "pt")
                found.append(Unit(config, pt, None, plan.total_flops, plan.steps))
                for recipe in study.recipes:
                    config = sft_config(study, scale, recipe, seed)
                    plan = plan_run(config)
                    folder = RunFolder(runs, study.name, scale, mixture, seed, f"sft-{recipe}")
                    found.append(Unit(config, folder, pt, plan.total_flops, plan.steps))
    return found


def last_metrics(folder: RunFolder) -> dict[str, Any]:
    """The last whole step line of a run, {} where there is none yet."""
    try:
        with folder.metrics.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 4096))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(line)
            if "loss" in value:
                return value
    return {}


# ---------------------------------------------------------------------------------------------- the display


class Display:
    """One progress display: a live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str) -> None:
        from rich.console import Console

        self.console = Console()
        self.title, self.began, self.said = title, time.monotonic(), 0.0
        self.stage = ""

    def step(self, number: int, name: str) -> None:
        self.stage, self.said = f"[{number}/5 {name}]", 0.0
        self.line(f"{self.stage} {self.title}")

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def progress(self, text: str, *, last: bool = False) -> None:
        """Rewrite the line on a terminal; elsewhere print one line in LINE_EVERY_S seconds."""
        text = f"{self.stage} {text}"
        if self.console.is_terminal:
            width = self.console.width - 1
            sys.stdout.write(f"\r{text[:width]:<{width}}" + ("\n" if last else ""))
            sys.stdout.flush()
        elif last or time.monotonic() - self.said > LINE_EVERY_S:
            self.said = time.monotonic()
            self.line(text)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


# ---------------------------------------------------------------------------------------------- the stages


def documents(study: StudyConfig, given: str | None, data: Path) -> Path | None:
    """The folder with corpora/ and benchmarks/; None on the Hub. Raises DataError where it is not there."""
    if study.synthetic:
        from mixtures.microworld.generate import generate

        return generate(data / "microworld", study.data.megabytes_per_source)
    if study.data.kind == "hub":
        return None
    root = Path(given or study.data.root or "")
    if not str(given or study.data.root or ""):
        raise ConfigError(
            f"study {study.name} reads local documents, and none are named",
            hint=f"study.py run {study.name} --documents <folder>, or make study STUDY=... DATA=<folder>",
        )
    for part in ("corpora", "benchmarks"):
        if not (root / part).is_dir():
            raise DataError("data folder is missing", where=root / part, valid="a folder with corpora/ and benchmarks/")
    return root.resolve()


def check_disk(study: StudyConfig, runs: Path) -> None:
    """Refuse to start a study that the disk cannot hold."""
    from configs.cost import plan_study

    runs.mkdir(parents=True, exist_ok=True)
    need, free = plan_study(study).disk_bytes + SPARE_BYTES, shutil.disk_usage(runs).free
    if need > free:
        raise ResourceError(
            f"the study needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=runs,
            hint="free disk space, or name another folder with --runs",
        )


def train(todo: Sequence[Unit], data: Path, display: Display) -> None:
    """Train every unit on Ray, one CPU each; raises the first user error once all others have ended."""
    import ray

    @ray.remote(num_cpus=1, max_retries=2)
    def task(unit: Unit, after: None) -> None:
        unit.train(data)

    pending: dict[Any, Unit] = {}
    pretraining: dict[RunFolder, Any] = {}
    for unit in todo:
        ref = task.remote(unit, pretraining.get(unit.parent) if unit.parent else None)
        pretraining[unit.folder] = ref
        pending[ref] = unit
    errors: list[tuple[Unit, Exception]] = []
    began, total = time.monotonic(), sum(u.flops for u in todo)
    at_start = sum(u.flops * u.fraction_done() for u in todo)
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=REFRESH_S)
        for ref in ready:
            unit = pending.pop(ref)
            try:
                ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                errors.append((unit, error.cause if isinstance(error.cause, Exception) else error))
        display.progress(_training_line(todo, pending, began, total, at_start), last=not pending)
    if errors:
        unit, first = errors[0]
        display.line(f"{len(errors)} of {len(todo)} runs failed; the first: {unit.folder.name}")
        raise first


def _training_line(todo: Sequence[Unit], pending: dict[Any, Unit], began: float, total: float, at_start: float) -> str:
    done = sum(u.flops * u.fraction_done() for u in todo)
    lines = {u.folder.name: last_metrics(u.folder) for u in pending.values() if not u.folder.done.is_file()}
    running = {name: line for name, line in lines.items() if line}
    # Between runs, processes start and nothing is trained: no speed is better than zero.
    speed = f"{sum(line['tokens_per_s'] for line in running.values()):,.0f} tok/s  " if running else ""
    rate = (done - at_start) / max(time.monotonic() - began, 1e-9)
    eta = f"ETA {clock((total - done) / rate)}" if rate else "ETA -:--"
    now = ", ".join(f"{name} step {line['step']} loss {line['loss']:.2f}" for name, line in running.items())
    return f"{len(todo) - len(pending)}/{len(todo)} runs  {done / total:.0%}  {speed}{eta}  {now}"


def score(study: StudyConfig, runs: Path, root: Path | None, workers: int | None, display: Display) -> None:
    from ray_eval.scoring import score_study

    def show(p: ScoringProgress) -> None:
        eta = f"ETA {clock(p.eta_s)}" if p.eta_s is not None else "ETA -:--"
        display.progress(f"{p.done}/{p.total} checkpoints  {p.tokens_per_s:,.0f} tok/s  {eta}", last=p.done == p.total)

    score_study(
        runs,
        study.name,
        documents_root=root,
        benchmarks=study.benchmarks,
        scoring=study.scoring,
        num_workers=workers,
        progress=show,
    )


def collect(study: StudyConfig, runs: Path) -> Path:
    """Metrics and report from the score files; returns the report's page."""
    from analysis.metrics import write_metrics
    from analysis.report import build_report

    write_metrics(runs, study.name)
    return build_report(runs, study.name)


def run(study: StudyConfig, given: str | None, data: Path, runs: Path, workers: int | None) -> Path:
    """All five stages; returns the report's page."""
    from configs.cluster import cluster
    from configs.cost import describe, plan_study
    from mixtures.tokenize import tokenize_study

    display = Display(study.name)
    display.line(describe(plan_study(study)))
    check_disk(study, runs)
    timings = Timings(runs / study.name / "timings.json")

    display.step(1, "documents")
    with timings.of("documents"):
        root = documents(study, given, data)
        config_files.save(study, runs / study.name / "study.yaml")
        write_json(runs / study.name / "study.json", {"documents_root": str(root) if root else None})
        if study.synthetic:
            from mixtures.microworld.declaration import declared

            write_json(runs / study.name / "declared.json", declared(study.mixtures))

    display.step(2, "token shards")
    with timings.of("token shards"):
        # A cluster of several machines shares this work; on one machine processes do, without waiting for Ray.
        on_cluster = bool(os.environ.get("RAY_ADDRESS"))
        tokenize_study(study, root or Path(), data, display.progress, workers, use_ray=on_cluster)

    with cluster(workers):
        display.step(3, "training")
        with timings.of("training"):
            train(units(study, runs), data, display)
        display.step(4, "scores")
        with timings.of("scores"):
            score(study, runs, root, workers, display)

    display.step(5, "metrics and report")
    with timings.of("metrics and report"):
        page = collect(study, runs)
    display.line(timings.summary())
    return page


class Timings:
    """Wall-clock seconds of each stage, over all calls of the study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = read_json(path) if path.is_file() else {}
        self.now: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.now[stage] = time.monotonic() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + self.now[stage], 1)
            write_json(self.path, self.seconds)

    def summary(self) -> str:
        stages = ", ".join(f"{stage} {clock(s)}" for stage, s in self.now.items())
        return f"done in {clock(sum(self.now.values()))} ({stages})"


def status(name: str, runs: Path) -> str:
    """What of a study is done, in the words of a table."""
    path = runs / name / "study.yaml"
    if not path.is_file():
        known = sorted(p.parent.name for p in runs.glob("*/study.yaml"))
        raise ArtifactError("no such study", where=path.parent, valid=", ".join(known) or "none has been started here")
    study = config_files.load(StudyConfig, path)
    every = units(study, runs)
    lines = [f"{'run':<42}{'state':<10}{'step':>12}{'loss':>9}  exports scored"]
    for unit in every:
        line, exports = last_metrics(unit.folder), sorted((unit.folder.path / "export").glob("step-*/export.json"))
        scored = [e for e in exports if _score_file(unit.folder, e.parent.name).is_file()]
        state = "done" if unit.folder.done.is_file() else "partial" if line else "missing"
        loss = f"{line['loss']:.3f}" if line else ""
        step = f"{line.get('step', 0)}/{unit.steps}"
        lines.append(f"{unit.folder.name:<42}{state:<10}{step:>12}{loss:>9}  {len(scored)}/{len(exports)}")
    done = sum(unit.folder.done.is_file() for unit in every)
    page = report_dir(runs, name) / "index.html"
    lines.append(f"{done}/{len(every)} runs done; report: {page if page.is_file() else 'not yet'}")
    return "\n".join(lines)


def _score_file(folder: RunFolder, step: str) -> Path:
    from configs.layout import scores_dir

    parts = (folder.scale, folder.mixture, f"seed{folder.seed}", folder.stage)
    return scores_dir(folder.runs, folder.study).joinpath(*parts) / f"{step}.parquet"


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Run a study, or see how far it is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    parser_of: Callable[[str, str], argparse.ArgumentParser] = lambda name, text: commands.add_parser(  # noqa: E731
        name, help=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    running = parser_of("run", "run or resume a study, ending with its report")
    running.add_argument("study", help="a path, or the name of a file in configs/studies")
    running.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dotted overrides of the study")
    running.add_argument("--documents", metavar="DIR", help="folder with corpora/ and benchmarks/ (local data)")
    running.add_argument(
        "--data", metavar="DIR", help="made artefacts: tokenizers, shards (default: MAGIC_DATA, ./data)"
    )
    running.add_argument("--workers", type=int, help="runs and checkpoints at a time (default: one for each CPU)")
    planning = parser_of("plan", "what a study takes: units, GPU-hours, tokens, disk, money, days")
    planning.add_argument("study", help="a path, or the name of a file in configs/studies")
    planning.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dotted overrides of the study")
    add_hardware_options(planning)
    planning.set_defaults(gpus=8)  # a node
    planning.add_argument("--price", type=float, metavar="X", help="dollars for an hour of one GPU")
    looking = parser_of("status", "what is done, partial or missing")
    looking.add_argument("study", help="name of a study below the runs folder")
    for sub in (running, planning, looking):
        sub.add_argument("--runs", metavar="DIR", help="where runs are kept (default: MAGIC_RUNS, ./runs)")
    args = parser.parse_args(argv)
    runs = runs_root(args.runs)
    if args.command == "status":
        print(status(args.study, runs))
        return
    study = load_study(args.study, parse_overrides(args.overrides))
    if args.command == "plan":
        print("\n".join(plan_lines(study, runs, hardware_of(args), args.price)))
        return
    page = run(study, args.documents, data_root(args.data), runs, args.workers)
    print(f"report: {page}")


if __name__ == "__main__":
    main()
