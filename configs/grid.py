"""The grid of a study: every training that it runs.

In: a study. Out: one resolved config for each run, which says its scale, stage, recipe, mixture and seed.
"""

from __future__ import annotations

from collections.abc import Iterator

from configs.load import pretrain_config, sft_config
from configs.schema import StudyConfig, TrainConfig


def training_runs(study: StudyConfig) -> Iterator[TrainConfig]:
    """For each scale, mixture and seed the pretraining, then every fine-tuning of it."""
    for scale in study.scales:
        tunings = [sft_config(study, scale, recipe, seed=0) for recipe in study.recipes]
        for mixture in study.mixtures:
            pretraining = pretrain_config(study, scale, mixture, seed=0)
            for seed in study.seeds_of(mixture):
                yield from (config.of(mixture, seed) for config in (pretraining, *tunings))
