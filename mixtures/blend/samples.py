"""The documents behind each sequence of training.

In: a blend and the number of a sample. Out: `Sample`: its tokens, and which stretches of which documents they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mixtures.blend.blend import Blend


@dataclass(frozen=True)
class Stretch:
    """A part of a document, as a sequence holds it."""

    unit: str
    """Input file that the document was read from."""
    row: int
    """Its row there, from 0."""
    start: int
    stop: int
    """Tokens start to stop - 1 of the document, its end-of-document token counted."""
    length: int
    """Tokens of the whole document."""


@dataclass(frozen=True)
class Sample:
    """One sequence of training."""

    number: int
    """Its place in the order of training, from 0."""
    source: str
    epoch: int
    """Pass over the source in which it begins, from 1."""
    stretches: tuple[Stretch, ...]
    """The documents in it, in order."""
    tokens: npt.NDArray[np.int64]
    """int64 [context + 1]: the inputs, and the last label."""


def read_sample(blend: Blend, number: int) -> Sample:
    source = blend.source_of(number)
    shards = blend.shards[source]
    stretches = tuple(
        Stretch(*shards.origin(document), start, stop, int(shards.lengths[document]))
        for document, start, stop in blend.pieces(number)
    )
    epoch = 1 + blend.window_of(number) * blend.context_tokens // shards.num_tokens
    return Sample(number, source, epoch, stretches, blend[number])
