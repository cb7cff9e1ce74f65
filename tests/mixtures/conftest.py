"""A small tokenizer, random text and Parquet writers for the tests of this room."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

WORDS = (
    *("the", "stone", "river", "keeps", "a", "lantern", "under", "bridge", "because", "winter", "returns", "1984"),
    *("def", "return", "x_1", "naïve", "Straße", "Ελλάδα", "море", "水", "مرحبا", "🙂", "don't", "it's", "...", "--"),
)


def make_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [
        f"{rng.choice(WORDS)} {seed}-{n}"
        + "".join(rng.choice((" ", " ", " ", "\n", "  ", ", ")) + rng.choice(WORDS) for _ in range(rng.randint(0, 40)))
        for n in range(count)
    ]


def make_conversations(count: int, seed: int) -> list[list[dict[str, str]]]:
    texts = iter(make_texts(count * 4, seed))
    return [
        [
            *([{"role": "system", "content": next(texts)}] if n % 5 == 0 else []),
            {"role": "user", "content": next(texts)},
            {"role": "assistant", "content": next(texts)},
        ]
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def texts() -> Callable[[int, int], list[str]]:
    """texts(count, seed): different documents of many scripts."""
    return make_texts


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    return train_tokenizer(make_texts(400, seed=7), 420, folder, {"test": 1})


@pytest.fixture(scope="session")
def write_rows() -> Callable[..., Path]:
    def write(path: Path, **columns: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return path

    return write


@pytest.fixture
def documents_root(tmp_path: Path, write_rows: Callable[..., Path]) -> Path:
    """A folder with all nine sources in two files each, and an SFT set."""
    root = tmp_path / "documents"
    slugs = "refinedweb fineweb_edu dclm starcoder stack_v2 wikipedia arxiv stackexchange books"
    for number, slug in enumerate(slugs.split()):
        for part in range(2):
            path = root / "corpora" / slug / f"part-{part:05d}.parquet"
            write_rows(path, id=list(range(40)), text=make_texts(40, seed=10 * number + part))
    write_rows(root / "corpora" / "sft" / "part-00000.parquet", messages=make_conversations(30, seed=5))
    return root
