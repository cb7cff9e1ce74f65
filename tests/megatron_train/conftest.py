"""Tiny real inputs: a tokenizer, token shards of V1P0's sources, an SFT set; and a tiny shape."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from token_shards import tokenize_source, write_source
from train_runs import TOKENIZER

from configs.layout import sft_dir, shards_dir, tokenizer_dir
from configs.load import load_mixture
from configs.schema import ModelShape, SftSpec
from megatron_train.ranks import parallel
from megatron_train.ranks.parallel import Ranks
from mixtures.sources.source import Source
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.sft import prepare_sft

WORDS = "sun moon river stone bird tree fire water salt iron wolf night day cold warm red blue old new far"


def sentences(seed: str, count: int) -> list[str]:
    draw, words = random.Random(seed), WORDS.split()
    return [" ".join(draw.choice(words) for _ in range(draw.randint(4, 40))) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<data> with tokenizer `tiny`, shards of every source of V1P0, and the SFT set `sft`."""
    root = tmp_path_factory.mktemp("data")
    sources = load_mixture("V1P0").weights
    sample = [text for source in sources for text in sentences(source, 50)]
    tokenizer = train_tokenizer(sample, 320, tokenizer_dir(root, TOKENIZER), inputs={})
    for source in sources:
        documents = write_source(root / "documents", source, sentences(source, 120))
        tokenize_source(documents, tokenizer, shards_dir(root, TOKENIZER, source))
    folder = root / "corpora" / "sft"
    folder.mkdir(parents=True)
    questions = [sentences(f"question {i}", 1)[0][: 10 + i] for i in range(21)]
    chats = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": "moon " * (i % 5 + 1)}]
        for i, question in enumerate(questions)
    ]
    pq.write_table(pa.table({"messages": chats}), folder / "part-00000.parquet")
    spec = SftSpec(hub="none", folder="sft")
    prepare_sft(Source("sft", spec, root), tokenizer, sft_dir(root, TOKENIZER, "sft"), context_tokens=32, inputs={})
    return root


@pytest.fixture
def shape() -> ModelShape:
    """Heads x head_dim (32) differs from hidden (24), as at the paper's sizes."""
    return ModelShape(layers=2, hidden=24, heads=4, head_dim=8, ffn_hidden=64, vocab=320, context_tokens=32)


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """This process alone."""
    yield parallel.initialise(1, 1)
    parallel.shut_down()
