"""Everything about scoring that does not depend on a model: compiled once, shared by all checkpoints.

In: examples, a tokenizer, the model's context length. Out: flat arrays that a scorer can run without knowing what a
benchmark is, with a hash of what is asked; kept on disk as one .npz.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.artifacts import atomic_file
from configs.errors import ArtifactError
from configs.schema import BenchmarkConfig
from configs.untrusted.checks import parse_json
from ray_eval.benchmarks import Example
from ray_eval.plans.encoding import Encoder, Encodings, Scored
from ray_eval.plans.trees import TokenRows, concatenate, lay_out

Ints = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Flat arrays; `candidate_offsets[e]:candidate_offsets[e + 1]` are the candidates of example e."""

    info: dict[str, Any]
    """benchmarks [{slug, category, split, variant}], tokenizer, context length, BOS policy, least_tokens, commits
    {slug: Hub id@commit}, hash."""
    rows: TokenRows
    """What is fed to a model."""

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
    def num_sequences(self) -> int:
        return int(self.rows.target_sequence.max()) + 1

    @property
    def num_examples(self) -> int:
        return len(self.gold)

    @property
    def least_tokens(self) -> int:
        """Tokens that must be fed if documents share nothing: each context once, and what its candidates add.

        The bare answer prefix with the candidates after it counts as one more context, but only what is new in it.
        """
        return int(self.info["least_tokens"])

    def unshared(self) -> Plan:
        """The same with a row for each sequence: for models whose states depend on more than the tokens they see."""
        sequences = self.rows.sequences(np.arange(self.num_sequences))
        return dataclasses.replace(self, rows=lay_out(sequences, share=False))

    @property
    def hash(self) -> str:
        """sha256 over what is asked, not over how it is laid out; scores of equal plans compare example by example."""
        return str(self.info["hash"])


def compile_plan(
    benchmarks: Iterable[tuple[BenchmarkConfig, Sequence[Example]]],
    tokenizer: Encoder,
    context_tokens: int,
    commits: Mapping[str, str] | None = None,
) -> Plan:
    """Tokenize and lay out every example. context_tokens: the model's longest input.

    commits: of benchmarks of the Hub; recorded, and no part of the hash, since questions are equal wherever they lie.
    """
    asked = _Asked(tokenizer, context_tokens)
    described, parts = [], []
    for spec, examples in benchmarks:
        first, begin = examples[0], len(asked.sequences)
        described.append({"slug": spec.slug, "category": spec.category, "split": first.split, "variant": first.variant})
        asked.add(len(described) - 1, examples)
        if len(asked.sequences) > begin:
            parts.append(lay_out(asked.sequences[begin:], begin))
    columns = asked.columns()
    info = {
        "benchmarks": described,
        "tokenizer_sha256": tokenizer.sha256,
        "context_tokens": context_tokens,
        "bos_policy": tokenizer.bos_policy,
    }
    identity = {"hash": _hash(info, columns, asked.sequences), "least_tokens": asked.least_tokens}
    identity["commits"] = dict(commits or {})
    return Plan(info | identity, concatenate(parts), **columns)


class _Asked:
    """Every distinct sequence of some examples, numbered, and which of them an example's candidates are."""

    def __init__(self, tokenizer: Encoder, context_tokens: int) -> None:
        self._tokenizer, self._context_tokens = tokenizer, context_tokens
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._examples: list[tuple[int, int, int, bool, int]] = []
        self._candidates: list[tuple[int, int, int, int, int]] = []
        self.sequences: list[Scored] = []
        self.least_tokens = 0

    def add(self, benchmark: int, examples: Sequence[Example]) -> None:
        encode = Encodings(self._tokenizer, self._context_tokens, examples)
        for example in examples:
            asked = [encode(example.context(i), text) for i, text in enumerate(example.candidates)]
            self.least_tokens += _least_tokens(asked)
            known = len(self.sequences)
            bare = [-1] * len(asked)
            if example.unconditional is not None:
                bare = [self._number(encode(example.unconditional, text)) for text in example.candidates]
            if new := self.sequences[known:]:  # most recur: label words, twin sentences
                self.least_tokens += _least_tokens(new)
            for scored, unconditional, text in zip(asked, bare, example.candidates, strict=True):
                sizes = scored.num_targets, len(text), len(text.encode())
                self._candidates.append((self._number(scored), unconditional, *sizes))
            truncated = any(scored.truncated for scored in asked)
            self._examples.append((benchmark, example.row, example.gold, truncated, len(self._candidates)))

    def _number(self, scored: Scored) -> int:
        number = self._numbers.setdefault((scored.num_targets, scored.ids.tobytes()), len(self.sequences))
        if number == len(self.sequences):
            self.sequences.append(scored)
        return number

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of examples and candidates as `Plan` describes them."""
        examples, candidates = np.asarray(self._examples, np.int64), np.asarray(self._candidates, np.int32)
        return {
            **_named(examples.astype(np.int32), "example_benchmark", "example_row", "gold"),
            "truncated": examples[:, 3].astype(np.bool_),
            "candidate_offsets": np.concatenate([[0], examples[:, 4]]),
            **_named(candidates, "sequence", "unconditional", "num_tokens", "num_chars", "num_bytes"),
        }


def _least_tokens(asked: Sequence[Scored]) -> int:
    """Tokens fed for one example on its own: what all its sequences begin with, once, and the rest of each."""
    first, *others = (scored.ids[:-1] for scored in asked)
    common = len(first)
    for ids in others:
        differing = np.flatnonzero(first[: min(common, len(ids))] != ids[:common])
        common = int(differing[0]) if len(differing) else min(common, len(ids))
    return common + sum(len(scored.ids) - 1 - common for scored in asked)


def _named(columns: NDArray[Any], *names: str) -> dict[str, NDArray[Any]]:
    return {name: columns[:, i].copy() for i, name in enumerate(names)}


def _hash(info: dict[str, Any], columns: dict[str, NDArray[Any]], sequences: Sequence[Scored]) -> str:
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    arrays = columns | {
        "ids": np.concatenate([scored.ids for scored in sequences]),
        "lengths": np.array([(len(scored.ids), scored.num_targets) for scored in sequences]),
    }
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


ROWS = "rows."
"""What the names of the rows' arrays begin with in a file."""


def save_plan(plan: Plan, path: Path) -> None:
    arrays = {f.name: getattr(plan, f.name) for f in dataclasses.fields(Plan) if f.name not in ("info", "rows")}
    arrays |= {ROWS + f.name: getattr(plan.rows, f.name) for f in dataclasses.fields(TokenRows)}
    with atomic_file(path) as stream:
        np.savez(stream, allow_pickle=False, info=np.frombuffer(json.dumps(plan.info).encode(), np.uint8), **arrays)


def load_plan(path: Path) -> Plan:
    """Raises ArtifactError for a file that is truncated, altered (the archive keeps checksums) or something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, which a plan is not")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        info = parse_json(arrays.pop("info").tobytes())
        rows = {name.removeprefix(ROWS): arrays.pop(name) for name in list(arrays) if name.startswith(ROWS)}
        return Plan(info, TokenRows(**rows), **arrays)
    except Exception as error:  # of zipfile, zlib, numpy's headers (Python source, any size) and JSON
        raise ArtifactError(f"not a scoring plan ({error!s:.200})", where=path, hint="delete it and rerun") from None
