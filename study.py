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
from dataclasses import dataclass, field
from pathlib import Path

from configs.artifacts import FileState, known_hashes, remember_hashes, write_json, write_text
from configs.clock import clock
from configs.cost.description import describe
from configs.cost.options import hardware_of
from configs.cost.plan import plan_study
from configs.documents import documents_of
from configs.errors import ArtifactError, ConfigError, MagicError, Preempted, ResourceError, user_errors
from configs.layout import (
    PROJECT_ROOT,
    StudyFolder,
    data_root,
    runs_root,
)
from configs.load import load_study, parse_overrides
from configs.runtime import cluster as ray_cluster
from configs.runtime import signals
from configs.runtime.locks import run_lock
from configs.schema import StudyConfig
from configs.workflow.arguments import parse
from configs.workflow.disk import check_disk
from configs.workflow.driver import (
    CHECKED,
    Stale,
    check_stale,
    drive,
    find_missing_products,
    record_done,
    resolve_stale,
)
from configs.workflow.plan import plan_lines
from configs.workflow.records.leases import hold_lease, read_failure, study_lock, write_failure
from configs.workflow.records.products import Products, step_of
from configs.workflow.records.records import State, read_record, record_file, states, units_dir
from configs.workflow.records.study_file import open_study, save_study
from configs.workflow.status.page import Page, write_page
from configs.workflow.status.survey import survey
from configs.workflow.units import KINDS, TRAININGS, Unit, study_units
from configs.workflow.workers import slurm
from configs.workflow.workers.dispatch import WorkerDied, Workers, format_error, may_pass
from configs.workflow.workers.local import LocalWorkers
from configs.workflow.workers.processes import end_with_parent
from mixtures.sources.identity import read_identities, source_bytes

# ---------------------------------------------------------------------------------------------- one unit


@dataclass(frozen=True)
class Work:
    """How to do the units of one study; goes to the processes that do them."""

    study: StudyConfig
    documents: Path | None
    """Folder with corpora/ and benchmarks/; None: the Hub."""
    data: Path
    folder: StudyFolder
    on_ray: bool = False
    hashes: Mapping[FileState, str] = field(default_factory=known_hashes)
    """sha256 of the input files that the driver has read, so that no worker process reads them again."""

    def __call__(self, unit: Unit) -> str:
        """Do it, or skip what of it is there; returns its product. Its log gets what it prints, and how it failed."""
        remember_hashes(self.hashes)
        log = units_dir(self.folder.path) / f"{unit.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            hold_lease(self.folder.path, unit.name) if _is_main_rank() else contextlib.nullcontext(),
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
        return Products(self.folder, self.data, self.documents if self.study.synthetic else None)

    def outcome(self, unit: Unit, code: int) -> str:
        """The product of a unit whose `command` has ended with this exit code. Raises what ended it."""
        if not code:
            return self.products.product(unit)
        failed = read_failure(self.folder.path, unit.name)
        if failed is not None and failed.final:
            raise MagicError(failed.message)
        raise WorkerDied(f"{unit.name} ended with exit code {code}; its log says why")

    def remove(self, unit: Unit) -> None:
        """Remove everything that a unit left and that was scored of it, so that it is made anew.

        Token shards and the report keep what is still right. Raises ResourceError where somebody works in its folder.
        """
        if unit.kind == "score" and unit.folder is not None and unit.folder.done.is_file():
            self.products.score_file(unit).unlink(missing_ok=True)
        elif unit.kind in TRAININGS and unit.folder is not None:
            with run_lock(unit.folder):
                unit.folder.done.unlink(missing_ok=True)  # first: half of a folder must not seem whole
                shutil.rmtree(unit.folder.path, ignore_errors=True)
                shutil.rmtree(self.folder.scores / unit.folder.name, ignore_errors=True)

    def command(self, unit: Unit, launch: Sequence[str]) -> list[str]:
        """The command that does a unit on several GPUs; launch: options of torchrun."""
        options = ["--runs", str(self.folder.runs), "--data", str(self.data)]
        script = [str(PROJECT_ROOT / "study.py"), "unit", self.study.name, unit.name]
        return [sys.executable, "-m", "torch.distributed.run", *launch, *script, *options]

    def _tokenize(self, unit: Unit) -> None:
        from mixtures.tokenize import tokenize_study

        if self.study.synthetic:
            from mixtures.microworld.declaration import declared
            from mixtures.microworld.generate import generate

            assert self.documents is not None
            generate(self.documents, self.study.data.megabytes_per_source)
            write_json(self.folder.declared, declared(self.study.mixtures))
        tokenize_study(self.study, self.documents, self.data, use_ray=self.on_ray)

    def _pretrain(self, unit: Unit) -> None:
        from megatron_train import pretrain

        assert unit.run is not None
        with signals.awaited():
            pretrain.run(unit.run.config, self.folder, self.data, resume="auto")

    def _finetune(self, unit: Unit) -> None:
        from megatron_train import sft

        assert unit.run is not None and unit.folder is not None
        parent = unit.folder.path.with_name("pt")
        with signals.awaited():
            sft.run(unit.run.config, parent, self.folder, self.data, resume="auto")

    def _score(self, unit: Unit) -> None:
        from ray_eval.checkpoints.exports import read_export
        from ray_eval.scoring import ScoreOptions, score_study

        assert unit.folder is not None
        score_study(
            self.folder,
            ScoreOptions(
                documents_root=self.documents,
                benchmarks=self.study.benchmarks,
                scoring=self.study.scoring,
                checkpoints=[read_export(unit.folder.export(step_of(unit)))],
                use_ray=False,
                data=self.data,
            ),
        )

    def _analyse(self, unit: Unit) -> None:
        from analysis.report.page import build_report
        from analysis.scores.metrics import write_metrics

        for path in (self.folder.metrics, self.folder.answers):
            path.unlink(missing_ok=True)  # nothing says that they are whole, or made by this code
        write_metrics(self.folder)
        build_report(self.folder)


