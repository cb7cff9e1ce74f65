"""One model for each kind of YAML; every field says its meaning and unit.

    training.py   one run           data.py   sources, mixtures, benchmarks           study.py   a grid of runs

Impossible values are refused here, with the key named; `configs.load` adds the file.
"""

from configs.schema.base import Count, Fraction, Model, Positive
from configs.schema.data import (
    SOURCE_KINDS,
    WEIGHT_TOLERANCE,
    BenchmarkConfig,
    Corpus,
    MixtureConfig,
    PromptSet,
    SftSpec,
    SourcesConfig,
    SourceSpec,
)
from configs.schema.study import StudyConfig, StudyData, StudyScale, StudyScoring, StudyTokenizer
from configs.schema.training import Batch, Budget, ModelShape, Optimizer, Parallel, TrainConfig, TrainData, Validation

__all__ = [
    "SOURCE_KINDS",
    "WEIGHT_TOLERANCE",
    "Batch",
    "BenchmarkConfig",
    "Budget",
    "Corpus",
    "Count",
    "Fraction",
    "MixtureConfig",
    "Model",
    "ModelShape",
    "Optimizer",
    "Parallel",
    "Positive",
    "PromptSet",
    "SftSpec",
    "SourceSpec",
    "SourcesConfig",
    "StudyConfig",
    "StudyData",
    "StudyScale",
    "StudyScoring",
    "StudyTokenizer",
    "TrainConfig",
    "TrainData",
    "Validation",
]
