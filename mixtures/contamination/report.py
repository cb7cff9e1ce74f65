"""What was found, three ways: by hit, by benchmark item, by source and benchmark.

    hits.parquet     one row for each document, item and text of the item (`HITS`)
    items.parquet    one row for each item; (benchmark, example_id) joins with score files (`items_schema`)
    summary.csv      source x benchmark: items, assessable, touched, at least half of a text found, a whole text found

`overlap` is a share of one text's n-grams: in a hit, of those that stand in that document; in the other two, of those
that stand anywhere in the source (or in all sources of a kind), for the text of the item that has most of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from configs.artifacts import atomic_file
from configs.schema import SOURCE_KINDS
from mixtures.contamination.index import Index, matches
from mixtures.contamination.items import Catalogue
from mixtures.contamination.words import Places

SFT_KIND = "sft"
KINDS = (*SOURCE_KINDS, SFT_KIND)
FILES = ("hits.parquet", "items.parquet", "summary.csv")

HITS = pa.schema(
    {
        "source": pa.string(),
        "kind": pa.string(),  # of the source: web, code, curated or sft
        "unit": pa.string(),
        "row": pa.int64(),  # of the unit, from 0
        "benchmark": pa.string(),
        "example_id": pa.string(),  # <split>/<row>, as in score files
        "field": pa.string(),  # which text of the item; "reading": question and right answer
        "num_words": pa.int32(),  # of that text
        "num_ngrams": pa.int32(),
        "positions": pa.list_(pa.int32()),  # word at which each n-gram found begins, ascending
        "overlap": pa.float64(),  # len(positions) / num_ngrams
        "matched": pa.string(),  # the longest run of words found, as folded
    }
)
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UnitHits:
    """What one unit holds: n-gram `place[i]` of the index in row `row[i]`; sorted, each pair once."""

    source: str
    kind: str
    unit: str
    row: Places
    place: Places
    totals: Mapping[str, int]
    """Documents, words and UTF-8 bytes of text read."""


def write(folder: Path, catalogue: Catalogue, index: Index, units: Sequence[UnitHits]) -> None:
    """Write the three files."""
    kinds = {unit.source: unit.kind for unit in units}
    held = _held(index, units)
    with (
        atomic_file(folder / "hits.parquet") as stream,
        pq.ParquetWriter(stream, HITS, compression="zstd") as writer,
    ):
        for table in hits_tables(catalogue, index, units):
            writer.write_table(table)
    with atomic_file(folder / "items.parquet") as stream:
        pq.write_table(items_table(catalogue, index, held, kinds), stream, compression="zstd")
    with atomic_file(folder / "summary.csv", "w") as stream:
        summary(catalogue, index, held, kinds).to_csv(stream, index=False, lineterminator="\n")


def _held(index: Index, units: Iterable[UnitHits]) -> dict[str, npt.NDArray[np.bool_]]:
    """Source -> which of the index's n-grams stand in it; bool [places]."""
    held: dict[str, npt.NDArray[np.bool_]] = {}
    for unit in units:
        held.setdefault(unit.source, np.zeros(len(index.ids), dtype=np.bool_))[unit.place] = True
    return held


def hits_tables(catalogue: Catalogue, index: Index, units: Iterable[UnitHits]) -> Iterator[pa.Table]:
    """The rows of hits.parquet, unit by unit."""
    known = np.flatnonzero(catalogue.text_of >= 0)
    owners = known[np.argsort(catalogue.text_of[known], kind="stable")]
    for unit in units:
        if len(unit.row):
            yield _hits_table(catalogue, index, owners, unit)


def _hits_table(catalogue: Catalogue, index: Index, owners: Places, hits: UnitHits) -> pa.Table:
    """One row for each (document, text) of `hits` and each owner of that text."""
    text = index.text_at(hits.place)
    first = np.flatnonzero(np.diff(hits.row, prepend=-1).astype(bool) | np.diff(text, prepend=-1).astype(bool))
    row, text_of_pair = hits.row[first], text[first]
    positions = (hits.place - index.bounds[text]).astype(np.int32)
    per_pair = np.split(positions, first[1:])
    lists = pa.ListArray.from_arrays(np.append(first, len(text)).astype(np.int32), positions)
    matched = pa.array(_longest(index, t, found) for t, found in zip(text_of_pair.tolist(), per_pair, strict=True))

    pair, place = matches(text_of_pair, catalogue.text_of[owners])
    owner = owners[place]
    items = [catalogue.items[number] for number in catalogue.item_of[owner].tolist()]
    num_ngrams = index.ngrams[text_of_pair][pair]
    columns = {
        "source": [hits.source] * len(pair),
        "kind": [hits.kind] * len(pair),
        "unit": [hits.unit] * len(pair),
        "row": row[pair],
        "benchmark": [item.benchmark for item in items],
        "example_id": [item.example_id for item in items],
        "field": [catalogue.fields[f] for f in owner.tolist()],
        "num_words": np.diff(index.bounds)[text_of_pair][pair],
        "num_ngrams": num_ngrams,
        "positions": lists.take(pa.array(pair)),
        "overlap": np.diff(np.append(first, len(text)))[pair] / num_ngrams,
        "matched": matched.take(pa.array(pair)),
    }
    return pa.table({name: pa.array(values).cast(HITS.field(name).type) for name, values in columns.items()})


