"""Sums of units to tables: one row for each source, one for each unit, histograms, cross-entropies.

In: the files of sums. Out: Arrow tables whose fields carry their unit and meaning as metadata. Units are read twice,
one at a time: the columns relative to the pool need the pool first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtures.statistics import unigram
from mixtures.statistics.features import Column, Feature
from mixtures.statistics.histogram import EDGES
from mixtures.statistics.measure import FeatureSums, merge_all, read_sums
from mixtures.statistics.unigram import Pool, TokenCounts

LABELS: Mapping[str, Column] = {
    "source": Column("", "name in configs/sources.yaml"),
    "unit": Column("", "input file"),
    "kind": Column("", "web, code or curated"),
    "text": Column("", "source of the text"),
    "model": Column("", "source of the unigram model"),
    "measure": Column("", "what is counted in each document: tokens or characters"),
    "shortest": Column("tokens or characters", "the bin holds documents from this length"),
    "longest": Column("tokens or characters", "to this length"),
    "nats_per_token": Column("nats/token", "cross-entropy of the text under the model of the other half"),
}


@dataclass(frozen=True)
class UnitFile:
    unit: str
    path: Path


@dataclass
class Statistics:
    """Tables of several sources: `units[source]` in the order of the source, `kinds[source]` for display."""

    units: Mapping[str, Sequence[UnitFile]]
    kinds: Mapping[str, str]
    features: Sequence[Feature]

    @cached_property
    def sums(self) -> dict[str, FeatureSums]:
        """Source -> sums over all its units."""
        return {
            source: reduce(merge_all, (read_sums(file.path) for file in files)) for source, files in self.units.items()
        }

    @cached_property
    def pool(self) -> Pool:
        return Pool(np.stack([sums[TokenCounts.name]["counts"] for sums in self.sums.values()]))

    @property
    def columns(self) -> dict[str, Column]:
        """Every measured column."""
        own = {name: column for feature in self.features for name, column in feature.columns.items()}
        return own | dict(unigram.COLUMNS)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One for each source."""
        return [
            {"source": source, "kind": self.kinds[source], **self._values(number, sums)}
            for number, (source, sums) in enumerate(self.sums.items())
        ]

    def sources_table(self) -> pa.Table:
        return self._table(self.rows)

    def units_table(self) -> pa.Table:
        rows = [
            {"source": source, "unit": file.unit, **self._values(number, read_sums(file.path))}
            for number, (source, files) in enumerate(self.units.items())
            for file in files
        ]
        return self._table(rows)

    def histograms_table(self) -> pa.Table:
        """Bins that hold documents, for each source and measure."""
        rows = []
        for source, sums in self.sums.items():
            for measure in ("tokens", "characters"):
                bins = sums["sizes"][f"{measure}_histogram"]
                rows += [
                    {
                        "source": source,
                        "measure": measure,
                        "shortest": int(EDGES[place]),
                        "longest": int(EDGES[place + 1]) - 1,
                        "documents": int(bins[place]),
                    }
                    for place in np.flatnonzero(bins)
                ]
        return self._table(rows)

    def cross_entropy_table(self) -> pa.Table:
        """Each source's text under each source's model."""
        rows = [
            {"text": text, "model": model, "nats_per_token": float(nats)}
            for text, sums in self.sums.items()
            for model, nats in zip(self.sums, self.pool.cross_entropies(sums[TokenCounts.name]["counts"]), strict=True)
        ]
        return self._table(rows)

    def tables(self) -> dict[str, pa.Table]:
        """File name without .parquet -> table."""
        return {
            "sources": self.sources_table(),
            "units": self.units_table(),
            "histograms": self.histograms_table(),
            "cross_entropy": self.cross_entropy_table(),
        }

    def _values(self, source: int, sums: FeatureSums) -> dict[str, Any]:
        own: dict[str, Any] = {
            name: value for feature in self.features for name, value in feature.values(sums[feature.name]).items()
        }
        counts = sums[TokenCounts.name]["counts"]
        return own | self.pool.values(counts, source, own["utf8_bytes"], own["documents"])

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        columns = self.columns | dict(LABELS)
        names = list(rows[0])
        table = pa.table({name: [row[name] for row in rows] for name in names})
        fields = [
            table.schema.field(name).with_metadata({"unit": columns[name].unit, "meaning": columns[name].meaning})
            for name in names
        ]
        # A column that is null throughout has no type of its own.
        fields = [field.with_type(pa.float64()) if pa.types.is_null(field.type) else field for field in fields]
        return table.cast(pa.schema(fields))
