"""What may leave documents out while a source is tokenized.

A new filter implements `DocumentFilter`; `mixtures.contamination.clean` has the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

from mixtures.sources.source import Document


class DocumentFilter(Protocol):
    """Passes some documents on and leaves the others out; goes to worker processes, so it can be pickled."""

    reason: ClassVar[str]
    """One word for the manifest's count of what was left out."""

    def inputs(self) -> dict[str, Any]:
        """Part of the key of the token shards: equal values leave out equal documents, wherever files lie."""

    def __call__(self, documents: Iterable[Document], dropped: Callable[[int], None]) -> Iterator[Document]:
        """The documents that stay, in their order; `dropped` is told the row of each one left out."""
