"""Documents without those that hold too much of a benchmark item, for the tokenizer (`data.decontaminate`).

In: documents as they are read. Out: the others, in the same order. Each is judged alone and while it is read, so
that a sample of a corpus costs no search of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from configs.artifacts import fingerprint
from configs.schema import BenchmarkConfig
from mixtures.contamination.index import Found, Index
from mixtures.contamination.items import Catalogue, read_items
from mixtures.contamination.search import GPT3_RULE, batches, load_index, looked_for
from mixtures.contamination.words import Batch
from mixtures.sources.source import Document


@dataclass(frozen=True)
class ContaminationFilter:
    """Leave out documents that hold at least the share `threshold` of the n-grams of some text of the index."""

    reason: ClassVar[str] = "contaminated"

    index: Path
    key: str
    """Fingerprint of what the index is made from."""
    threshold: float

    def inputs(self) -> dict[str, Any]:
        """Equal values leave out equal documents, wherever the index lies."""
        return {"index": self.key, "threshold": self.threshold}

    def __call__(self, documents: Iterable[Document], dropped: Callable[[int], None]) -> Iterator[Document]:
        """`dropped` is told the row of each document left out."""
        index = load_index(self.index)
        for rows, texts in batches(documents):
            overlap = overlaps(index, index.find(Batch(texts)), len(texts))
            for row, text, share in zip(rows, texts, overlap.tolist(), strict=True):
                if share >= self.threshold:
                    dropped(row)
                else:
                    yield Document(row, text)


def contamination_filter(
    benchmarks: Sequence[BenchmarkConfig], root: Path | None, folder: Path, threshold: float
) -> ContaminationFilter:
    """Makes the index of the benchmarks' items in `folder` unless it is there; `root` as in `search`."""
    key = fingerprint(looked_for(benchmarks, root, GPT3_RULE))
    path = folder / f"cleaning-{key[:16]}.npz"
    if not path.is_file():
        items = [item for spec in benchmarks for item in read_items(spec, root)]
        Catalogue.build(items, *GPT3_RULE)[1].save(path)
    return ContaminationFilter(path, key, threshold)


def overlaps(index: Index, found: Found, num_documents: int) -> npt.NDArray[np.float64]:
    """The largest share of a text's n-grams that each document holds; float64 [documents]."""
    pair, count = np.unique(np.stack([found.document, index.text_at(found.place)]), axis=1, return_counts=True)
    largest = np.zeros(num_documents)
    np.maximum.at(largest, pair[0], count / index.ngrams[pair[1]])
    return largest
