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
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import cluster as ray_cluster
from configs import load as config_files
from configs.artifacts import read_json, write_json, write_text
from configs.cost import add_hardware_options, describe, hardware_of, plan_study
from configs.errors import ArtifactError, ConfigError, DataError, MagicError, Preempted, ResourceError, user_errors
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
from configs.schema import StudyConfig
from configs.workflow import slurm
from configs.workflow.claims import claim, failure, note_failure
from configs.workflow.dispatch import WorkerDied, Workers, in_words, may_pass
from configs.workflow.display import clock
from configs.workflow.driver import CHECKED, Stale, alone, drive, finish, lost, settle
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

EXAMPLES = """examples:
  study.py plan paper --gpu H100 --gpus 64 --price 2.5                what it takes: GPU-hours, money, days
  study.py run configs/studies/mini.yaml                              the synthetic microworld, minutes on two cores
  study.py run configs/studies/real_small.yaml --documents ../shared/data
  study.py run paper --emit-slurm jobs --slurm=--partition=a100       sbatch scripts, and what submits them
  study.py run mini --workers 1 scoring.sample=50                     dotted overrides of the study
  study.py status mini --watch                                        live: who is at work, how far, what failed
  study.py collect mini --out mini.parquet                            metrics of what is scored, and what is missing
  study.py why mini table5 hellaswag mini_m accuracy                  from a number to command, commit, data, machine
  study.py publish mini --out mini.zip                                scores, report, configs: a zip beside a paper
  study.py clean mini --exports                                       what may go, and what is lost with it (--yes)
"""
SPARE_BYTES = 500e6
"""Kept free on the disk besides what the plan needs."""

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

        Token shards and the report keep what is still right.
        """
        if unit.kind == "score" and unit.folder is not None and unit.folder.done.is_file():
            self.products.score_file(unit).unlink(missing_ok=True)
        elif unit.kind in ("pretrain", "finetune") and unit.folder is not None:
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
        tokenize_study(self.study, self.documents or Path(), self.data, use_ray=self.on_ray)

    def _pretrain(self, unit: Unit) -> None:
        from megatron_train import pretrain, signals

        assert unit.run is not None
        with signals.awaited():
            pretrain.run(unit.run.config, self.study.name, self.data, self.runs, resume="auto")

    def _finetune(self, unit: Unit) -> None:
        from megatron_train import sft, signals

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
        )

    def _analyse(self, unit: Unit) -> None:
        from analysis.metrics import write_metrics
        from analysis.report import build_report

        for path in (metrics_file(self.runs, self.study.name), answers_file(self.runs, self.study.name)):
            path.unlink(missing_ok=True)  # nothing says that they are whole, or made by this code
        write_metrics(self.runs, self.study.name)
        build_report(self.runs, self.study.name)


# ---------------------------------------------------------------------------------------------- all of them


def documents_of(study: StudyConfig, given: str | None, data: Path) -> Path | None:
    """The folder with corpora/ and benchmarks/; None on the Hub. Raises DataError where it is not there."""
    if study.synthetic:
        return data / "microworld"  # generated when it is tokenised
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
    runs.mkdir(parents=True, exist_ok=True)
    need, free = plan_study(study).disk_bytes + SPARE_BYTES, shutil.disk_usage(runs).free
    if need > free:
        raise ResourceError(
            f"the study needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=runs,
            hint="free disk space, or name another folder with --runs",
        )


def run(
    study: StudyConfig, given: str | None, data: Path, runs: Path, workers: int | None = None, stale: Stale = "refuse"
) -> Path:
    """Do what is not done yet; returns the report's page."""
    began, folder = time.monotonic(), runs / study.name
    documents = documents_of(study, given, data)
    print(describe(plan_study(study)), flush=True)
    check_disk(study, runs)
    signal.signal(signal.SIGTERM, _stop)
    with alone(folder):
        begin(study, documents, runs)
        units = study_units(study, runs, documents)
        on_ray = bool(os.environ.get("RAY_ADDRESS"))
        page = Page(folder, units)
        try:
            work = Work(study, documents, data, runs, on_ray)
            with workers_of(work, workers) as team:
                shards = units[:1]
                seconds = drive(folder, shards, states(folder, shards), team, work.remove, page.keep)
                for _ in KINDS:  # what was made of a lost unit is judged once that is there again
                    if not (gone := lost(folder, units, work.products.intact)):
                        break
                    missing = dict.fromkeys((unit.name for unit in gone), State("missing"))
                    seconds |= drive(folder, gone, missing, team, work.remove, page.keep)
                found, units = settle(folder, units, stale)
                seconds |= drive(folder, units, found, team, work.remove, page.keep)
        finally:
            page.keep(at_once=True)
    print(summary(seconds, time.monotonic() - began))
    return report_dir(runs, study.name) / "index.html"


