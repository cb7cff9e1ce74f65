"""Run a whole study: documents, token shards, training of every mixture, scores, metrics, report.

In: configs/studies/<name>.yaml. Out: <runs>/<study>/ with every run folder, scores/, metrics.parquet and
report/index.html. A study is a table of units (`configs.workflow`); what is done and unchanged is skipped, what is done
and no longer matches its inputs is named and left to the user, and after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import cluster as ray_cluster
from configs import signals
from configs.artifacts import write_json, write_text
from configs.clock import clock
from configs.cost import describe, hardware_of, plan_study
from configs.documents import documents_of
from configs.errors import ArtifactError, ConfigError, MagicError, Preempted, ResourceError, user_errors
from configs.layout import (
    PROJECT_ROOT,
    answers_file,
    data_root,
    metrics_file,
    report_dir,
    runs_root,
    scores_dir,
    study_of,
)
from configs.load import load_study, parse_overrides
from configs.locks import alone_in
from configs.schema import StudyConfig
from configs.workflow import slurm
from configs.workflow.arguments import parse
from configs.workflow.begun import begin, begun, check_disk
from configs.workflow.claims import claim, failure, note_failure
from configs.workflow.dispatch import WorkerDied, Workers, in_words, may_pass
from configs.workflow.driver import CHECKED, Stale, alone, drive, finish, judge, lost, settle
from configs.workflow.local import LocalWorkers
from configs.workflow.on_ray import RayWorkers
from configs.workflow.plan import plan_lines
from configs.workflow.processes import end_with_parent
from configs.workflow.products import Products, step_of
from configs.workflow.records import State, read_record, record_file, states, units_dir
from configs.workflow.status import show, watch
from configs.workflow.status_page import Page, write_page
from configs.workflow.survey import survey
from configs.workflow.units import KINDS, Unit, study_units

# ---------------------------------------------------------------------------------------------- one unit


@dataclass(frozen=True)
class Work:
    """How to do the units of one study; goes to the processes that do them."""

    study: StudyConfig
    documents: Path | None
    """Folder with corpora/ and benchmarks/; None: the Hub."""
    data: Path
    runs: Path
    on_ray: bool = False

    def __call__(self, unit: Unit) -> str:
        """Do it, or skip what of it is there; returns its product. Its log gets what it prints, and how it failed."""
        folder, main_rank = self.runs / self.study.name, os.environ.get("RANK", "0") == "0"
        log = units_dir(folder) / f"{unit.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            claim(folder, unit.name) if main_rank else contextlib.nullcontext(),
            log.open("a", buffering=1) as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            try:
                getattr(self, f"_{unit.kind}")(unit)
            except Exception:
                traceback.print_exc()
                raise
        return self.products.product(unit)

    @property
    def products(self) -> Products:
        return Products(self.study.name, self.data, self.runs, self.documents if self.study.synthetic else None)

    def outcome(self, unit: Unit, code: int) -> str:
        """Of `command`, which has ended with this exit code: the product. Raises what ended it."""
        if not code:
            return self.products.product(unit)
        failed = failure(self.runs / self.study.name, unit.name)
        if failed is not None and failed.final:
            raise MagicError(failed.message)
        raise WorkerDied(f"{unit.name} ended with exit code {code}; its log says why")

    def remove(self, unit: Unit) -> None:
        """Whatever it left and what was scored of it, so that it is made anew.

        Token shards and the report keep what is still right. Raises ResourceError where somebody works in its folder.
        """
        if unit.kind == "score" and unit.folder is not None and unit.folder.done.is_file():
            self.products.score_file(unit).unlink(missing_ok=True)
        elif unit.kind in ("pretrain", "finetune") and unit.folder is not None:
            with alone_in(unit.folder):
                unit.folder.done.unlink(missing_ok=True)  # first: half of a folder must not seem whole
                shutil.rmtree(unit.folder.path, ignore_errors=True)
                shutil.rmtree(scores_dir(self.runs, self.study.name) / unit.folder.name, ignore_errors=True)

    def command(self, unit: Unit, launch: Sequence[str]) -> list[str]:
        """To do a unit that several GPUs work on; launch: options of torchrun."""
        options = ["--runs", str(self.runs), "--data", str(self.data)]
        script = [str(PROJECT_ROOT / "study.py"), "unit", self.study.name, unit.name]
        return [sys.executable, "-m", "torch.distributed.run", *launch, *script, *options]

    def _tokenise(self, unit: Unit) -> None:
        from mixtures.tokenize import tokenize_study

        if self.study.synthetic:
            from mixtures.microworld.declaration import declared
            from mixtures.microworld.generate import generate

            assert self.documents is not None
            generate(self.documents, self.study.data.megabytes_per_source)
            write_json(self.runs / self.study.name / "declared.json", declared(self.study.mixtures))
        tokenize_study(self.study, self.documents, self.data, use_ray=self.on_ray)

    def _pretrain(self, unit: Unit) -> None:
        from megatron_train import pretrain

        assert unit.run is not None
        with signals.awaited():
            pretrain.run(unit.run.config, self.study.name, self.data, self.runs, resume="auto")

    def _finetune(self, unit: Unit) -> None:
        from megatron_train import sft

        assert unit.run is not None and unit.folder is not None
        parent = unit.folder.path.with_name("pt")
        with signals.awaited():
            sft.run(unit.run.config, parent, self.study.name, self.data, self.runs, resume="auto")

    def _score(self, unit: Unit) -> None:
        from ray_eval.exports import read_export
        from ray_eval.scoring import score_study

        assert unit.folder is not None
        score_study(
            self.runs,
            self.study.name,
            documents_root=self.documents,
            benchmarks=self.study.benchmarks,
            scoring=self.study.scoring,
            checkpoints=[read_export(unit.folder.export(step_of(unit)))],
            use_ray=False,
            data=self.data,
        )

    def _analyse(self, unit: Unit) -> None:
        from analysis.metrics import write_metrics
        from analysis.report import build_report

        for path in (metrics_file(self.runs, self.study.name), answers_file(self.runs, self.study.name)):
            path.unlink(missing_ok=True)  # nothing says that they are whole, or made by this code
        write_metrics(self.runs, self.study.name)
        build_report(self.runs, self.study.name)


# ---------------------------------------------------------------------------------------------- all of them


def run(
    study: StudyConfig, given: str | None, data: Path, runs: Path, workers: int | None = None, stale: Stale = "refuse"
) -> Path:
    """Do what is not done yet; returns the report's page."""
    began, folder = time.monotonic(), runs / study.name
    documents = documents_of(study, given, data)
    print(describe(plan_study(study)), flush=True)
    check_disk(study, documents, data, runs)
    with signals.awaited(), alone(folder):
        units = study_units(study, runs, documents)
        if judge(folder, units, stale):
            begin(study, documents, runs)
        on_ray = bool(os.environ.get("RAY_ADDRESS"))
        page = Page(folder, units)

        def tick() -> None:
            _go_on()
            page.keep()

        try:
            work = Work(study, documents, data, runs, on_ray)
            with workers_of(work, workers) as team:
                shards = units[:1]
                seconds = drive(folder, shards, states(folder, shards), team, work.remove, tick)
                for _ in KINDS:  # what was made of a lost unit is judged once that is there again
                    if not (gone := lost(folder, units, work.products.intact)):
                        break
                    missing = dict.fromkeys((unit.name for unit in gone), State("missing"))
                    seconds |= drive(folder, gone, missing, team, work.remove, tick)
                found, units = settle(folder, units, stale)
                begin(study, documents, runs)
                seconds |= drive(folder, units, found, team, work.remove, tick)
        finally:
            page.keep(at_once=True)
    print(summary(seconds, time.monotonic() - began))
    return report_dir(runs, study.name) / "index.html"


