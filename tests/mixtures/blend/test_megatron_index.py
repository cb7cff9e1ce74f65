"""megatron-core's own datasets, opened with our index, serve our samples in our order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from megatron_index import JoinedParts, prefix, write_megatron_index
from token_shards import tokenize_source

from configs.load import load_mixture
from configs.schema import SourceSpec
from mixtures.blend.blend import Blend
from mixtures.blend.schedule import quotas, schedule
from mixtures.sources.source import Source
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

WEIGHTS = {"web": 0.61, "code": 0.29, "books": 0.1}
CONTEXT, SAMPLES = 24, 400
IDENTIFIERS = {"class": "tests", "path": "tiny"}


@pytest.fixture(scope="module")
def shards(
    tokenizer: Tokenizer, texts: Any, write_rows: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Shards]:
    """One part of `web` and `books`, two of `code`; each is gone through more than once."""
    root = tmp_path_factory.mktemp("documents")
    for seed, (name, part) in enumerate((("web", 0), ("code", 0), ("code", 1), ("books", 0))):
        write_rows(root / "corpora" / name / f"{part}.parquet", text=texts(40, seed))
    return {
        name: tokenize_source(
            Source(name, SourceSpec(kind="web", display=name, folder=name), root), tokenizer, root / "tokens" / name
        )
        for name in WEIGHTS
    }


def gpt_config(tokenizer: Tokenizer, options: dict[str, Any]) -> Any:
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig

    ids = SimpleNamespace(vocab_size=tokenizer.vocab_size, eod=tokenizer.eod, unique_identifiers=IDENTIFIERS)
    flags = dict.fromkeys(("reset_position_ids", "reset_attention_mask", "eod_mask_loss"), False)
    return GPTDatasetConfig(**options, **flags, create_attention_mask=False, tokenizer=ids)


def samples(dataset: Any) -> list[list[int]]:
    served = (dataset[i] for i in range(len(dataset)))
    return [[*sample["tokens"].tolist(), int(sample["labels"][-1])] for sample in served]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def build(config: Any, num: int) -> Any:
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset

    return BlendedMegatronDatasetBuilder(GPTDataset, [num, 0, 0], lambda: True, config).build()[0]


@pytest.mark.parametrize("weights", [{"web": 0.7, "books": 0.3}, {"books": 1.0}])
def test_its_builder_finds_the_index_and_serves_our_samples(
    shards: dict[str, Shards], tokenizer: Tokenizer, tmp_path: Path, weights: dict[str, float]
) -> None:
    blend = Blend(shards, weights, CONTEXT, seed=3, num_samples=SAMPLES)
    options = write_megatron_index(blend, tmp_path / "cache", IDENTIFIERS)
    ours = contents(tmp_path / "cache")
    dataset = build(gpt_config(tokenizer, options), SAMPLES)
    assert contents(tmp_path / "cache") == ours, "megatron-core built nothing of its own"
    assert SAMPLES <= len(dataset) <= SAMPLES * 1.005 + 2
    longer = Blend(shards, weights, CONTEXT, seed=3, num_samples=len(dataset))
    assert samples(dataset) == [longer[i].tolist() for i in range(len(dataset))]
    assert max(n / blend.shards[name].num_tokens for name, n in blend.tokens().items()) > 1


def test_a_source_of_several_parts_is_one_dataset(
    shards: dict[str, Shards], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from megatron.core.datasets.blended_dataset import BlendedDataset
    from megatron.core.datasets.gpt_dataset import GPTDataset
    from megatron.core.datasets.utils import Split

    blend = Blend(shards, WEIGHTS, CONTEXT, seed=3, num_samples=SAMPLES)
    assert prefix(shards["code"]) == str(shards["code"].folder)
    options = write_megatron_index(blend, tmp_path / "cache", IDENTIFIERS)
    ours = contents(tmp_path / "cache")
    config = gpt_config(tokenizer, options)
    wanted = [int(np.ceil(SAMPLES * weight)) for weight in sorted_values(WEIGHTS)]
    sources = [
        GPTDataset(
            JoinedParts(shards[name]),
            prefix(shards[name]),
            np.arange(shards[name].num_documents, dtype=np.int32),
            int(np.ceil(n * 1.005)),
            Split.train,
            config,
        )
        for name, n in zip(blend.sources, wanted, strict=True)
    ]
    shares = (blend.quota / blend.quota.sum()).tolist()
    dataset = BlendedDataset(sources, shares, sum(wanted), config)
    assert contents(tmp_path / "cache") == ours
    assert samples(dataset)[:SAMPLES] == [blend[i].tolist() for i in range(SAMPLES)]


def sorted_values(weights: dict[str, float]) -> list[float]:
    return [weight for _, weight in sorted(weights.items())]


def drift(source: npt.NDArray[np.int16], weights: list[float]) -> float:
    n = np.arange(1, len(source) + 1)
    return max(float(np.abs(np.cumsum(source == i) - n * w).max()) for i, w in enumerate(weights))


def test_its_own_schedule_strays_further_than_one_sample() -> None:
    from megatron.core.datasets import helpers

    weights = list(load_mixture("V1P0").weights.values())
    greedy, rank = np.zeros(5000, dtype=np.int16), np.zeros(5000, dtype=np.int64)
    helpers.build_blending_indices(greedy, rank, weights, len(weights), 5000, False)
    assert drift(greedy, weights) == pytest.approx(1.25)
    assert drift(schedule(quotas(weights), 5000), weights) < 1
