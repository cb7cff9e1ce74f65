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
from typing import TYPE_CHECKING, NamedTuple

from configs.progress import Progress
from configs.token_bytes import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from mixtures.tokens.assembly import Assembly

LOOK_EVERY_S = 1.0
TEXT_PER_FILE_BYTE = 2.0
"""Before anything is seen: of compressed Parquet."""


@contextlib.contextmanager
def metered(assemblies: Sequence[Assembly], progress: Progress) -> Iterator[None]:
    """Keep `progress` informed of the assemblies for as long as the context lasts."""
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
        rates = self._rates()
        states = [_state(*pair, *rates) for pair in zip(self._assemblies, self._sizes, strict=True)]
        done = round(sum(state.done for state in states))
        expected = [state.expected for state in states if state.expected is not None]
        self._progress.expect(round(sum(expected)) if len(expected) == len(states) else None)
        labels = [a.source.name for a in self._assemblies if a.started and not a.complete]
        self._progress.advance(done - self._shown, f"tokenizing {', '.join(labels[:3])}" if labels else None)
        self._shown = done

    def _rates(self) -> tuple[float, float]:
        """Bytes of text per token and per byte of an input file, as seen in the finished parts."""
        text = tokens = file_bytes = 0
        for assembly, sizes in zip(self._assemblies, self._sizes, strict=True):
            for number, part in list(assembly.parts.items()):
                text += part.training.utf8_bytes + part.validation.utf8_bytes
                tokens += part.training.tokens + part.validation.tokens
                file_bytes += sizes[number] or 0
        per_token = text / tokens if tokens else BYTES_PER_TOKEN
        return per_token, text / file_bytes if file_bytes and text else TEXT_PER_FILE_BYTE


class _State(NamedTuple):
    """Bytes of text of one source."""

    done: float
    expected: float | None
    """None where nobody knows how large the input files are."""


def _state(assembly: Assembly, sizes: Sequence[int | None], per_token: float, per_file_byte: float) -> _State:
    parts = dict(assembly.parts)  # other threads add to it
    fresh = sum(part.training.utf8_bytes for number, part in parts.items() if number not in assembly.kept)
    if assembly.complete:
        known = assembly.sample is not None or None not in sizes
        return _State(fresh, fresh if known else None)
    done = fresh + (_growing_tokens(assembly) * per_token if assembly.started else 0.0)
    if assembly.sample is not None:
        kept = sum(parts[number].training.utf8_bytes for number in assembly.kept & parts.keys())
        return _State(done, max(done, assembly.sample.tokens * per_token - kept))
    unread = [size for number, size in enumerate(sizes) if number not in parts]
    return _State(done, None if None in sizes else fresh + sum(size or 0 for size in unread) * per_file_byte)


def _growing_tokens(assembly: Assembly) -> int:
    """Tokens in files that are being written."""
    size = 0
    for path in assembly.work.glob(".part-*.bin.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size // assembly.id_bytes