@contextlib.contextmanager
def workers_of(work: Work, count: int | None) -> Iterator[Workers]:
    """The cluster that RAY_ADDRESS names, else processes of this machine."""
    if work.on_ray:
        with ray_cluster.cluster(), RayWorkers(work, work.command, work.outcome) as team:
            yield team
    else:
        with LocalWorkers(work, work.command, work.outcome, count, gpus_here()) as local:
            yield local


def do_unit(name: str, unit: str, data: Path, runs: Path, again: bool) -> None:
    """One unit of a study that was begun, with its record: what torchrun and Slurm start. Done already: nothing.

    again: make it anew whatever is there; without, a stale one is refused. Raises Preempted where it is asked to end,
    and leaves <unit>.stopped, so that Slurm's script queues it again; a training saves first.
    """
    if "RANK" in os.environ:
        end_with_parent()
    main_rank = os.environ.get("RANK", "0") == "0"
    try:
        with signals.raised():
            _do_unit(name, unit, data, runs, again, main_rank)
    except Preempted as notice:
        if main_rank:
            write_text(units_dir(runs / name) / f"{unit}.stopped", f"{notice}\n")
        raise


def _do_unit(name: str, unit: str, data: Path, runs: Path, again: bool, main_rank: bool) -> None:
    study, documents, units = begun(name, runs)
    by_name, folder = {unit.name: unit for unit in units}, runs / name
    if unit not in by_name:
        raise ConfigError(f"study {name} has no unit {unit!r}", hint=f"python study.py status {name} lists them")
    work, found, record = Work(study, documents, data, runs), states(folder, units), read_record(folder, unit)
    waiting = [other for other in units if unit in other.inputs and found[other.name].kind != "done"]
    done, intact = found[unit].kind == "done" and not again, work.products.intact
    if done and record is not None and intact(by_name[unit], record.product, waiting):
        return
    if missing := [needed for needed in by_name[unit].inputs if found[needed].kind == "missing"]:
        raise ArtifactError(f"{unit} needs {missing[0]}, which is not done", where=folder)
    if found[unit].kind == "stale" and by_name[unit].kind not in CHECKED and not again:
        raise ResourceError(f"{unit} is stale: {'; '.join(found[unit].reasons)}", hint="--again makes it anew")
    (units_dir(folder) / f"{unit}.stopped").unlink(missing_ok=True)
    began = time.monotonic()
    if again:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"--again of {unit} under torchrun", hint=f"study.py run {name} --stale redo")
        work.remove(by_name[unit])
        record_file(folder, unit).unlink(missing_ok=True)
    try:
        product = work(by_name[unit])
    except Exception as error:
        if main_rank and not isinstance(error, Preempted) and signals.received() is None:
            note_failure(folder, unit, in_words(error), final=not may_pass(error))
        raise
    if main_rank:
        finish(folder, by_name[unit], product, time.monotonic() - began)


