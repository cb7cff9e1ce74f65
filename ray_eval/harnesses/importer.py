"""The work of the command ray_eval/import_results.py: find the samples of each model, identify it, write its scores.

In: the parsed command line. Out: one score file for each model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DataError, MagicError, printable
from configs.layout import StudyFolder, runs_root
from configs.load import validate
from configs.untrusted.checks import understood
from ray_eval.checkpoints.identity import Identity
from ray_eval.harnesses import lighteval_format, lm_eval_format
from ray_eval.harnesses.imported import SampleFile, checkpoint_of, imported_table, read_identities
from ray_eval.results import metadata_of, read_scores, write_scores


def import_results(given: argparse.Namespace) -> None:
    """Write a score file for every model that can be imported. Raises DataError, last, for the others."""
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
    """Describe each model, from --models or the command line. Raises ConfigError where that is not said for all."""
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