@contextlib.contextmanager
def workers_of(work: Work, count: int | None) -> Iterator[Workers]:
    """The cluster that RAY_ADDRESS names, else processes of this machine."""
    if work.on_ray:
        with ray_cluster.cluster():
            yield RayWorkers(work, work.command, work.outcome)
    else:
        with LocalWorkers(work, work.command, work.outcome, count, gpus_here()) as local:
            yield local


def do_unit(name: str, unit: str, data: Path, runs: Path, again: bool) -> None:
    """One unit of a study that was begun, with its record: what torchrun and Slurm start. Done already: nothing.

    again: make it anew whatever is there; without, a stale one is refused.
    """
    if "RANK" in os.environ:
        end_with_parent()
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
    main_rank, stopped = os.environ.get("RANK", "0") == "0", units_dir(folder) / f"{unit}.stopped"
    stopped.unlink(missing_ok=True)
    began = time.monotonic()
    if again:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"--again of {unit} under torchrun", hint=f"study.py run {name} --stale redo")
        work.remove(by_name[unit])
        record_file(folder, unit).unlink(missing_ok=True)
    try:
        product = work(by_name[unit])
    except Preempted as notice:
        if main_rank:
            write_text(stopped, f"{notice}\n")
        raise
    except Exception as error:
        if main_rank:
            note_failure(folder, unit, in_words(error), final=not may_pass(error))
        raise
    if main_rank:
        finish(folder, by_name[unit], product, time.monotonic() - began)


def emit_slurm(study: StudyConfig, given: str | None, data: Path, runs: Path, out: Path, cluster: slurm.Cluster) -> str:
    """Begin a study, and write what Slurm needs to do all of it; returns what to type."""
    documents, folder = documents_of(study, given, data), runs / study.name
    with alone(folder):
        begin(study, documents, runs)
    units = study_units(study, runs, documents)
    places = {"runs": runs, "data": data, "python": Path(sys.executable)}
    return f"bash {slurm.emit(out.resolve(), study.name, units, places, cluster)}"


def begin(study: StudyConfig, documents: Path | None, runs: Path) -> None:
    """What `begun` reads."""
    config_files.save(study, runs / study.name / "study.yaml")
    write_json(runs / study.name / "study.json", {"documents_root": str(documents) if documents else None})


def begun(name: str, runs: Path) -> tuple[StudyConfig, Path | None, list[Unit]]:
    """(study, folder of its documents, its units) as <runs>/<study> has them. Raises ArtifactError for another."""
    folder = runs / name
    if not (folder / "study.yaml").is_file():
        known = sorted(p.parent.name for p in runs.glob("*/study.yaml"))
        raise ArtifactError("no such study", where=folder, valid=", ".join(known) or "none has been started here")
    study = config_files.load(StudyConfig, folder / "study.yaml")
    root = read_json(folder / "study.json").get("documents_root")
    documents = Path(root) if root else None
    return study, documents, study_units(study, runs, documents)


def gpus_here() -> int:
    """Found without torch, so that this process stays light."""
    here = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return here if visible is None else min(here, len([name for name in visible.split(",") if name.strip()]))


def _stop(number: int, frame: object) -> None:
    raise Preempted("asked to end; trainings were saved where they stood", hint="the same command goes on")


def summary(seconds: Mapping[str, float], passed_s: float) -> str:
    """Of the units done in this call: how long, by kind; units of a kind run beside each other."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, taken in seconds.items():
        kinds[name.partition("/")[0]].append(taken)
    parts = [f"{len(kinds[kind])} {kind} {clock(sum(kinds[kind]))}" for kind in KINDS if kinds[kind]]
    return f"done in {clock(passed_s)} ({', '.join(parts) or 'nothing was missing'})"


def status(name: str, runs: Path, everything: bool, live: bool, html: Path | None) -> None:
    """Show how far a study is, or write it as a page."""
    _, _, units = begun(name, runs)
    if html is not None:
        write_page(survey(runs / name, units), html)
        print(html)
    elif live:
        watch(lambda: survey(runs / name, units))
    else:
        show(survey(runs / name, units), everything)
        page = report_dir(runs, name) / "index.html"
        print(f"report: {page if page.is_file() else 'not yet'}")


# ---------------------------------------------------------------------------------------------- what came out


def results_parsers(parser_of: Callable[[str, str], argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Of collect, why, publish and clean."""
    collecting = parser_of("collect", "derive metrics.parquet from the scores that are there, and list what is missing")
    collecting.add_argument("--out", type=Path, metavar="FILE", help="write a copy of metrics.parquet here")
    asking = parser_of("why", "from a number of the report back to scores, runs, commands, commit, data and hardware")
    asking.add_argument("--json", action="store_true", help="everything that is known, for machines")
    asking.add_argument("--recipe", help="SFT recipe of the tables (default: the study's first)")
    publishing = parser_of("publish", "a zip to put beside a paper: scores, metrics, report, configs; no weights")
    publishing.add_argument("--out", type=Path, required=True, metavar="FILE.zip")
    publishing.add_argument("--incomplete", action="store_true", help="although units are stale or missing")
    cleaning = parser_of("clean", "say what may go (resume points, caches, logs) and, with --yes, remove it")
    cleaning.add_argument("--exports", action="store_true", help="also exports that are scored and not needed any more")
    cleaning.add_argument("--all", action="store_true", help="the whole study, scores and report too")
    cleaning.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")
    for sub in (collecting, asking, publishing, cleaning):
        also = " (or a published zip)" if sub is asking else ""
        sub.add_argument("study", help=f"name of a study below the runs folder, or the path of its folder{also}")
    asking.add_argument("table", help="as the report names it: table5, 5, decisions, figure13; metrics: single cells")
    asking.add_argument("cell", nargs="*", help="words of its row and perhaps a column, as printed; beginnings do")
    return [collecting, asking, publishing, cleaning]


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