# ---------------------------------------------------------------------------------------------- all of them


def run(
    study: StudyConfig, given: str | None, data: Path, runs: Path, workers: int | None = None, stale: Stale = "refuse"
) -> Path:
    """Do what is not done yet; returns the report's page."""
    began, folder = time.monotonic(), StudyFolder(runs, study.name)
    documents = documents_of(study, given, data)
    print(describe(plan_study(study)), flush=True)
    check_disk(study, lambda source: source_bytes(source, documents), data, runs)
    with signals.awaited(), study_lock(folder.path):
        units = study_units(study, runs, read_identities(study, documents))
        if check_stale(folder.path, units, stale):
            save_study(study, documents, runs)
        on_ray = bool(os.environ.get("RAY_ADDRESS"))
        page = Page(folder.path, units)

        def tick() -> None:
            _go_on()
            page.keep()

        try:
            work = Work(study, documents, data, folder, on_ray)
            with workers_of(work, workers) as team:
                shards = units[:1]
                seconds = drive(folder.path, shards, states(folder.path, shards), team, work.remove, tick)
                for _ in KINDS:  # what was made of a lost unit is judged once that is there again
                    if not (gone := find_missing_products(folder.path, units, work.products.intact)):
                        break
                    missing = dict.fromkeys((unit.name for unit in gone), State("missing"))
                    seconds |= drive(folder.path, gone, missing, team, work.remove, tick)
                found, units = resolve_stale(folder.path, units, stale)
                save_study(study, documents, runs)
                seconds |= drive(folder.path, units, found, team, work.remove, tick)
        finally:
            page.keep(at_once=True)
    print(summary(seconds, time.monotonic() - began))
    return folder.report / "index.html"


@contextlib.contextmanager
def workers_of(work: Work, count: int | None) -> Iterator[Workers]:
    """The cluster that RAY_ADDRESS names, else processes of this machine."""
    if work.on_ray:
        from configs.workflow.workers.on_ray import RayWorkers  # ray takes a second to import

        with ray_cluster.cluster(), RayWorkers(work, work.command, work.outcome) as team:
            yield team
    else:
        with LocalWorkers(work, work.command, work.outcome, count, gpus_here()) as local:
            yield local


def do_unit(folder: StudyFolder, name: str, data: Path, again: bool) -> None:
    """Do one unit of a study that was begun and record it: torchrun and Slurm start this. A finished unit is skipped.

    again: make it anew whatever is there; without, a stale one is refused. Raises Preempted where it is asked to end,
    and leaves <unit>.stopped, so that Slurm's script queues it again; a training saves first.
    """
    if "RANK" in os.environ:
        end_with_parent()
    try:
        with signals.raised():
            study, documents, units = _open_units(folder)
            unit = next((unit for unit in units if unit.name == name), None)
            if unit is None:
                raise ConfigError(
                    f"study {study.name} has no unit {name!r}", hint=f"python study.py status {study.name}"
                )
            work, found = Work(study, documents, data, folder), states(folder.path, units)
            if again or found[name].kind != "done" or not _is_intact(work, unit, units, found):
                _check_unit(folder, unit, found, again)
                _do_and_record(work, unit, again)
    except Preempted as notice:
        if _is_main_rank():
            write_text(units_dir(folder.path) / f"{name}.stopped", f"{notice}\n")
        raise


def _do_and_record(work: Work, unit: Unit, again: bool) -> None:
    folder = work.folder.path
    (units_dir(folder) / f"{unit.name}.stopped").unlink(missing_ok=True)
    began = time.monotonic()
    if again:
        work.remove(unit)
        record_file(folder, unit.name).unlink(missing_ok=True)
    try:
        product = work(unit)
    except Exception as error:
        # A unit that was asked to end has not failed: whoever asked starts it again.
        if _is_main_rank() and not isinstance(error, Preempted) and signals.received() is None:
            write_failure(folder, unit.name, format_error(error), final=not may_pass(error))
        raise
    if _is_main_rank():
        record_done(folder, unit, product, time.monotonic() - began)


