"""Part files: the results of one unit of a checkpoint, kept until all of its units are there.

    <folder of the score file>/.parts-<its name>/<first batch>-<behind the last>.part
        sha256 of what follows, 32 bytes
        header, one line of JSON: the facts that the numbers depend on, the unit, its counts
        log-probability of each of the unit's sequences, float64, in the order of `Scorer.sequences`

A part is believed only if it is whole, its facts (plan, layout, weights, precision, device, versions) are those of the
caller, and its numbers are finite; any other is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.artifacts import atomic_file
from configs.errors import ArtifactError, ResourceError
from configs.untrusted.checks import parse_json, understood
from ray_eval.models.forward_counts import ForwardCounts

DIGEST_BYTES = 32

Sums = NDArray[np.float64]


class Parts:
    """The parts of one score file."""

    def __init__(self, score_file: Path, facts: Mapping[str, Any]) -> None:
        """facts: what the numbers depend on, in JSON's types."""
        self._folder = parts_folder(score_file)
        self._facts = dict(facts)

    def path(self, unit: range) -> Path:
        return self._folder / f"{unit.start:06d}-{unit.stop:06d}.part"

    def write(self, unit: range, sums: Sums, counts: ForwardCounts) -> None:
        """Atomically. Raises ResourceError where the disk is full or the folder cannot be written to."""
        header = self._facts | {"unit": [unit.start, unit.stop], "counts": dataclasses.asdict(counts)}
        content = json.dumps(header).encode() + b"\n" + sums.astype("<f8").tobytes()
        path = self.path(unit)
        with naming_disk_errors(path), atomic_file(path) as stream:
            stream.write(hashlib.sha256(content).digest() + content)

    def read(self, unit: range) -> tuple[Sums, ForwardCounts] | None:
        """The part of a unit, or None where it is missing or cannot be read.

        One that is damaged, not finite or has other facts is removed.
        """
        path = self.path(unit)
        try:
            content = path.read_bytes()
        except OSError:  # should more than this part be wrong, writing it will tell
            return None
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == digest:
            line, _, numbers = content.partition(b"\n")
            with contextlib.suppress(ArtifactError), understood(path):
                header = parse_json(line)
                counts = header.pop("counts")
                sums = np.frombuffer(numbers, "<f8")
                if header == self._facts | {"unit": [unit.start, unit.stop]} and np.isfinite(sums).all():
                    return sums, ForwardCounts(**counts)
        with naming_disk_errors(path):
            path.unlink(missing_ok=True)
        return None


def parts_folder(score_file: Path) -> Path:
    return score_file.with_name(f".parts-{score_file.stem}")


def remove_parts(score_file: Path) -> None:
    """Remove the parts of a score file, whatever they are."""
    shutil.rmtree(parts_folder(score_file), ignore_errors=True)


@contextlib.contextmanager
def naming_disk_errors(path: Path) -> Iterator[None]:
    """An error of the operating system while `path` is written becomes a ResourceError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "free disk space, or make the folder writable, then rerun: what is scored so far is kept"
        raise ResourceError(f"cannot be written ({reason})", where=path, hint=hint) from None