RESULTS = {"collect": _collect, "why": _why, "publish": _publish, "clean": _clean}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Plan a study, run it, or see how far it is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    parser_of: Callable[[str, str], argparse.ArgumentParser] = lambda name, text: commands.add_parser(  # noqa: E731
        name, help=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    planning = parser_of("plan", "what a study takes: units, GPU-hours, tokens, disk, money, days")
    add_hardware_options(planning)
    planning.set_defaults(gpus=8)  # a node
    planning.add_argument("--price", type=float, metavar="X", help="dollars for an hour of one GPU")
    running = parser_of("run", "run or resume a study, ending with its report")
    running.add_argument("--documents", metavar="DIR", help="folder with corpora/ and benchmarks/ (local data)")
    running.add_argument(
        "--workers", type=int, help="units at a time where there is no GPU (default: one for each CPU)"
    )
    running.add_argument(
        "--stale",
        choices=("refuse", "redo", "keep"),
        default="refuse",
        help="finished units whose configuration, code or inputs have changed since: stop and name them (default), "
        "make them again, or take them as they are and note it in their records",
    )
    running.add_argument(
        "--emit-slurm", type=Path, metavar="DIR", help="run nothing: write sbatch scripts and submit.sh"
    )
    running.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="of the Slurm cluster (default: 8)")
    running.add_argument("--hours", type=float, default=24.0, help="time limit of a Slurm job (default: 24)")
    running.add_argument("--slurm", action="append", default=[], metavar="OPTION", help="e.g. --slurm=--partition=a100")
    for sub in (planning, running):
        sub.add_argument("study", help="a path, or the name of a file in configs/studies")
        sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dotted overrides of the study")
    single = parser_of("unit", "do one unit of a study that was begun (what torchrun and Slurm start)")
    single.add_argument("study", help="name of a study below the runs folder")
    single.add_argument("unit", help="as `status` names it")
    single.add_argument("--again", action="store_true", help="make it anew, whatever is there")
    looking = parser_of("status", "what is done, at work, failed, stopped, stale or missing")
    looking.add_argument("study", help="name of a study below the runs folder")
    looking.add_argument("--all", action="store_true", help="name every unit")
    looking.add_argument("--watch", action="store_true", help="live, until nobody is at work on it")
    looking.add_argument("--html", type=Path, metavar="FILE", help="as a page (the driver keeps <study>/status.html)")
    collecting, asking, publishing, cleaning = results_parsers(parser_of)
    for sub in (running, single, publishing, cleaning):
        sub.add_argument("--data", metavar="DIR", help="tokenizers, token shards (default: MAGIC_DATA, ./data)")
    for sub in (running, planning, single, looking, collecting, asking, publishing, cleaning):
        sub.add_argument("--runs", metavar="DIR", help="where runs are kept (default: MAGIC_RUNS, ./runs)")
    args, rest = parser.parse_known_args(argv)
    if args.command == "why" and not any(part.startswith("-") for part in rest):
        args.cell, rest = [*args.cell, *rest], []  # words that follow an option
    if rest and not (hasattr(args, "overrides") and all("=" in part and part[0] != "-" for part in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    runs = runs_root(args.runs)
    if args.command == "status":
        status(args.study, runs, args.all, args.watch, args.html)
        return
    if args.command in RESULTS:
        RESULTS[args.command](args, runs)
        return
    if args.command == "unit":
        do_unit(args.study, args.unit, data_root(args.data), runs, args.again)
        return
    study = load_study(args.study, parse_overrides([*args.overrides, *rest]))  # also those that follow an option
    if args.command == "plan":
        print("\n".join(plan_lines(study, runs, hardware_of(args), args.price)))
        return
    if args.emit_slurm:
        cluster = slurm.Cluster(args.gpus_per_node, hours=args.hours, options=tuple(args.slurm))
        print(emit_slurm(study, args.documents, data_root(args.data), runs, args.emit_slurm, cluster))
        return
    page = run(study, args.documents, data_root(args.data), runs, args.workers, args.stale)
    print(f"report: {page}")


if __name__ == "__main__":
    main()
