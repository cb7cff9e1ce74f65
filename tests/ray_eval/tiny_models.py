"""Two tokenizers of different families, and models trained for some seconds on the real corpora of ../shared/data."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mixtures.tokens.new_tokenizer import take_tokenizer, train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

CORPORA = ("fineweb_edu", "wikipedia", "books", "stackexchange")
VOCAB = 1024
SHAPE: dict[str, Any] = {
    "initializer_range": 0.02,
    "max_position_embeddings": 640,  # some passages of BoolQ and MultiRC are longer
}


def corpus(shared_data: Path, documents: int = 60) -> list[str]:
    """The first documents of some corpora."""
    texts = []
    for name in CORPORA:
        path = next(iter(sorted((shared_data / "corpora" / name).glob("*.parquet"))))
        texts += pq.read_table(path, columns=["text"])["text"].slice(0, documents).to_pylist()
    return texts


def byte_level(texts: Sequence[str], folder: Path) -> Tokenizer:
    return train_tokenizer(texts, VOCAB, folder / "byte_level", {})


def metaspace(texts: Sequence[str], folder: Path) -> Tokenizer:
    """Like Llama 2's: BPE over characters, U+2581 for a space and in front of a text, bytes for unknown characters."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import decoders, models, pre_tokenizers, trainers

    marks, codes = ["<unk>", "</s>"], [f"<0x{code:02X}>" for code in range(256)]
    bpe = HuggingFaceTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 4, special_tokens=marks + codes, limit_alphabet=100, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    definition = json.loads(bpe.to_str())  # the bytes are ordinary entries, as in SentencePiece
    definition["added_tokens"] = [token for token in definition["added_tokens"] if token["content"] in marks]
    path = folder / "metaspace.json"
    path.write_text(json.dumps(definition))
    return take_tokenizer(path, VOCAB, folder / "metaspace", {})


def trained(export: Path, tokenizer: Tokenizer, texts: Sequence[str], steps: int = 100) -> tuple[Any, float]:
    """The export's model after some steps on the texts, the same on every call; and its last loss."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(export)
    ids = itertools.chain.from_iterable([*tokenizer.encode(text), tokenizer.eod] for text in texts)
    stream = torch.tensor(list(itertools.islice(ids, 300_000)))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        starts = torch.randint(len(stream) - 128, (16,), generator=generator)
        batch = torch.stack([stream[start : start + 128] for start in starts])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, loss.item()
