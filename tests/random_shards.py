"""A tokenizer and token shards of random words, for runs whose text does not matter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from token_shards import tokenize_source, write_source

from configs.layout import shards_dir, tokenizer_dir
from mixtures.tokens.new_tokenizer import train_tokenizer

VOCAB = 512


def make_shards(data: Path, tokenizer: str, sources: Sequence[str], documents: int = 2000) -> None:
    """<data>/tokenizers/<tokenizer> of 512 entries and <data>/tokens/<tokenizer>/<source>/ of `documents` each."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(1000)]
    texts = {s: [" ".join(draw.choices(words, k=draw.randint(20, 80))) for _ in range(documents)] for s in sources}
    sample = [text for source in sources for text in texts[source][:50]]
    trained = train_tokenizer(sample, VOCAB, tokenizer_dir(data, tokenizer), inputs={})
    for source in sources:
        made = write_source(data / "documents", source, texts[source])
        tokenize_source(made, trained, shards_dir(data, tokenizer, source))
