"""Everything about scoring that does not depend on a model: compiled once, shared by all checkpoints.

In: examples, a tokenizer, the model's context length. Out: flat arrays that a scorer can run without knowing what a
benchmark is, with a hash of what is scored; kept on disk as one .npz.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.artifacts import atomic_file
from configs.errors import ArtifactError
from configs.schema import BenchmarkConfig
from ray_eval.benchmarks import Example
from ray_eval.encoding import BOS_POLICY, Encoder, Encodings
from ray_eval.layout import Rows

ROW_TOKENS = 512
"""Longest row with branches, unless the model's context is longer: attention is quadratic in it."""

Ints = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Flat arrays; `x_offsets[i]:x_offsets[i + 1]` are the entries of row (or example) i."""

    info: dict[str, Any]
    """benchmarks [{slug, category, split, variant}], tokenizer, context length, BOS policy, hash."""

    # R rows (see `layout`)
    token_offsets: Offsets
    """[R + 1] over tokens, positions, segments."""
    tokens: Ints
    positions: Ints
    segments: Ints
    head_offsets: Offsets
    """[R + 1] over heads."""
    heads: Ints
    """Places in the row whose next-token distribution is needed, each once."""
    target_offsets: Offsets
    """[R + 1] over the three columns of targets."""
    target_token: Ints
    target_head: Ints
    """Which of the row's heads predicts it."""
    target_sequence: Ints
    """Sequence to whose log-probability it adds."""

    # E examples
    example_benchmark: Ints
    """Index into info["benchmarks"]."""
    example_row: Ints
    """Row number in the split."""
    gold: Ints
    truncated: NDArray[np.bool_]
    """A candidate with its context did not fit into the model's context."""
    candidate_offsets: Offsets
    """[E + 1] over the columns of candidates."""

    # candidates
    sequence: Ints
    """Its sequence after the context."""
    unconditional: Ints
    """Its sequence after the bare answer prefix; -1 for none."""
    num_tokens: Ints
    num_chars: Ints
    num_bytes: Ints

    @property
    def num_rows(self) -> int:
        return len(self.token_offsets) - 1

    @property
    def num_sequences(self) -> int:
        return int(self.target_sequence.max()) + 1

    @property
    def num_examples(self) -> int:
        return len(self.gold)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "info"}

    @property
    def hash(self) -> str:
        """sha256 over what is scored; scores of equal plans compare example by example."""
        return str(self.info["hash"])


def compile_plan(
    benchmarks: Iterable[tuple[BenchmarkConfig, Sequence[Example]]], tokenizer: Encoder, context_tokens: int
) -> Plan:
    """Tokenise and lay out every example; context_tokens is the model's longest input."""
    rows = Rows(limit=max(context_tokens, ROW_TOKENS))
    numbers = itertools.count()
    seen: dict[tuple[int, ...], int] = {}  # unconditional sequences recur: label words, twin sentences
    described, examples_, candidates = [], [], []
    for index, (spec, examples) in enumerate(benchmarks):
        first = examples[0]
        described.append({"slug": spec.slug, "category": spec.category, "split": first.split, "variant": first.variant})
        encode = Encodings(tokenizer, context_tokens, examples)
        for example in examples:
            conditional, bare = [], []
            for i, text in enumerate(example.candidates):
                scored = encode(example.context(i), text)
                conditional.append((next(numbers), scored))
                unconditional = -1
                if example.unconditional is not None:
                    alone = encode(example.unconditional, text)
                    key = (alone.num_targets, *alone.ids)
                    if key not in seen:
                        seen[key] = next(numbers)
                        bare.append((seen[key], alone))
                    unconditional = seen[key]
                sizes = scored.num_targets, len(text), len(text.encode())
                candidates.append((conditional[-1][0], unconditional, *sizes))
            truncated = any(scored.truncated for _, scored in conditional)
            examples_.append((index, example.row, example.gold, truncated, len(candidates)))
            for sequences in (conditional, bare):
                if sequences:
                    rows.add(sequences)
    info = {
        "benchmarks": described,
        "tokenizer_sha256": tokenizer.sha256,
        "context_tokens": context_tokens,
        "bos_policy": BOS_POLICY,
    }
    example_columns = np.asarray(examples_, np.int64)
    candidate_columns = np.asarray(candidates, np.int32)
    arrays = {
        **rows.arrays(),
        **_named(example_columns.astype(np.int32), "example_benchmark", "example_row", "gold"),
        "truncated": example_columns[:, 3].astype(np.bool_),
        "candidate_offsets": np.concatenate([[0], example_columns[:, 4]]),
        **_named(candidate_columns, "sequence", "unconditional", "num_tokens", "num_chars", "num_bytes"),
    }
    return Plan(info | {"hash": _hash(info, arrays)}, **arrays)


def _named(columns: NDArray[Any], *names: str) -> dict[str, NDArray[Any]]:
    return {name: columns[:, i].copy() for i, name in enumerate(names)}


def _hash(info: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps({k: v for k, v in info.items() if k != "hash"}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def save_plan(plan: Plan, path: Path) -> None:
    arrays = plan.arrays | {"info": np.frombuffer(json.dumps(plan.info).encode(), np.uint8)}
    with atomic_file(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_plan(path: Path) -> Plan:
    """Raises ArtifactError for a file that is truncated, altered or something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        plan = Plan(json.loads(arrays.pop("info").tobytes()), **arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"not a scoring plan ({error})", where=path, hint="delete it and rerun") from None
    if plan.hash != _hash(plan.info, plan.arrays):
        raise ArtifactError("the contents differ from the hash (altered)", where=path, hint="delete it and rerun")
    return plan
