"""Conversations as token ids with a loss mask.

In: an SFT set (`mixtures.sources.source`) and a tokenizer. Out: `<data>/sft/<tokenizer id>/<set>/`,

    ids.npy          uint16 or int32 [tokens]: the conversations one after another, in the chat format
    loss_mask.npy    bool [tokens]: true on the assistant's content and its end-of-text
    boundaries.npy   int64 [examples + 1]: example i is boundaries[i] to boundaries[i + 1]
    manifest.json    counts (truncated, dropped), and the sha256 of every file; written last

Only what the assistant says is learnt. An example without such a token is dropped and counted; a malformed row is
refused, never skipped, because a lost mask would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.artifacts import MANIFEST, atomic_folder, describe_file, fingerprint, read_object, verify_files, write_json
from configs.errors import ArtifactError, DataError
from configs.untrusted.checks import map_array, understood
from mixtures.sources.source import Source
from mixtures.tokens.shards import id_dtype
from mixtures.tokens.tokenizer import Tokenizer

SFT_VERSION = 1
FILES = ("ids.npy", "loss_mask.npy", "boundaries.npy")


def prepare_sft(
    source: Source, tokenizer: Tokenizer, folder: Path, *, context_tokens: int, inputs: Mapping[str, Any]
) -> SftDataset:
    """Tokenize the conversations of `source` into `folder`, which appears complete or not at all.

    An example keeps at most context_tokens + 1 ids, so that it has at most context_tokens labels. `inputs` says what
    the set was made from; the manifest keeps it beside its fingerprint. Raises DataError for a malformed row, and for
    a set without a single usable example.
    """
    dtype = id_dtype(tokenizer.vocab_size)
    ids: list[npt.NDArray[Any]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    conversations = truncated = 0
    for messages in (messages for unit in source.units() for messages in unit.conversations()):
        conversations += 1
        tokens, loss = tokenizer.chat(messages)
        cut = len(tokens) > context_tokens + 1
        mask = np.array(loss[: context_tokens + 1], dtype=np.bool_)
        # The first token is never a label.
        if mask[1:].any():
            ids.append(np.array(tokens[: context_tokens + 1], dtype=dtype))
            masks.append(mask)
            truncated += cut
    if not ids:
        raise DataError(
            f"none of {conversations} conversations has an assistant's token within {context_tokens} tokens",
            where=source.where,
        )
    lengths = [len(example) for example in ids]
    arrays = (np.concatenate(ids), np.concatenate(masks), np.cumsum([0, *lengths], dtype=np.int64))
    with atomic_folder(folder) as temporary:
        for name, array in zip(FILES, arrays, strict=True):
            np.save(temporary / name, array)
        manifest = {
            "version": SFT_VERSION,
            "kind": "sft",
            "set": source.name,
            **tokenizer.identity,
            "context_tokens": context_tokens,
            "conversations": conversations,
            "examples": len(ids),
            "truncated": truncated,
            "dropped": {"no assistant token": conversations - len(ids)},
            "tokens": len(arrays[0]),
            "loss_tokens": int(arrays[1].sum()),
            "inputs": fingerprint(inputs),
            "made_from": inputs,
            "files": {name: describe_file(temporary / name) for name in FILES},
        }
        write_json(temporary / MANIFEST, manifest, sealed=True)
    return SftDataset.open(folder)


class SftDataset:
    """Examples of an SFT set, one conversation each; `SftDataset.open(folder)` makes one."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], context_tokens: int | None = None) -> None:
        self.folder = folder
        self.manifest = dict(manifest)
        self._ids, self._mask, bounds = (map_array(folder / name) for name in FILES)
        if not len(self._ids) == len(self._mask) == bounds[-1] or len(bounds) != manifest["examples"] + 1:
            raise ArtifactError("ids, loss mask and boundaries disagree", where=folder, hint="delete it and rerun")
        longest = manifest["context_tokens"] if context_tokens is None else context_tokens
        starts, ends = np.array(bounds[:-1]), np.array(bounds[1:])
        if bounds.dtype != np.int64 or bounds[0] != 0 or (starts >= ends).any() or self._mask.dtype != np.bool_:
            raise ArtifactError(
                "boundaries do not rise, or arrays of other types", where=folder, hint="delete it and rerun"
            )
        stops = np.minimum(ends, starts + longest + 1)
        labels_seen = np.concatenate([[0], np.cumsum(self._mask)])
        usable = labels_seen[stops] > labels_seen[starts + 1]
        cut_here = int((stops < ends)[usable].sum())
        self.truncated = manifest["truncated"] if longest >= manifest["context_tokens"] else cut_here
        """Examples that lost their end to the context length."""
        self.dropped = manifest["conversations"] - int(usable.sum())
        """Conversations left out because no assistant token fits the context."""
        self._starts, self._stops = starts[usable], stops[usable]

    @classmethod
    def open(cls, folder: Path, context_tokens: int | None = None, *, deep: bool = False) -> SftDataset:
        """Open a folder that `prepare_sft` wrote, cut to a shorter `context_tokens` where given.

        Raises ArtifactError naming a file that is missing or truncated (`deep`: or altered).
        """
        if not (folder / MANIFEST).is_file():
            raise ArtifactError("no complete SFT set here", where=folder, hint="python -m mixtures.tokenize --help")
        manifest = read_object(folder / MANIFEST)
        if manifest.get("kind") != "sft" or manifest.get("version") != SFT_VERSION:
            raise ArtifactError(f"not an SFT set of version {SFT_VERSION}", where=folder / MANIFEST)
        with understood(folder, hint="delete it and rerun"):
            verify_files(folder, manifest["files"], deep=deep)
            return cls(folder, manifest, context_tokens)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Example i: tokens int64 [n + 1], and which of the n labels `tokens[1:]` carry loss, bool [n]."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        piece = slice(self._starts[i], self._stops[i])
        return self._ids[piece].astype(np.int64), np.array(self._mask[piece][1:])

    @property
    def fingerprint(self) -> str:
        """Changes when any token or mask changes, wherever the folder lies."""
        return fingerprint(self.manifest["files"])
