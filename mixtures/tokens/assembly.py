"""A source to a folder of token shards: which units are read, by many workers, and one manifest at the end.

In: a source, a tokenizer, and what sample of the source is wanted. Out: `<data>/tokens/<tokenizer>/<source>/`.

Parts gather in `.<source>.<fingerprint of what is made>.partial/` beside it. A run that was killed is continued by the
next one: finished parts stay, all else is removed; so the folder's bytes do not depend on how many workers there were
or how often they died. The partial folder is renamed into place with its manifest. It is locked while a process fills
it, and a second process is told so.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.artifacts import (
    MANIFEST,
    fingerprint,
    lock_folder,
    read_object,
    remove_abandoned,
    replace_folder,
    write_json,
)
from configs.errors import DataError, ResourceError
from mixtures.parallel import map_units
from mixtures.sources.source import KEPT_EXAMPLES, Source, Unit
from mixtures.tokens.filters import DocumentFilter
from mixtures.tokens.part_files import Side
from mixtures.tokens.parts import HELD_OUT_BELOW, Part, PartJob, Written, write_part
from mixtures.tokens.sampling import HASHES, SPREAD, Sample, sampling_order
from mixtures.tokens.shards import SHARDS_VERSION, VALIDATION, Shards, id_dtype, part_name
from mixtures.tokens.tokenizer import Tokenizer

PARTIAL = r"[0-9a-f]{16}\.partial"


class Assembly:
    """One source on its way to its folder."""

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        folder: Path,
        sample: Sample | None = None,
        document_filter: DocumentFilter | None = None,
    ) -> None:
        self.source, self.folder, self.sample, self.document_filter = source, folder, sample, document_filter
        self.units: list[Unit] = source.units()
        if sample is not None:
            self.units = sampling_order(self.units)
        self.parts: dict[int, Part] = {}
        self.kept: set[int] = set()
        """Parts that an earlier run had finished."""
        self.started = False
        self.id_bytes = id_dtype(tokenizer.vocab_size).itemsize
        self._tokenizer = tokenizer
        made_from = {
            "version": SHARDS_VERSION,
            **tokenizer.identity,
            "sample": sample,
            "cleaning": document_filter.inputs() if document_filter else None,
            "units": [unit.name for unit in self.units],
        }
        self.inputs = fingerprint(made_from)
        """Fingerprint of all that decides the bytes but the units' contents; those each unit answers for."""
        self.work = folder.with_name(f".{folder.name}.{self.inputs[:16]}.partial")
        self._held_out_below = HELD_OUT_BELOW
        self._outstanding = 0
        self._prefix = self._prefix_tokens = 0
        self._lock: int | None = None

    def existing(self) -> Shards | None:
        """The shards that are there, if they were made from what the source holds now.

        Raises ArtifactError where one of their files is missing or truncated.
        """
        manifest = read_object(self.folder / MANIFEST) if (self.folder / MANIFEST).is_file() else {}
        if manifest.get("inputs") != self.inputs:
            return None
        units = self.units[: len(manifest["units"])]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing gives up the interpreter lock
            now = list(pool.map(lambda unit: unit.inputs(), units))
        if fingerprint(now) != fingerprint([unit["inputs"] for unit in manifest["units"]]):
            return None
        shards = Shards.open(self.folder)
        _remove_records(self.folder)
        remove_abandoned(self.folder, PARTIAL)
        return shards

    def jobs(self) -> Iterator[PartJob]:
        """The parts to write or keep, until there is enough of them."""
        self.started = True
        self._take_lock()
        remove_abandoned(self.folder, PARTIAL)
        for folder in (self.work, self.work / VALIDATION):
            _remove_all_but(folder, lambda name: not name.endswith(".tmp"))
        for number, unit in enumerate(self.units):
            if self.enough:
                return
            self._outstanding += 1
            yield PartJob(
                unit,
                number,
                self.work,
                self._tokenizer.folder,
                self._tokenizer.sha256,
                self._held_out_below,
                HASHES if self.sample is None else round(self.sample.fraction * HASHES),
                None if self.sample is None else self.sample.tokens,
                self.document_filter,
            )

    def add(self, written: Written) -> None:
        self._outstanding -= 1
        self.parts[written.part.number] = written.part
        if written.kept:
            self.kept.add(written.part.number)
        # Only an unbroken run of parts from the first counts: what is kept must not depend on which worker was faster.
        while not self.enough and self._prefix in self.parts:
            self._prefix_tokens += self.parts[self._prefix].training.tokens
            self._prefix += 1

    @property
    def enough(self) -> bool:
        """The first units hold the training tokens that are wanted of a sample."""
        return self.sample is not None and self._prefix_tokens >= self.sample.tokens

    @property
    def complete(self) -> bool:
        """Nothing is left to do but `finish`."""
        return not self._outstanding and (self.enough or self._prefix == len(self.units))

    def finish(self) -> Shards | None:
        """Manifest and name; None where everything must be done again because one side of the split is empty."""
        parts = [self.parts[number] for number in range(self._prefix)]
        manifest = self._manifest(parts)
        if not (manifest["documents"] and manifest[VALIDATION]["documents"]):
            self._hold_out_smallest(parts, manifest)
            return None
        write_json(self.work / MANIFEST, manifest, sealed=True)
        records = {f"{part_name(number)}.json" for number in range(self._prefix)}
        _remove_all_but(self.work, (records | {MANIFEST} | set(manifest["files"])).__contains__)
        _remove_all_but(self.work / VALIDATION, manifest[VALIDATION]["files"].__contains__)
        # The name comes last: whatever lies under the final name is whole.
        replace_folder(self.work, self.folder)
        _remove_records(self.folder)
        self.release()
        return Shards.open(self.folder, verify=False)

    def release(self) -> None:
        """Let other processes work on this source."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _manifest(self, parts: Sequence[Part]) -> dict[str, Any]:
        training, validation = Side.sum(p.training for p in parts), Side.sum(p.validation for p in parts)
        dropped: Counter[str] = Counter()
        first: dict[str, list[str]] = {}
        for part in parts:
            dropped.update(part.dropped)
            for reason, places in part.dropped_first.items():
                first[reason] = (first.get(reason, []) + places)[:KEPT_EXAMPLES]
        sample = None
        if self.sample is not None:
            sample = self.sample._asdict() | {"reached": self.enough, "spread": SPREAD}
        return {
            "version": SHARDS_VERSION,
            "kind": "tokens",
            "source": self.source.name,
            "spec": self.source.spec.model_dump(mode="json"),
            "inputs": self.inputs,
            **self._tokenizer.identity,
            "vocab_size": self._tokenizer.vocab_size,
            "eod": self._tokenizer.eod,
            "dtype": id_dtype(self._tokenizer.vocab_size).name,
            "sample": sample,
            "cleaning": self.document_filter.inputs() if self.document_filter else None,
            "kept": training.documents + validation.documents,
            "dropped": dict(sorted(dropped.items())),
            "dropped_first": first,
            "not_sampled": sum(part.not_sampled for part in parts),
            **asdict(training),
            VALIDATION: {"held_out_below": self._held_out_below, **asdict(validation)},
            "units": [part.entry() for part in parts],
        }

    def _hold_out_smallest(self, parts: Sequence[Part], manifest: dict[str, Any]) -> None:
        """Begin again with the documents of smallest hash held out: the rule for a source too small for a hundredth."""
        smallest = min((part.smallest_hash for part in parts), default=HASHES)
        if smallest == HASHES or self._held_out_below != HELD_OUT_BELOW:
            problem = "one document, or copies of one; two different ones are needed, to train and to validate on"
            if smallest == HASHES:
                problem = f"no usable document ({manifest['dropped']} dropped, {manifest['not_sampled']} not sampled)"
            shutil.rmtree(self.work)
            self.release()
            raise DataError(problem, where=f"source {self.source.name}")
        self._held_out_below = smallest + 1
        self.parts, self.kept, self._prefix, self._prefix_tokens = {}, set(), 0, 0

    def _take_lock(self) -> None:
        """Lock the working folder itself: the lock ends with the process, and no further file is needed."""
        while self._lock is None:
            self.work.mkdir(parents=True, exist_ok=True)
            try:
                lock = lock_folder(self.work)
            except FileNotFoundError:
                continue
            except BlockingIOError:
                raise ResourceError(
                    f"another process is tokenizing {self.source.name}",
                    where=self.work,
                    hint="wait until it has ended, then rerun",
                ) from None
            except OSError:  # a filesystem without locks
                return
            if self.work.exists() and os.path.samestat(os.fstat(lock), self.work.stat()):
                self._lock = lock
            else:  # another process renamed it into place between our opening and our locking it
                os.close(lock)


class _Queue:
    """The parts of several assemblies, one after another; each ends as soon as it has enough."""

    def __init__(self, assemblies: Sequence[Assembly], begin: Callable[[Assembly], None]) -> None:
        self._assemblies, self._begin = assemblies, begin
        self.given: list[Assembly] = []
        """The assembly of each job that was taken."""

    def __iter__(self) -> Iterator[PartJob]:
        for assembly in self._assemblies:
            if not assembly.started:
                self._begin(assembly)
            for job in assembly.jobs():
                self.given.append(assembly)
                yield job

    def __length_hint__(self) -> int:
        return sum(len(assembly.units) for assembly in self._assemblies)


def assemble(
    assemblies: Sequence[Assembly],
    *,
    workers: int | None = None,
    use_ray: bool = False,
    begin: Callable[[Assembly], None] = lambda assembly: None,
    done: Callable[[Assembly, Shards], None] = lambda assembly, shards: None,
) -> None:
    """Make the shards of every assembly; `begin` and `done` are told of each.

    Raises DataError for a source without two different documents or a file that cannot be read, ResourceError where
    another process is at work on the same source or a worker died.
    """
    todo = list(assemblies)
    try:
        while todo:
            queue, again = _Queue(todo, begin), []
            for index, written in map_units(write_part, queue, workers=workers, use_ray=use_ray):
                assembly = queue.given[index]
                assembly.add(written)
                if assembly.complete:
                    shards = assembly.finish()
                    again += [assembly] if shards is None else []
                    if shards is not None:
                        done(assembly, shards)
            todo = again
    finally:
        for assembly in assemblies:
            assembly.release()


def _remove_records(folder: Path) -> None:
    """The records of parts, once the manifest has taken them in."""
    for path in folder.glob("part-*.json"):
        path.unlink(missing_ok=True)


def _remove_all_but(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Remove the files of a folder that are not `wanted` by name."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not wanted(path.name):
            path.unlink(missing_ok=True)
