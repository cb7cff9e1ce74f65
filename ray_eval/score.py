#!/usr/bin/env python3
"""Score checkpoints on multiple-choice benchmarks, one Parquet file for each checkpoint.

In: exports under <runs>/<study>, or any causal language model of transformers (--model), and benchmark rows. Out:
<runs>/<study>/scores/**/*.parquet (study `models` for --model), one row for each example, and a table of accuracies.
What is scored and unchanged is skipped, so a stopped run is resumed by starting it again.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started as a script: imports must find the project, not the folder of this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.arguments import count
from configs.clock import clock
from configs.errors import ArtifactError, ConfigError, MagicError, ResourceError, user_errors
from configs.layout import StudyFolder, data_root, runs_root
from configs.progress import ProgressDisplay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray_eval.checkpoints.checkpoint import Checkpoint
    from ray_eval.scoring import ScoringProgress, Summary

EXAMPLES = """\
examples:
  ray_eval/score.py                                  every study below ./runs (or MAGIC_RUNS)
  ray_eval/score.py --study mini --workers 2         one study, two actors
  ray_eval/score.py --study mini --no-ray            in this process, without Ray
  ray_eval/score.py --study mini --data-root ../shared/data --limit 100 --replace
  ray_eval/score.py --exports runs/mini/mini_s/V1P0/seed0/pt/export/step-0000585
  ray_eval/score.py --model EleutherAI/pythia-160m EleutherAI/pythia-160m@step1000 --benchmarks piqa,arc_easy
  ray_eval/score.py --model ~/models/mine --out scores --limit 200
  ray job submit ray_eval/score.py                   on a cluster started in the project folder, environment active
  ray job submit --working-dir . -- python ray_eval/score.py --runs /shared/runs      on any other
"""

LINE_EVERY_S = 30.0
"""Where there is no terminal."""
PACKAGES = ("jinja2", "numpy", "pyarrow", "pydantic", "rich", "safetensors", "tokenizers", "torch", "yaml")


def expect_packages(*names: str) -> None:
    """Raises ResourceError where this Python lacks some: a job runs with the one that `ray start` found."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ResourceError(
            f"this Python lacks {', '.join(missing)}",
            where=sys.executable,
            hint="activate the project's environment (source .venv/bin/activate), on a cluster before `ray start`",
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ray_eval/score.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", metavar="DIR", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    add("--study", metavar="NAME", help="one study (default: every study with a complete export)")
    add("--exports", metavar="PATH", nargs="+", type=Path, default=[], help="only these export folders")
    add(
        *("--model", "--models"),
        metavar="MODEL",
        nargs="+",
        action="extend",
        default=[],
        help="any Hugging Face causal LM: folders, or id or id@revision of the Hub (safetensors only)",
    )
    add("--out", metavar="DIR", type=Path, help="write plans and scores below DIR/<study> (default: --runs)")
    add("--data-root", metavar="DIR", type=Path, help="folder that holds benchmarks/ (default: as the study says)")
    add("--data", metavar="DIR", help="keeps the commits of benchmarks of the Hub (default: MAGIC_DATA, else ./data)")
    add("--benchmarks", metavar="A,B", help="slugs, or YAML files with benchmarks of your own (default: the study's)")
    add("--prompt", metavar="SET", help="prompt set, e.g. lettered (default: the study's, else each benchmark's first)")
    add("--shots", metavar="K", type=int, help="solved train rows in front of each example (default: the study's)")
    add("--chat", action="store_true", help="ask fine-tuned checkpoints of ours in the chat format of their training")
    add(
        "--limit",
        metavar="N",
        type=int,
        help="examples of each benchmark, a fixed random sample (default: the study's; 0: all)",
    )
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the weights (default: the study's; of a --model, as stored)",
    )
    add("--trust-remote-code", action="store_true", help="run the Python code that comes with a --model (recorded)")
    add("--checkpoints", metavar="N", type=count, help="score at most N checkpoints of a study")
    add("--workers", metavar="N", type=count, help="actors (default: one for each GPU, else for each CPU)")
    add(
        "--gpus-per-worker",
        metavar="F",
        type=float,
        default=1.0,
        help="0.5: two workers on one; 2: two share each model (default: 1)",
    )
    add("--no-ray", action="store_true", help="score in this process")
    add("--replace", action="store_true", help="overwrite scores made with other settings")
    add("--table", action="store_true", help="end with a table for each checkpoint, however many they are")
    return parser.parse_args(arguments)


