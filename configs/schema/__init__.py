"""One model for each kind of YAML; every field says its meaning and unit.

    training.py   one run           data.py   sources, mixtures, benchmarks           study.py   a grid of runs

Impossible values are refused here, with the key named; `configs.load` adds the file.
"""

from configs.schema.base import Count, Model
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
