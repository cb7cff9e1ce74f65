"""The work of the command ray_eval/score.py: find the checkpoints that were asked for, score them, show the result.

In: the parsed command line. Out: score files, a line of progress now and then, and a table of accuracies. Kept apart
from score.py, whose --help must not wait for torch.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.artifacts import read_json
from configs.clock import clock
from configs.errors import ArtifactError, ConfigError, MagicError
from configs.layout import StudyFolder, data_root, runs_root
from configs.load import load, load_benchmarks, validate
from configs.progress import ProgressDisplay
from configs.schema import StudyConfig, StudyScoring
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.checkpoints.exports import inspect_exports, read_export, studies_in
from ray_eval.checkpoints.hf_checkpoint import STUDY, read_models
from ray_eval.scoring import ScoreOptions, ScoringProgress, Summary, score_study
from ray_eval.summary import print_summary

LINE_EVERY_S = 30.0
"""Where there is no terminal."""

Found = tuple[StudyFolder, Checkpoint] | MagicError
"""A checkpoint and the study that it is scored in, or why it cannot be scored."""


def evaluate(given: argparse.Namespace) -> None:
    """Score everything that was asked for. Raises ArtifactError, last, for the checkpoints that could not be scored."""
    runs, data = runs_root(given.runs), data_root(given.data)
    out = given.out.expanduser().resolve() if given.out else None  # at once: a job runs in a folder that is thrown away
    chosen, errors = find_checkpoints(given, runs, out)
    check_found(given, runs, chosen)
    if not chosen and not errors:
        raise ArtifactError(
            f"no complete export{f' of study {given.study}' if given.study else ''} is here",
            where=runs,
            valid="<runs>/<study>/<scale>/<mixture>/seed<k>/<stage>/export/step-<n>/export.json",
            hint="run `make study`, name the folder of your runs with --runs, or a Hugging Face model with --model",
        )
    for study, checkpoints in chosen.items():
        options = ScoreOptions(
            **find_questions(study, given),
            checkpoints=checkpoints,
            limit=given.checkpoints,
            replace=given.replace,
            out=out,
            data=data,
            use_ray=not given.no_ray,
            num_workers=given.workers,
            gpus_per_worker=given.gpus_per_worker,
            progress=ProgressLine(LINE_EVERY_S),
        )
        try:
            summary = score_study(study, options)
        except ArtifactError as error:  # of some checkpoints; those of the next study can still be scored
            errors.append(str(error))
        else:
            print(format_summary(StudyFolder(out or study.runs, study.name), summary))
    # Before the errors: what was scored is shown even where some checkpoints failed.
    print_summary([c for checkpoints in chosen.values() for c in checkpoints], full=given.table)
    if errors:
        raise ArtifactError("\n".join(errors))


def find_checkpoints(
    given: argparse.Namespace, runs: Path, out: Path | None
) -> tuple[dict[StudyFolder, list[Checkpoint]], list[str]]:
    """Study -> its checkpoints, and why some of those asked for cannot be scored."""
    chosen: dict[StudyFolder, list[Checkpoint]] = defaultdict(list)
    errors = []
    exports = _exports_at(given.exports, out)
    for found in itertools.chain(exports, _models(given, runs, out), _exports_of_studies(given, runs, out)):
        if isinstance(found, MagicError):
            errors.append(str(found))
        else:
            study, checkpoint = found
            chosen[study].append(checkpoint)
    return chosen, errors


def _exports_at(folders: Sequence[Path], out: Path | None) -> Iterator[Found]:
    for folder in folders:
        try:
            export = read_export(folder, out)
            yield export.run.study, export
        except ArtifactError as error:
            yield error


def _models(given: argparse.Namespace, runs: Path, out: Path | None) -> Iterator[Found]:
    if given.model:
        models, unusable = read_models(given.model, out or runs, given.precision, given.trust_remote_code)
        for model in models:
            yield StudyFolder(runs, STUDY), model
        yield from unusable


def _exports_of_studies(given: argparse.Namespace, runs: Path, out: Path | None) -> Iterator[Found]:
    """Exports of the study that was named; of every study where no checkpoint was named in another way."""
    names = [given.study] if given.study else []
    if not (given.study or given.exports or given.model):
        names = studies_in(runs)
    for name in names:
        study = StudyFolder(runs, name)
        exports, damaged = inspect_exports(study, out)
        for export in exports:
            yield study, export
        yield from damaged
        if given.model and not exports and not damaged:  # without models, `evaluate` says more
            yield ArtifactError("no export of this study", where=study.path)


def check_found(given: argparse.Namespace, runs: Path, chosen: Mapping[StudyFolder, Sequence[Checkpoint]]) -> None:
    """Raises ConfigError where no checkpoint of the chosen studies is what an option is for."""
    stages = {checkpoint.columns["stage"] for checkpoints in chosen.values() for checkpoint in checkpoints}
    if given.chat and stages == {"PT"}:
        problem = "--chat, and none of these checkpoints is fine-tuned: pretrained ones are asked in plain text"
        raise ConfigError(problem, hint="leave it out, or name fine-tuned ones")
    for study in chosen:
        if given.runs and study.runs != runs:
            hint = "leave out --runs; --out DIR puts the scores elsewhere"
            raise ConfigError(f"exports of study {study.name} lie in {study.runs}, not below --runs {runs}", hint=hint)


def find_questions(study: StudyFolder, given: argparse.Namespace) -> dict[str, Any]:
    """documents_root, benchmarks and scoring: what study.py saved with the study, then the command line's."""
    config = load(StudyConfig, study.config) if study.config.is_file() else None
    scoring, benchmarks = (config.scoring, config.benchmarks) if config else (StudyScoring(), ())
    typed = {"prompt": given.prompt, "shots": given.shots, "precision": given.precision, "chat": given.chat or None}
    asked = {name: value for name, value in typed.items() if value is not None}
    if given.limit is not None:
        asked["sample"] = given.limit or None
    scoring = validate(StudyScoring, scoring.model_dump() | asked, "command line")
    if given.benchmarks:
        benchmarks = tuple(given.benchmarks.split(","))
        load_benchmarks(benchmarks)
    return {"documents_root": _documents_root(study, given.data_root), "benchmarks": benchmarks, "scoring": scoring}


