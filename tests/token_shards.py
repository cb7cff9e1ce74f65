"""Token shards of given texts, made the way a study makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import SourceSpec
from mixtures.sources.source import Source
from mixtures.tokens.assembly import Assembly, assemble
from mixtures.tokens.sampling import Sample
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer


def write_source(root: Path, name: str, texts: Sequence[str | None], files: int = 1) -> Source:
    """A source of `files` Parquet files below `root`, which share the texts in order."""
    folder = root / "corpora" / name
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(texts) // files)
    for number in range(files):
        table = pa.table({"text": pa.array(texts[number * size : (number + 1) * size], pa.string())})
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    return Source(name, SourceSpec(kind="web", display=name, folder=name), root)


def tokenize_source(
    source: Source, tokenizer: Tokenizer, folder: Path, *, sample: Sample | None = None, workers: int | None = 1
) -> Shards:
    """The shards of one source in `folder`: those that are there if nothing changed, else made now."""
    assembly = Assembly(source, tokenizer, folder, sample)
    shards = assembly.existing() if folder.parent.is_dir() else None
    if shards is None:
        assemble([assembly], workers=workers)
        shards = Shards.open(folder)
    return shards


def make_shards(
    texts: Sequence[str | None], tokenizer: Tokenizer, folder: Path, *, files: int = 1, **options: Any
) -> Shards:
    """Shards of `texts` in `folder`; their Parquet files lie beside it."""
    root = folder.with_name(f"{folder.name}-documents")
    return tokenize_source(write_source(root, folder.name, texts, files), tokenizer, folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Path below `folder` -> bytes, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