def emit_slurm(
    study: StudyConfig,
    given: str | None,
    data: Path,
    runs: Path,
    out: Path,
    cluster: slurm.Cluster,
    stale: Stale = "refuse",
) -> str:
    """Begin a study, and write what Slurm needs to do all of it; returns what to type."""
    if stale == "redo":
        raise ConfigError("--stale redo with --emit-slurm", hint=f"study.py unit {study.name} UNIT --again, for each")
    documents, folder = documents_of(study, given, data), runs / study.name
    with alone(folder):
        units = study_units(study, runs, documents)
        judge(folder, units, stale)
        if stale == "keep":
            settle(folder, units, stale)
        begin(study, documents, runs)
    places = {"runs": runs, "data": data, "python": Path(sys.executable)}
    return f"bash {slurm.emit(out.resolve(), study.name, units, places, cluster)}"


def gpus_here() -> int:
    """Found without torch, so that this process stays light."""
    here = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return here if visible is None else min(here, len([name for name in visible.split(",") if name.strip()]))


def _go_on() -> None:
    """Raises Preempted where the driver was asked to end: between two events, so that no library is left half-way."""
    if name := signals.received():
        print(f"{name}: trainings save where they are, then it ends{' (again: now)' * (name == 'SIGINT')}", flush=True)
        raise Preempted("asked to end; trainings were saved where they stood", hint="the same command goes on")