def _documents_root(study: StudyFolder, data_root: Path | None) -> Path | None:
    """Folder that holds benchmarks/: the one that was typed, else the study's; None: the Hub."""
    record = study.path / "study.json"
    if data_root is not None:
        root = data_root.resolve()
        if not (root / "benchmarks").is_dir():
            valid = "--data-root of the layout benchmarks/<slug>/"
            raise ConfigError("no folder benchmarks/ here", where=root, valid=valid)
        return root
    if record.is_file():
        named = read_json(record).get("documents_root")
        return Path(named) if named else None
    if study.name == STUDY:
        return None
    hint = "name the folder that holds benchmarks/ with --data-root"
    raise ConfigError("where the benchmarks of this study lie is not recorded", where=record, hint=hint)


class ProgressLine(ProgressDisplay):
    """A bar on a terminal; elsewhere a line for each checkpoint, and one now and then."""

    def __call__(self, progress: ScoringProgress) -> None:
        eta = "" if progress.eta_s is None else f" | ETA {clock(progress.eta_s)}"
        line = (
            f"scoring {progress.study}: {progress.done}/{progress.total} checkpoints x {progress.num_benchmarks}"
            f" benchmarks, {progress.share:.0%} | {progress.examples_per_s:,.0f} examples/s"
            f" | {progress.tokens_per_s:,.0f} tokens/s{eta}"
        )
        step = progress.step
        if step and step.error:
            print(f"failed: {step.job.checkpoint.folder}", file=sys.stderr)
        self.show(line, progress.share, 1.0, at_once=step is None or bool(step.finished or step.error))
        if progress.done == progress.total:
            self.close()


def format_summary(study: StudyFolder, summary: Summary) -> str:
    """Lines that say what was scored, and what it took. `study`: the one that has the scores."""
    lines = [
        f"{study.name}: {summary.scored} checkpoints scored in {summary.seconds:.0f} s,"
        f" {summary.skipped} were up to date ({study.scores})"
    ]
    if summary.scored:
        counts = summary.counts
        lines.append(
            f"tokens forwarded {counts.tokens:,} = {counts.tokens / summary.least_tokens:.2f} x one pass a document,"
            f" padding {counts.padding / (counts.tokens + counts.padding):.1%}, output rows {counts.heads:,},"
            f" near-ties {counts.near_ties:,}"
        )
    return "\n".join(lines)
