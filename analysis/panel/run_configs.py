"""How a scale was trained: the config that a run left in its folder, else what study.yaml and configs/ say.

In: config.yaml of run folders, study.yaml. Out: a `TrainConfig`, or why it is unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from configs.errors import ConfigError
from configs.layout import StudyFolder, stage_name
from configs.load import load, pretrain_config, sft_config
from configs.schema import StudyConfig, TrainConfig
from configs.untrusted.checks import is_name


def config_of(
    folder: StudyFolder,
    study: StudyConfig | None,
    scale: str,
    recipe: str | None,
    mixtures: Sequence[str],
    seeds: Sequence[int],
) -> TrainConfig | str:
    """Return the config of the first run that left one; recipe: of SFT, None for pretraining. A str says why not.

    What one version of this project wrote, or a study of other people, need not be a config of this version.
    """
    trained = filter(is_name, mixtures if is_name(scale) else ())  # others were given, by tables of numbers
    for mixture, seed in itertools.product(trained, seeds):
        run = folder.run(scale, mixture, seed, stage_name(recipe or ""))
        if (run.path / "config.yaml").is_file():
            try:
                return load(TrainConfig, run.path / "config.yaml")
            except ConfigError as error:
                return f"{run.name}/config.yaml: {error.problem}"
    if study is None:
        return f"{scale}: neither a run folder nor study.yaml says more"
    if recipe is not None and recipe not in study.recipes:
        return f"{scale}: study.yaml has no SFT recipe {recipe!r}"
    try:
        if recipe is None:
            return pretrain_config(study, scale, mixtures[0], seeds[0])
        return sft_config(study, scale, recipe, seeds[0])
    except ConfigError as error:  # the study's configs are not here, its scores are
        return f"{scale}: {error.problem}"