def _is_main_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _is_intact(work: Work, unit: Unit, units: Sequence[Unit], found: Mapping[str, State]) -> bool:
    """Are the files of a finished unit there, with all that the units after it still need?"""
    record = read_record(work.folder.path, unit.name)
    waiting = [other for other in units if unit.name in other.inputs and found[other.name].kind != "done"]
    return record is not None and work.products.intact(unit, record.product, waiting)


def _check_unit(folder: StudyFolder, unit: Unit, found: Mapping[str, State], again: bool) -> None:
    """Raises ArtifactError for a missing input, ResourceError for a stale unit, ConfigError for `again` in torchrun."""
    if missing := [needed for needed in unit.inputs if found[needed].kind == "missing"]:
        raise ArtifactError(f"{unit.name} needs {missing[0]}, which is not done", where=folder.path)
    if again and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Ranks would remove what another has begun to write.
        raise ConfigError(f"--again of {unit.name} under torchrun", hint=f"study.py run {folder.name} --stale redo")
    if found[unit.name].kind == "stale" and unit.kind not in CHECKED and not again:
        raise ResourceError(
            f"{unit.name} is stale: {'; '.join(found[unit.name].reasons)}", hint="--again makes it anew"
        )


def _open_units(folder: StudyFolder) -> tuple[StudyConfig, Path | None, list[Unit]]:
    """(study, folder of its documents, its units) of a study that was begun."""
    study, documents = open_study(folder)
    return study, documents, study_units(study, folder.runs, read_identities(study, documents))


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
    documents, folder = documents_of(study, given, data), StudyFolder(runs, study.name)
    with study_lock(folder.path):
        units = study_units(study, runs, read_identities(study, documents))
        check_stale(folder.path, units, stale)
        if stale == "keep":
            resolve_stale(folder.path, units, stale)
        save_study(study, documents, runs)
    places = {"runs": runs, "data": data, "python": Path(sys.executable)}
    return f"bash {slurm.emit(out.resolve(), study.name, units, places, cluster)}"


def gpus_here() -> int:
    """Number of visible GPUs. Asked of the system and not of torch, so that this process stays light."""
    here = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return here if visible is None else min(here, len([name for name in visible.split(",") if name.strip()]))


def _go_on() -> None:
    """Raises Preempted where the driver was asked to end: between two events, so that no library is left half-way."""
    if name := signals.received():
        print(f"{name}: trainings save where they are, then it ends{' (again: now)' * (name == 'SIGINT')}", flush=True)
        raise Preempted("asked to end; trainings were saved where they stood", hint="the same command goes on")


def summary(seconds: Mapping[str, float], passed_s: float) -> str:
    """How long the units of this call took, by kind; units of a kind run beside each other."""
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
    do_unit(StudyFolder(runs, args.study), args.unit, data_root(args.data), args.again)


def _status(args: argparse.Namespace, runs: Path) -> None:
    from configs.workflow.status.terminal import show, watch

    study = StudyFolder.find(args.study, runs)
    units = _open_units(study)[2]
    if args.html is not None:
        write_page(survey(study.path, units), args.html, study.path)
        print(args.html)
    elif args.watch:
        watch(lambda: survey(study.path, units))
    else:
        show(survey(study.path, units), args.all)
        page = study.report / "index.html"
        print(f"report: {page if page.is_file() else 'not yet'}")


def _collect(args: argparse.Namespace, runs: Path) -> None:
    """Exit code INCOMPLETE (5) where a planned cell has no score."""
    from analysis.panel.collect import INCOMPLETE, collect, format_collected

    found = collect(StudyFolder.find(args.study, runs), args.out)
    print(format_collected(found))
    sys.exit(0 if found.complete else INCOMPLETE)


def _why(args: argparse.Namespace, runs: Path) -> None:
    from analysis.panel.archive import study_at
    from analysis.provenance.why import format_trace, trace_number

    with study_at(args.study, runs) as study:
        archive = args.study if args.study.endswith(".zip") else None
        facts = trace_number(study, args.table, args.cell, args.recipe, archive)
    print(json.dumps(facts, indent=1) if args.json else format_trace(facts))


def _publish(args: argparse.Namespace, runs: Path) -> None:
    from analysis.provenance.publish import format_published, publish

    study = StudyFolder.find(args.study, runs)
    units = _open_units(study)[2] if study.config.is_file() else []
    print(format_published(publish(study, units, args.out, data_root(args.data), args.incomplete)))


def _clean(args: argparse.Namespace, runs: Path) -> None:
    from configs.workflow.clean import clean, format_removals, removals

    study = StudyFolder.find(args.study, runs)
    parts = study.path, _open_units(study)[2], data_root(args.data), args.exports, args.all
    found = clean(*parts) if args.yes else removals(*parts)
    print(format_removals(found, study.path, removed=args.yes))


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
