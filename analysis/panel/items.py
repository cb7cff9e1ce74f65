"""A study's answers example by example, beside its panel of means.

In: <runs>/<study>/answers.parquet. Out: `Items`, in which the same place of two checkpoints is the same example.
Published metrics alone have no items; whatever needs single examples is then not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from analysis.scores.answers import RIGHT
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.untrusted.checks import understood
from configs.untrusted.parquet import metadata_of, readable


@dataclass(frozen=True)
class Items:
    values: dict[tuple[str, str, str, str], np.ndarray]
    """(scale, stage, slug, metric) -> float32 [seeds, mixtures, examples]: 1 or 0 for accuracy, the probability for
    confidence and confidence_scaled; NaN for checkpoints that were not scored."""
    examples: dict[tuple[str, str, str], str]
    """(scale, stage, slug) -> fingerprint of the examples' ids in order."""


def load_items(
    study: StudyFolder, shown: pd.DataFrame, seeds: tuple[int, ...], mixtures: tuple[str, ...]
) -> Items | None:
    """shown: keys (`analysis.scores.metrics.KEYS`) of the cells wanted; seeds, mixtures: in this order.

    None where there are no answers, only metrics. Raises ArtifactError for a damaged file.
    """
    path = study.answers
    if not path.is_file():
        return None
    with understood(path, hint="delete it"), readable(path, ArtifactError, "delete it"):
        made_from = [metadata_of(pq.read_schema(file)).get("scores") for file in (path, study.metrics)]
        if made_from[0] != made_from[1]:
            raise ArtifactError("made from other scores than metrics.parquet", where=path, hint="delete it")
        table = pq.read_table(path, page_checksum_verification=True)
        keys = table.select(list(shown)).to_pandas()
    wanted = set(shown.itertuples(index=False, name=None))
    columns = {"accuracy": f"{RIGHT}sum", "confidence": "confidence", "confidence_scaled": "confidence_scaled"}
    values: dict[tuple[str, str, str, str], np.ndarray] = {}
    examples: dict[tuple[str, str, str], str] = {}
    for row, key in enumerate(keys.itertuples(index=False)):
        if tuple(key) not in wanted:
            continue
        where = str(key.scale), str(key.stage), str(key.benchmark)
        examples[where] = table.column("examples")[row].as_py()
        for metric, column in columns.items():
            answers = table.column(column)[row].values.to_numpy(zero_copy_only=False)
            if (*where, metric) not in values:
                values[*where, metric] = np.full((len(seeds), len(mixtures), len(answers)), np.nan, np.float32)
            values[*where, metric][seeds.index(key.seed), mixtures.index(key.mixture)] = answers
    return Items(values, examples)
