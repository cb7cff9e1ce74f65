"""A blend as megatron-core's own index, so that its datasets serve our samples in our order.

In: a blend. Out: the .npy files that megatron-core 0.16 looks for in `path_to_cache` before it builds an index: it
finds them under the MD5 of a description of each dataset and believes them. Its GPTDataset then reads our windows and
its BlendedDataset our schedule, instead of its greedy one, which strays further from the weights than one sample.

    options = write_megatron_index(blend, cache, tokenizer.unique_identifiers)
    config = GPTDatasetConfig(**options, tokenizer=tokenizer, reset_position_ids=False, ...)
    BlendedMegatronDatasetBuilder(GPTDataset, [len(blend), 0, 0], lambda: True, config).build()[0][i]["labels"]

A GPTDataset reads one .bin file. A source of several parts is one nonetheless where GPTDataset is given
`JoinedParts(shards)` instead of a path: windows that reach from one part into the next allow no other composition.
Nothing here imports megatron.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.artifacts import atomic_file, write_text
from mixtures.blend.blend import Blend
from mixtures.blend.index import cut
from mixtures.blend.schedule import rank_within, schedule
from mixtures.tokens.shards import Shards

SURPLUS = 0.005
"""megatron-core's default mid_level_dataset_surplus: it asks each source for that much more than its share."""


class JoinedParts:
    """All parts of a source as the one low-level dataset that a GPTDataset reads."""

    def __init__(self, shards: Shards) -> None:
        self.path_prefix = prefix(shards)
        self.sequence_lengths = shards.lengths
        self._shards = shards

    def get(self, idx: int, offset: int = 0, length: int | None = None) -> npt.NDArray[Any]:
        return self._shards.document(int(idx))[offset : None if length is None else offset + length]


def prefix(shards: Shards) -> str:
    """The path that stands for a source: of its only part without suffix, else of its folder."""
    parts = [name for name in shards.manifest["files"] if name.endswith(".bin")]
    return str(shards.folder / parts[0].removesuffix(".bin") if len(parts) == 1 else shards.folder)


def write_megatron_index(
    blend: Blend, path_to_cache: Path, tokenizer: Mapping[str, Any], *, surplus: float = SURPLUS
) -> dict[str, Any]:
    """Write the index of a training blend; returns the options of GPTDatasetConfig that make megatron-core find it.

    `tokenizer` is the `unique_identifiers` of the tokenizer in that config; `surplus` its mid_level_dataset_surplus.
    megatron-core rounds each source's share up, so its blend may be longer by up to one sample a source: ours goes on.
    """
    prefixes = [prefix(shards) for shards in blend.shards.values()]
    weights = [float(part) for part in blend.quota]
    common = {
        "index_split": "train",
        "random_seed": blend.seed,
        "sequence_length": blend.context_tokens,
        "split": None,
        "split_matrix": None,
        "tokenizer": tokenizer,
    }
    shares = _normalised(weights)
    wanted = [math.ceil(len(blend) * share) for share in shares]
    asked = [math.ceil(n * (1 + surplus)) for n in wanted] if len(blend.sources) > 1 else [len(blend)]
    size = sum(wanted)
    source = schedule(blend.quota, size)
    used = np.bincount(source, minlength=len(prefixes)).tolist()

    datasets = [
        {"class": "GPTDataset", "dataset_path": path, "num_samples": n} | common
        for path, n in zip(prefixes, asked, strict=True)
    ]
    for name, dataset, num_windows in zip(blend.sources, datasets, map(max, asked, used), strict=True):
        windows = cut(blend.shards[name].lengths, num_windows, blend.context_tokens, name, blend.seed)
        arrays = {
            "document_index": windows.documents,
            "sample_index": windows.starts,
            "shuffle_index": np.arange(num_windows, dtype=np.uint32),
        }
        _write(path_to_cache, dataset, arrays)
    if len(datasets) > 1:  # megatron-core blends no single source
        blended: dict[str, Any] = {"class": "BlendedDataset", "datasets": datasets, "split": "train"}
        blended |= {"weights": _normalised(shares), "size": size}
        _write(path_to_cache, blended, {"dataset_index": source, "dataset_sample_index": rank_within(source)})
    return {
        "random_seed": blend.seed,
        "sequence_length": blend.context_tokens,
        "blend_per_split": [(prefixes, weights), None, None],
        "mid_level_dataset_surplus": surplus,
        "path_to_cache": str(path_to_cache),
    }


def _write(folder: Path, description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    text = json.dumps(description, indent=4)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    name = f"{digest}-{description['class']}-train"
    for affix, array in arrays.items():
        with atomic_file(folder / f"{name}-{affix}.npy") as stream:
            np.save(stream, array)
    write_text(folder / f"{name}-description.txt", text)


def _normalised(weights: list[float]) -> list[float]:
    """As megatron-core does it: the sum's rounding enters the description."""
    array = np.array(weights, dtype=np.float64)
    normalised: list[float] = (array / np.sum(array)).tolist()
    return normalised
