"""The index of a blend: the source and window of every sample, the documents of every window; built once, then mapped.

In: lengths of the sources' documents, the schedule, a context length and a seed. Out: arrays, kept under
<data>/index/<fingerprint> where a folder is given:

    source.npy               int16 [samples]          number of the source of each sample
    window.npy               int64 [samples]          which window of its source it is
    <source>.documents.npy   int32 [places]           documents in the order of training, epoch after epoch
    <source>.windows.npy     int32 [windows + 1, 2]   place in `documents`, and offset, of each window's first token

These are the arrays of megatron-core's BlendedDataset and GPTDataset; handed over (tests/mixtures/megatron_index.py),
they make its own datasets serve our samples. The folder's name is a fingerprint of everything they follow from, never a
path; the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.artifacts import MANIFEST, atomic_folder, describe_file, read_object, verify_files, write_json
from configs.errors import ArtifactError
from configs.untrusted.checks import map_array, understood
from mixtures.blend.schedule import rank_within, schedule

INDEX_VERSION = 1
DOCUMENTS, WINDOWS = ".documents.npy", ".windows.npy"


class Windows(NamedTuple):
    """Where each window of a source begins."""

    documents: npt.NDArray[np.int32]
    """Documents in the order of training, epoch after epoch, as far as the windows reach; [places]."""
    starts: npt.NDArray[Any]
    """Place in `documents` and offset in that document of each window's first token, int32 or int64
    [windows + 1, 2]; the last row is the last label of the last window."""


@dataclass(frozen=True)
class Index:
    """Everything that does not depend on the tokens themselves."""

    source: npt.NDArray[np.int16]
    """Number of the source of each sample; [samples]."""
    window: npt.NDArray[np.int64]
    """Which window of its source each sample is; [samples]."""
    windows: dict[str, Windows]
    """Source -> its windows."""


def shuffled(n: int, *key: object) -> npt.NDArray[np.int64]:
    """A permutation of range(n) that depends on `key` alone.

    It sorts raw Philox output, which NumPy promises never to change (unlike `Generator.permutation`).
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    noise = np.random.Philox(key=int.from_bytes(digest[:16], "big")).random_raw(n)
    return np.argsort(noise, kind="stable")


def cut(lengths: npt.NDArray[np.int32], num_windows: int, context_tokens: int, *key: object) -> Windows:
    """Shuffle the documents of each epoch, join them epoch after epoch, and cut the stream every `context_tokens`.

    `key` names the shuffles: the epochs of one stream, and streams of other keys, differ.
    """
    epoch_tokens = int(lengths.sum(dtype=np.int64))
    # One window more than asked for begins with the last label.
    first_tokens = np.arange(num_windows + 1, dtype=np.int64) * context_tokens
    num_epochs = int(first_tokens[-1]) // epoch_tokens + 1
    starts = np.empty((num_windows + 1, 2), np.int32 if num_epochs * len(lengths) < 2**31 else np.int64)
    documents = []
    for epoch in range(num_epochs):
        order = shuffled(len(lengths), *key, epoch)
        in_order = lengths[order]
        begins = np.cumsum(in_order, dtype=np.int64) - in_order
        here = slice(*np.searchsorted(first_tokens, [epoch * epoch_tokens, (epoch + 1) * epoch_tokens]))
        tokens = first_tokens[here] - epoch * epoch_tokens
        place = np.searchsorted(begins, tokens, side="right") - 1
        starts[here, 0] = place + epoch * len(lengths)
        starts[here, 1] = tokens - begins[place]
        documents.append(order.astype(np.int32))
    return Windows(np.concatenate(documents)[: int(starts[-1, 0]) + 1], starts)


def build_index(
    lengths: Mapping[str, npt.NDArray[np.int32]],
    quota: npt.NDArray[np.int64],
    context_tokens: int,
    seed: int,
    num_samples: int,
) -> Index:
    """The index of a blend of `lengths`' sources, whose quotas are given in the same order."""
    source = schedule(quota, num_samples)
    counts = np.bincount(source, minlength=len(quota))
    return Index(
        source,
        rank_within(source),
        {
            name: cut(lengths[name], int(count), context_tokens, name, seed)
            for name, count in zip(lengths, counts, strict=True)
        },
    )


# ---------------------------------------------------------------------------------------------- on disk


def cached_index(folder: Path, num_samples: int, build: Callable[[], Index]) -> Index:
    """The index in `folder` if it is whole and has at least `num_samples`; else it is built and put there.

    Any number of processes may ask at once: each builds, and renames a complete folder into place. Where the disk
    refuses, the index stays in memory.
    """
    found = _read(folder, num_samples)
    if found is not None:
        return found
    built = build()
    # A refusal may also be another process that renames its own at the same moment: the same arrays.
    with contextlib.suppress(OSError):
        if _read(folder, num_samples) is None:
            _put(built, folder)
    return _read(folder, num_samples) or built


def _read(folder: Path, num_samples: int) -> Index | None:
    """Map an index; None where it is absent, shorter, of another version, or differs from its manifest."""
    try:
        manifest = read_object(folder / MANIFEST)
        if manifest.get("version") != INDEX_VERSION or manifest.get("samples", 0) < num_samples:
            return None
        with understood(folder):
            verify_files(folder, manifest["files"], deep=True)
            # Plain arrays over the maps: single elements of np.memmap itself are several times slower.
            arrays = {name: np.asarray(map_array(folder / name)) for name in manifest["files"]}
    except (ArtifactError, OSError):  # damaged, or being replaced by another process
        return None
    names = [name.removesuffix(DOCUMENTS) for name in arrays if name.endswith(DOCUMENTS)]
    return Index(
        arrays["source.npy"][:num_samples],
        arrays["window.npy"][:num_samples],
        {name: Windows(arrays[f"{name}{DOCUMENTS}"], arrays[f"{name}{WINDOWS}"]) for name in names},
    )


def _put(index: Index, folder: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {"source.npy": index.source, "window.npy": index.window}
    for name, windows in index.windows.items():
        arrays |= {f"{name}{DOCUMENTS}": windows.documents, f"{name}{WINDOWS}": windows.starts}
    with atomic_folder(folder) as temporary:
        for name, array in arrays.items():
            np.save(temporary / name, array)
        files = {name: describe_file(temporary / name) for name in arrays}
        manifest = {"version": INDEX_VERSION, "kind": "index", "samples": len(index.source), "files": files}
        write_json(temporary / MANIFEST, manifest, sealed=True)