def summary(seconds: Mapping[str, float], passed_s: float) -> str:
    """Of the units done in this call: how long, by kind; units of a kind run beside each other."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, taken in seconds.items():
        kinds[name.partition("/")[0]].append(taken)
    parts = [f"{len(kinds[kind])} {kind} {clock(sum(kinds[kind]))}" for kind in KINDS if kinds[kind]]
    return f"done in {clock(passed_s)} ({', '.join(parts) or 'nothing was missing'})"


# ---------------------------------------------------------------------------------------------- its commands


def _plan(args: argparse.Namespace, runs: Path) -> None:
    study = load_study(args.study, parse_overrides(args.overrides))
    print("\n".join(plan_lines(study, runs, hardware_of(args), args.price)))


def _run(args: argparse.Namespace, runs: Path) -> None:
    study, data = load_study(args.study, parse_overrides(args.overrides)), data_root(args.data)
    if args.emit_slurm:
        given = {name: value for name in ("gpus_per_node", "hours") if (value := getattr(args, name)) is not None}
        cluster = slurm.Cluster(**given, options=tuple(args.slurm))
        print(emit_slurm(study, args.documents, data, runs, args.emit_slurm, cluster, args.stale))
    else:
        print(f"report: {run(study, args.documents, data, runs, args.workers, args.stale)}")


def _unit(args: argparse.Namespace, runs: Path) -> None:
    do_unit(args.study, args.unit, data_root(args.data), runs, args.again)


def _status(args: argparse.Namespace, runs: Path) -> None:
    runs, name = study_of(args.study, runs)
    folder, units = runs / name, begun(name, runs)[2]
    if args.html is not None:
        write_page(survey(folder, units), args.html, folder)
        print(args.html)
    elif args.watch:
        watch(lambda: survey(folder, units))
    else:
        show(survey(folder, units), args.all)
        page = report_dir(runs, name) / "index.html"
        print(f"report: {page if page.is_file() else 'not yet'}")


def _collect(args: argparse.Namespace, runs: Path) -> None:
    """Exit code INCOMPLETE (5) where a planned cell has no score."""
    from analysis.collect import INCOMPLETE, collect, said

    found = collect(*study_of(args.study, runs), args.out)
    print(said(found))
    sys.exit(0 if found.complete else INCOMPLETE)


def _why(args: argparse.Namespace, runs: Path) -> None:
    from analysis.archive import study_at
    from analysis.why import answer, told

    with study_at(args.study, runs) as place:
        archive = args.study if args.study.endswith(".zip") else None
        facts = answer(*place, args.table, args.cell, args.recipe, archive)
    print(json.dumps(facts, indent=1) if args.json else told(facts))


def _publish(args: argparse.Namespace, runs: Path) -> None:
    from analysis.publish import publish, said

    runs, name = study_of(args.study, runs)
    units = begun(name, runs)[2] if (runs / name / "study.yaml").is_file() else []
    print(said(publish(runs, name, units, args.out, data_root(args.data), args.incomplete)))


def _clean(args: argparse.Namespace, runs: Path) -> None:
    from configs.workflow.clean import clean, removals, said

    runs, name = study_of(args.study, runs)
    parts = runs / name, begun(name, runs)[2], data_root(args.data), args.exports, args.all
    found = clean(*parts) if args.yes else removals(*parts)
    print(said(found, runs / name, removed=args.yes))


COMMANDS = {
    "plan": _plan,
    "run": _run,
    "unit": _unit,
    "status": _status,
    "collect": _collect,
    "why": _why,
    "publish": _publish,
    "clean": _clean,
}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    COMMANDS[args.command](args, runs_root(args.runs))


if __name__ == "__main__":
    main()