def _longest(index: Index, text: int, positions: npt.NDArray[np.int32]) -> str:
    """The words of the longest run of neighbouring `positions`."""
    breaks = np.flatnonzero(np.diff(positions) > 1)
    begin = positions[np.append(0, breaks + 1)]
    last = positions[np.append(breaks, len(positions) - 1)]
    run = int(np.argmax(last - begin))
    return index.words(text, int(begin[run]), int(last[run] - begin[run] + index.lengths[text]))


def items_table(catalogue: Catalogue, index: Index, held: Mapping[str, Any], kinds: Mapping[str, str]) -> pa.Table:
    """items.parquet: one row for each item. `kinds`: source -> its kind; a kind that no source has is null.

    benchmark, example_id; assessable (some text has enough words); overlap (of all sources together; null where not
    assessable) and the same for each kind; fields: the texts that were found in part or whole, with commas between.
    """
    by_kind = {kind: [held[source] for source in kinds if kinds[source] == kind] for kind in KINDS}
    shares = {name: _text_shares(index, masks) for name, masks in ({"overlap": [*held.values()]} | by_kind).items()}
    known = np.flatnonzero(catalogue.text_of >= 0)
    touched: list[list[str]] = [[] for _ in catalogue.items]
    for f in known[shares["overlap"][catalogue.text_of[known]] > 0].tolist():
        touched[catalogue.item_of[f]].append(catalogue.fields[f])
    return pa.table(
        {
            "benchmark": pa.array([item.benchmark for item in catalogue.items], pa.string()),
            "example_id": pa.array([item.example_id for item in catalogue.items], pa.string()),
            "assessable": np.isin(np.arange(len(catalogue.items)), catalogue.item_of[known]),
            **{
                name: pa.array(catalogue.best(share), pa.float64(), from_pandas=True)  # NaN becomes null
                for name, share in shares.items()
            },
            "fields": pa.array([", ".join(names) for names in touched], pa.string()),
        }
    )


def _text_shares(index: Index, held: Sequence[npt.NDArray[np.bool_]]) -> Shares:
    """Share of each text's n-grams that any of `held` marks, NaN where there is none; float64 [texts of the index]."""
    if not held:
        return np.full(len(index.ngrams), np.nan)
    ends = np.append(0, np.cumsum(np.logical_or.reduce(held), dtype=np.int64))[index.bounds]
    return np.diff(ends) / index.ngrams


ALL = "all"


def summary(catalogue: Catalogue, index: Index, held: Mapping[str, Any], kinds: Mapping[str, str]) -> pd.DataFrame:
    """summary.csv: counts of a benchmark's items, for each source and for `all` of them together.

    items; assessable; touched (they share at least one n-gram with the source); half and whole (at least half, or all,
    of the n-grams of one text); share: touched of the assessable ones, missing where there are none.
    """
    masks = {source: [held[source]] for source in kinds} | {ALL: [*held.values()]}
    rows = []
    for source, found in masks.items():
        shares = catalogue.best(_text_shares(index, found))
        for slug, numbers in catalogue.benchmarks().items():
            share = shares[numbers]
            counts = (~np.isnan(share), share > 0, share >= 0.5, share == 1)
            rows.append((source, kinds.get(source, ALL), slug, len(share), *(int(c.sum()) for c in counts)))
    columns = ["source", "kind", "benchmark", "items", "assessable", "touched", "half", "whole"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(share=table["touched"] / table["assessable"])


def read_summary(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "summary.csv", keep_default_na=False, na_values={"share": [""]})


def lines(table: pd.DataFrame) -> list[str]:
    """The summary for a terminal: touched items of each benchmark (rows) in each source (columns)."""
    together = table[table["source"] == ALL].set_index("benchmark")
    shown = together[["items", "assessable"]].copy()
    for source, rows in table.groupby("source", sort=False):
        shown[source] = rows.set_index("benchmark")["touched"]
    shown = shown.map("{:,}".format)
    shown["share"] = ["-" if np.isnan(share) else f"{share:.1%}" for share in together["share"]]
    return shown.reset_index().to_string(index=False).splitlines()
