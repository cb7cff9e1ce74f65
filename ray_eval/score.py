#!/usr/bin/env python3
"""Score checkpoints: every export of a study on its benchmarks, one Parquet file for each.

In: exports under <runs>/<study>, benchmark rows. Out: <runs>/<study>/scores/**/*.parquet, one row for each example.
What is scored and unchanged is skipped, so a stopped run is resumed by starting it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started as a script: imports must find the project, not the folder of this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.errors import ArtifactError, ConfigError, user_errors
from configs.layout import runs_root

if TYPE_CHECKING:
    from ray_eval.exports import Export
    from ray_eval.scoring import Progress

EXAMPLES = """\
examples:
  ray_eval/score.py                                  every study below ./runs (or MAGIC_RUNS)
  ray_eval/score.py --study mini --workers 2         one study, two actors
  ray_eval/score.py --study mini --no-ray            in this process, without Ray
  ray_eval/score.py --study mini --data-root ../shared/data --sample 100 --replace
  ray_eval/score.py --exports runs/mini/mini_s/V1P0/seed0/pt/export/step-0000585
  ray job submit ray_eval/score.py                   on a cluster started in the project folder, environment active
  ray job submit --working-dir . -- python ray_eval/score.py --runs /shared/runs      on any other
"""


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
    add("--data-root", metavar="DIR", type=Path, help="folder that holds benchmarks/ (default: as the study says)")
    add("--benchmarks", metavar="A,B", help="slugs, or YAML files with benchmarks of your own (default: the study's)")
    add("--prompt", metavar="SET", help="prompt set, e.g. lettered (default: the study's, else each benchmark's first)")
    add("--shots", metavar="K", type=int, help="solved train rows in front of each example (default: the study's)")
    add("--chat", action="store_true", help="ask fine-tuned checkpoints in the chat format of their training")
    add("--sample", metavar="N", type=int, help="examples of each benchmark (default: the study's; 0: all)")
    add("--limit", metavar="N", type=int, help="score at most N checkpoints of a study")
    add("--workers", metavar="N", type=int, help="actors (default: one for each GPU, else for each CPU)")
    add("--no-ray", action="store_true", help="score in this process")
    add("--replace", action="store_true", help="overwrite scores made with other settings")
    return parser.parse_args(arguments)


def settings(runs: Path, study: str, given: argparse.Namespace) -> dict[str, Any]:
    """documents_root, benchmarks and scoring: what study.py saved with the study, then the command line's."""
    from configs.artifacts import read_json
    from configs.load import load, load_benchmarks, validate
    from configs.schema import StudyConfig, StudyScoring

    saved, place = runs / study / "study.yaml", runs / study / "study.json"
    config = load(StudyConfig, saved) if saved.is_file() else None
    scoring = config.scoring if config else StudyScoring()
    benchmarks = config.benchmarks if config else ()
    asked = {name: getattr(given, name) for name in ("prompt", "shots") if getattr(given, name) is not None}
    if given.sample is not None:
        asked["sample"] = given.sample or None
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
    else:
        raise ConfigError(
            "where the benchmarks of this study lie is not recorded",
            where=place,
            hint="name the folder that holds benchmarks/ with --data-root",
        )
    return {"documents_root": root, "benchmarks": benchmarks, "scoring": scoring}


def show(progress: Progress) -> None:
    """One line, rewritten in place on a terminal."""
    eta = "" if progress.eta_s is None else f" | ETA {int(progress.eta_s) // 60}:{int(progress.eta_s) % 60:02d}"
    line = (
        f"scoring {progress.study}: {progress.done}/{progress.total} checkpoints"
        f" | {progress.tokens_per_s:,.0f} tokens/s{eta}"
    )
    if progress.outcome and progress.outcome.error:
        print(f"\nfailed: {progress.outcome.unit.export.folder}", file=sys.stderr)
    live = sys.stdout.isatty() and progress.done < progress.total
    print(f"\r{line:<78}" if sys.stdout.isatty() else line, end="" if live else "\n", flush=True)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)

    from ray_eval.exports import PATTERN, read_export, studies_in
    from ray_eval.scoring import score_study

    runs = runs_root(given.runs)
    chosen: dict[tuple[Path, str], list[Export] | None] = {}  # None: every export of the study
    errors: list[str] = []
    if given.exports:
        named: dict[tuple[Path, str], list[Export]] = {}
        for path in given.exports:
            try:
                export = read_export(path)
                named.setdefault((export.run.runs, export.run.study), []).append(export)
            except ArtifactError as error:
                errors.append(str(error))
        chosen.update(named)
    else:
        studies = [given.study] if given.study else studies_in(runs)
        chosen = {(runs, study): None for study in studies if any((runs / study).glob(PATTERN))}
    if not chosen and not errors:
        raise ArtifactError(
            f"no complete export{f' of study {given.study}' if given.study else ''} is here",
            where=runs,
            valid="<runs>/<study>/<scale>/<mixture>/seed<k>/<stage>/export/step-<n>/export.json",
            hint="run `make study`, or name the folder of your runs with --runs",
        )
    for (folder, study), exports in chosen.items():
        options = settings(folder, study, given)
        try:
            summary = score_study(
                folder,
                study,
                exports=exports,
                **options,
                num_workers=given.workers,
                use_ray=not given.no_ray,
                limit=given.limit,
                replace=given.replace,
                progress=show,
            )
        except ArtifactError as error:  # of some checkpoints; those of the next study can still be scored
            errors.append(str(error))
            continue
        print(
            f"{study}: {summary.scored} checkpoints scored in {summary.seconds:.0f} s,"
            f" {summary.skipped} were up to date ({folder / study / 'scores'})"
        )
    if errors:
        raise ArtifactError("\n".join(errors))


if __name__ == "__main__":
    main()