def check_options(given: argparse.Namespace) -> None:
    """What was typed is done or refused: raises ConfigError for an option that another one leaves without use."""
    one = "leave out one of the two"
    here = "with --no-ray, which scores in this process"
    model = " ".join(given.model[:1])
    other_chat = (
        "leave out --chat; or score it with lm-evaluation-harness and --apply_chat_template, and take its results over"
        " (python -m ray_eval.import_results --help)"
    )
    conflicts = (
        (given.no_ray and given.workers is not None, f"--workers {here}", one),
        (given.no_ray and given.gpus_per_worker < 1, f"a part of a GPU {here}", one),
        (given.exports and given.study, "--study with --exports, which scores those folders only", one),
        (
            given.data and given.data_root,
            "--data, which keeps commits of the Hub, with --data-root, which is read instead",
            one,
        ),
        (
            given.trust_remote_code and not model,
            "--trust-remote-code without --model",
            "leave it out: no code of an export is ever run",
        ),
        (
            given.chat and model,
            f"--chat with --model {model}: only checkpoints that were trained here are asked in chat",
            other_chat,
        ),
    )
    for is_typed, problem, hint in conflicts:
        if is_typed:
            raise ConfigError(problem, hint=hint)


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
    from configs.load import load, load_benchmarks, validate
    from configs.schema import StudyConfig, StudyScoring

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
    from configs.artifacts import read_json
    from ray_eval.checkpoints.hf_checkpoint import STUDY

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


def find_checkpoints(
    given: argparse.Namespace, runs: Path, out: Path | None
) -> tuple[dict[StudyFolder, list[Checkpoint]], list[str]]:
    """Study -> its checkpoints, and why some of those asked for cannot be scored."""
    from ray_eval.checkpoints.exports import inspect_exports, read_export, studies_in
    from ray_eval.checkpoints.hf_checkpoint import STUDY, read_models

    chosen: dict[StudyFolder, list[Checkpoint]] = defaultdict(list)
    errors: list[MagicError] = []
    for path in given.exports:
        try:
            export = read_export(path, out)
            chosen[export.run.study].append(export)
        except ArtifactError as error:
            errors.append(error)
    if given.model:
        models, unusable = read_models(given.model, out or runs, given.precision, given.trust_remote_code)
        chosen[StudyFolder(runs, STUDY)].extend(models)
        errors.extend(unusable)
    names = [given.study] if given.study else []
    if not (given.study or given.exports or given.model):
        names = studies_in(runs)
    for name in names:
        study = StudyFolder(runs, name)
        exports, damaged = inspect_exports(study, out)
        chosen[study].extend(exports)
        errors.extend(damaged)
        if given.model and not exports and not damaged:  # without models, `main` says more
            errors.append(ArtifactError("no export of this study", where=study.path))
    return {study: found for study, found in chosen.items() if found}, [str(error) for error in errors]


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    check_options(given)
    expect_packages(*PACKAGES, *(() if given.no_ray else ("ray",)))

    from ray_eval.scoring import ScoreOptions, score_study
    from ray_eval.summary import print_summary

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
    print_summary([c for checkpoints in chosen.values() for c in checkpoints], full=given.table)
    if errors:
        raise ArtifactError("\n".join(errors))


if __name__ == "__main__":
    main()
