"""A small tokenizer, random Llama exports and invented benchmarks, shared by the tests of ray_eval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from eval_rows import words, write_benchmarks
from random_exports import random_export

from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

ExportMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(words(), 420, tmp_path_factory.mktemp("tokenizer") / "small", {})


@pytest.fixture(scope="session")
def benchmark_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("documents"))


@pytest.fixture
def make_export(tokenizer: Tokenizer) -> ExportMaker:
    return lambda folder, **shape: random_export(folder, tokenizer, **shape)
