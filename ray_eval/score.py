#!/usr/bin/env python3
"""Score checkpoints on multiple-choice benchmarks, one Parquet file for each checkpoint.

In: exports under <runs>/<study>, or any causal language model of transformers (--model), and benchmark rows. Out:
<runs>/<study>/scores/**/*.parquet (study `models` for --model), one row for each example, and a table of accuracies.
What is scored and unchanged is skipped, so a stopped run is resumed by starting it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started as a script: imports must find the project, not the folder of this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.arguments import count
from configs.clock import clock
from configs.errors import ArtifactError, ConfigError, ResourceError, user_errors
from configs.layout import data_root, runs_root
from configs.progress import ProgressDisplay
from ray_eval.options import check_found, check_together

if TYPE_CHECKING:
    from configs.errors import MagicError
    from ray_eval.checkpoints.checkpoint import Checkpoint
    from ray_eval.scoring import Progress, Summary

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
    add("--exports", metavar="PATH", nargs="+", type=Path, help="only these export folders")
    add(
        *("--model", "--models"),
        metavar="MODEL",
        nargs="+",
        action="extend",
        default=[],
        help="models of others: folders, or id or id@revision of the Hub (safetensors only)",
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


def settings(runs: Path, study: str, given: argparse.Namespace) -> dict[str, Any]:
    """documents_root, benchmarks and scoring: what study.py saved with the study, then the command line's."""
    from configs.artifacts import read_json
    from configs.load import load, load_benchmarks, validate
    from configs.schema import StudyConfig, StudyScoring
    from ray_eval.checkpoints.hf_checkpoint import STUDY

    saved, place = runs / study / "study.yaml", runs / study / "study.json"
    config = load(StudyConfig, saved) if saved.is_file() else None
    scoring = config.scoring if config else StudyScoring()
    benchmarks = config.benchmarks if config else ()
    keys = ("prompt", "shots", "precision")
    asked = {name: getattr(given, name) for name in keys if getattr(given, name) is not None}
    if given.limit is not None:
        asked["sample"] = given.limit or None
    if given.chat:
        asked["chat"] = True
    scoring = validate(StudyScoring, scoring.model_dump() | asked, "command line")
    if given.benchmarks:
        benchmarks = tuple(given.benchmarks.split(","))
        load_benchmarks(benchmarks)
    if given.data_root is not None:
        root = given.data_root.resolve()
        if not (root / "benchmarks").is_dir():
            raise ConfigError(
                "no folder benchmarks/ here", where=root, valid="--data-root of the layout benchmarks/<slug>/"
            )
    elif place.is_file():
        named = read_json(place).get("documents_root")
        root = Path(named) if named else None
    elif study == STUDY:
        root = None  # the Hub
    else:
        raise ConfigError(
            "where the benchmarks of this study lie is not recorded",
            where=place,
            hint="name the folder that holds benchmarks/ with --data-root",
        )
    return {"documents_root": root, "benchmarks": benchmarks, "scoring": scoring}


class Display(ProgressDisplay):
    """A bar on a terminal; elsewhere a line for each checkpoint, and one now and then."""

    def __call__(self, progress: Progress) -> None:
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


def work_done(summary: Summary) -> str:
    """What scoring took, in one line."""
    counts = summary.counts
    return (
        f"tokens forwarded {counts.tokens:,} = {counts.tokens / summary.least_tokens:.2f} x one pass a document,"
        f" padding {counts.padding / (counts.tokens + counts.padding):.1%}, output rows {counts.heads:,},"
        f" near-ties {counts.near_ties:,}"
    )


def find_checkpoints(
    given: argparse.Namespace, runs: Path, out: Path | None
) -> tuple[dict[tuple[Path, str], list[Checkpoint]], list[str]]:
    """(folder of the studies, study) -> its checkpoints, and why some of those asked for cannot be scored."""
    from ray_eval.checkpoints.exports import PATTERN, inspect_exports, read_export, studies_in

    chosen: dict[tuple[Path, str], list[Checkpoint]] = {}
    errors: list[MagicError] = []
    for path in given.exports or ():
        try:
            export = read_export(path, out)
            chosen.setdefault((export.run.runs, export.run.study), []).append(export)
        except ArtifactError as error:
            errors.append(error)
    if given.model:
        from ray_eval.checkpoints.hf_checkpoint import STUDY, read_models

        options = {"precision": given.precision, "trust_remote_code": given.trust_remote_code}
        models, unusable = read_models(given.model, out or runs, **options)
        errors.extend(unusable)
        if models:
            chosen[runs, STUDY] = [*models]
    if given.study or not (given.exports or given.model):
        studies = [given.study] if given.study else studies_in(runs)
        for study in (study for study in studies if any((runs / study).glob(PATTERN))):
            exports, damaged = inspect_exports(runs, study, out)
            chosen[runs, study] = [*exports]
            errors.extend(damaged)
    if given.study and (runs, given.study) not in chosen and given.model:  # without models, `main` says more
        errors.append(ArtifactError("no export of this study", where=runs / given.study))
    return chosen, [str(error) for error in errors]


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    check_together(given)
    expect_packages(*PACKAGES, *(() if given.no_ray else ("ray",)))

    from ray_eval.scoring import score_study
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
            hint="run `make study`, name the folder of your runs with --runs, or a model of others with --model",
        )
    for (folder, study), checkpoints in chosen.items():
        if not checkpoints:
            continue
        options = settings(folder, study, given)
        try:
            summary = score_study(
                folder,
                study,
                checkpoints=checkpoints,
                out=out,
                **options,
                num_workers=given.workers,
                gpus_per_worker=given.gpus_per_worker,
                use_ray=not given.no_ray,
                limit=given.checkpoints,
                replace=given.replace,
                progress=Display(LINE_EVERY_S),
                data=data,
            )
        except ArtifactError as error:  # of some checkpoints; those of the next study can still be scored
            errors.append(str(error))
            continue
        print(
            f"{study}: {summary.scored} checkpoints scored in {summary.seconds:.0f} s,"
            f" {summary.skipped} were up to date ({(out or folder) / study / 'scores'})"
        )
        if summary.scored:
            print(work_done(summary))
    print_summary([c for checkpoints in chosen.values() for c in checkpoints], full=given.table)
    if errors:
        raise ArtifactError("\n".join(errors))


if __name__ == "__main__":
    main()
