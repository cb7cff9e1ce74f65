"""Scores that you already have, from lm-evaluation-harness or lighteval, as score files of a study.

In: lm-eval's `--log_samples` JSONL or lighteval's `--save-details` Parquet, each with its results JSON, as they lie in
the harness's output folder; and what no harness records about a model (its scale, mixture, stage, step, tokens). Out:
<runs>/<study>/scores/**/step-<n>.parquet, one file for each model, which `python -m analysis.tables` reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, DataError, MagicError, printable, user_errors
from configs.layout import StudyFolder, runs_root
from configs.untrusted.checks import understood

if TYPE_CHECKING:
    from ray_eval.checkpoints.identity import Identity
    from ray_eval.harnesses.imported import SampleFile

EXAMPLES = """\
examples:
  python -m ray_eval.import_results lm_eval_out/my__model --study mine --scale 240m --mixture V1P0 --step 5722 --tokens 12e9
  python -m ray_eval.import_results lm_eval_out lighteval_out --study mine --models models.yaml

models.yaml says what many models are, by the name the harness recorded or by that of its output folder:
  models:
    org/base-v1p0: {scale: 240m, mixture: V1P0, step: 5722, tokens: 12000000000}
    org/chat-v1p0: {scale: 240m, mixture: V1P0, stage: SFT, recipe: tulu, step: 900, tokens: 58000000}
models.csv says the same in the columns model,scale,mixture,stage,recipe,seed,step,tokens.

what is null, since no harness logs it: unconditional log-probabilities and tokens of a candidate (lighteval logs
tokens), truncation. What is turned: MultiRC's gold, which lm-eval inverts. What is refused: other prompts than
lm-eval 0.4.13's, lines that are cut or altered, a task twice. What is skipped, by name: tasks that are not benchmarks
of this project. Every model of a study must have been scored on the same examples (analysis checks it).
"""  # noqa: E501


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_eval.import_results",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", type=Path, help="output folders of a harness, or single files of samples")
    add("--study", metavar="NAME", required=True, help="study that gets the scores")
    add("--runs", metavar="DIR", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    add("--models", metavar="FILE", type=Path, help="YAML or CSV: model -> what it is, for many at once")
    one = parser.add_argument_group("one model, without --models")
    one.add_argument("--scale", metavar="NAME", help="e.g. 240m")
    one.add_argument("--mixture", metavar="NAME", help="e.g. V1P0")
    one.add_argument("--stage", choices=("PT", "SFT"), default="PT", help="default: PT")
    one.add_argument("--recipe", metavar="NAME", default="", help="of an SFT checkpoint")
    one.add_argument("--seed", metavar="K", type=int, default=0, help="default: 0")
    one.add_argument("--step", metavar="N", type=int, help="optimizer steps trained")
    one.add_argument("--tokens", metavar="N", type=float, help="tokens trained, e.g. 12e9")
    add("--replace", action="store_true", help="overwrite a score file that is there")
    return parser.parse_args(arguments)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    study = StudyFolder(runs_root(given.runs), given.study)
    models, skipped = find_models(given.paths)
    chosen = identify(models, given)
    for file in skipped:
        print(printable(f"not imported: {file.path} ({file.task}: {file.skip})"))
    targets: dict[Path, str] = {}
    for model, identity in chosen.items():
        path = identity.score_file(study)
        if path in targets:
            raise ConfigError(f"{targets[path]} and {model} are the same checkpoint of the study", where=path)
        targets[path] = model
    errors = []
    for path, model in targets.items():
        try:
            import_model(models[model], chosen[model], study.name, path, given.replace)
        except MagicError as error:
            errors.append(str(error))
    if errors:
        raise DataError(f"{len(errors)} of {len(chosen)} models were not imported\n" + "\n".join(errors))


def find_models(paths: Sequence[Path]) -> tuple[dict[str, list[SampleFile]], list[SampleFile]]:
    """Model -> its files of samples, and the files that hold nothing for us.

    Raises DataError where a path holds no samples, or nothing of all is ours.
    """
    from ray_eval.harnesses import lighteval_format, lm_eval_format

    def read_head(path: Path) -> SampleFile | None:
        return lm_eval_format.sample_file(path) or lighteval_format.sample_file(path)

    found: dict[Path, SampleFile] = {}
    for path in paths:
        here = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [read_head(file) for file in here if file.is_file()]
        if not any(files):
            valid = "samples_<task>_<date>.jsonl of lm-eval, details_<task>_<date>.parquet of lighteval"
            hint = "run lm-eval with --log_samples, lighteval with --save-details"
            raise DataError("no samples are here", where=path, valid=valid, hint=hint)
        found |= {file.path.resolve(): file for file in files if file is not None}  # a link adds no samples
    skipped = [file for file in found.values() if file.slug is None]
    models: dict[str, list[SampleFile]] = {}
    for file in found.values():
        if file.slug is not None:
            models.setdefault(file.model, []).append(file)
    if not models:
        reasons = ", ".join(f"{file.task} ({file.skip})" for file in skipped)
        raise DataError(f"nothing to import: {reasons}", where=", ".join(map(str, paths)))
    return models, skipped


def identify(models: dict[str, list[SampleFile]], given: argparse.Namespace) -> dict[str, Identity]:
    """What each model is, from --models or the command line. Raises ConfigError where that is not said for all."""
    from configs.load import validate
    from ray_eval.checkpoints.identity import Identity
    from ray_eval.harnesses.imported import read_identities

    keys = ("scale", "mixture", "stage", "recipe", "seed", "step", "tokens")
    if given.models is None:
        if len(models) > 1:
            hint = "name one model's folder, or say what each of them is with --models FILE"
            raise ConfigError(f"samples of {len(models)} models: {', '.join(models)}", hint=hint)
        tree = {key: value for key in keys if (value := getattr(given, key)) is not None}
        return {model: validate(Identity, tree, "command line, without --models") for model in models}
    if doubly := [f"--{key}" for key in ("scale", "mixture", "step", "tokens") if getattr(given, key) is not None]:
        raise ConfigError(f"--models and {', '.join(doubly)}: what a model is would be said twice", hint="use one")
    identities = read_identities(given.models)
    chosen = {}
    for model, files in models.items():
        names = (model, files[0].folder)
        identity = next((identities[name] for name in names if name in identities), None)
        if identity is None:
            raise ConfigError(
                f"model {model!r} is missing",
                where=given.models,
                valid=", ".join(identities),
                hint="add it to the file",
            )
        chosen[model] = identity
    return chosen


def import_model(files: Sequence[SampleFile], identity: Identity, study: str, path: Path, replace: bool) -> None:
    """Write one score file, or nothing. Raises DataError naming file and line, ConfigError where scores are there."""
    from ray_eval.harnesses.imported import checkpoint_of, imported_table
    from ray_eval.results import metadata_of, read_scores, write_scores

    if path.exists() and not replace and metadata_of(read_scores(path)).get("checkpoint") != checkpoint_of(files):
        hint = "--replace overwrites them; all files of a model are imported in one go"
        raise ConfigError("other scores of this checkpoint are there", where=path, hint=hint)
    read = [(file, file.read()) for file in files]
    with understood(f"samples of {files[0].model}", DataError):
        table = imported_table(study, identity, read)
    write_scores(table, path)
    print(path)
    for file, held in read:
        count = f"{len(held.samples)} of {held.size}"
        print(printable(f"  {file.slug or '':<16}{count:<16}{held.split:<20}{held.variant:<20}{file.path.name}"))


if __name__ == "__main__":
    main()
