"""How much text is tokenized, while parts are being written.

Finished parts say how much text they hold. Of the others the temporary .bin files are looked at as they grow, wherever
the worker is, and their tokens are turned into text by the bytes per token seen so far. How much there is in all is
known only when it is done: until then a unit not yet read counts as its file's size times the text per file byte seen
so far, and a sample as its tokens times the bytes per token.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from configs.cost.plan import BYTES_PER_TOKEN
from mixtures.progress import Progress

if TYPE_CHECKING:
    from mixtures.tokens.assembly import Assembly

LOOK_EVERY_S = 1.0
TEXT_PER_FILE_BYTE = 2.0
"""Before anything is seen: of compressed Parquet."""


@contextlib.contextmanager
def metered(assemblies: Sequence[Assembly], progress: Progress | None) -> Iterator[None]:
    """Keep `progress` informed of the assemblies for as long as the context lasts."""
    if progress is None:
        yield
        return
    meter, stop = _Meter(assemblies, progress), threading.Event()

    def watch() -> None:
        while not stop.wait(LOOK_EVERY_S):
            meter.look()

    progress.begin()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _Meter:
    def __init__(self, assemblies: Sequence[Assembly], progress: Progress) -> None:
        self._assemblies, self._progress = assemblies, progress
        self._sizes = [[unit.size_bytes for unit in assembly.units] for assembly in assemblies]
        self._shown = 0

    def look(self) -> None:
        """Work out what is done and what is to do; parts that earlier runs finished count as neither."""
        text = tokens = file_bytes = 0
        for assembly, sizes in zip(self._assemblies, self._sizes, strict=True):
            for number, part in list(assembly.parts.items()):
                text += part.training.utf8_bytes + part.validation.utf8_bytes
                tokens += part.training.tokens + part.validation.tokens
                file_bytes += sizes[number] or 0
        per_token = text / tokens if tokens else BYTES_PER_TOKEN
        per_file_byte = text / file_bytes if file_bytes and text else TEXT_PER_FILE_BYTE
        done, expected, labels = 0.0, 0.0, []
        for assembly, sizes in zip(self._assemblies, self._sizes, strict=True):
            parts = dict(assembly.parts)
            kept = sum(parts[number].training.utf8_bytes for number in assembly.kept & parts.keys())
            fresh = sum(p.training.utf8_bytes for number, p in parts.items() if number not in assembly.kept)
            growing = 0.0
            if assembly.begun and not assembly.complete:
                growing = _growing_tokens(assembly) * per_token
                labels.append(assembly.source.name)
            done += fresh + growing
            if assembly.complete:
                expected += fresh
            elif assembly.sample is not None:
                expected += max(fresh + growing, assembly.sample.tokens * per_token - kept)
            else:
                unread = sum(size or 0 for number, size in enumerate(sizes) if number not in parts)
                expected += fresh + unread * per_file_byte
        known = (
            a.sample is not None or None not in sizes for a, sizes in zip(self._assemblies, self._sizes, strict=True)
        )
        self._progress.expect(round(expected) if all(known) else None)
        self._progress.advance(round(done) - self._shown, f"tokenizing {', '.join(labels[:3])}" if labels else None)
        self._shown = round(done)


def _growing_tokens(assembly: Assembly) -> int:
    """Tokens in files that are being written."""
    size = 0
    for path in assembly.work.glob(".part-*.bin.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size // assembly.id_bytes
