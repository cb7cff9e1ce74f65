"""Some documents in every form that the features want; each form is made once, when first asked for.

In: texts and a tokenizer. Out: UTF-8, words, tokens. Everything is counted on UTF-8 bytes, several times faster in
Python than on characters; where that matters, ASCII is meant (an upper-case É counts as a letter, not as upper-case).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mixtures.tokens.tokenizer import Tokenizer

GENERAL_PUNCTUATION = re.compile(rb"\xe2\x80.|\xc2\xa0")
"""U+2000 to U+203F (dashes, curly quotes, spaces) and the no-break space, in UTF-8."""
LOWER_LETTERS = bytes(
    byte | 0x20 if chr(byte).isalpha() and byte < 128 else byte if byte >= 128 or byte == ord("'") else ord(" ")
    for byte in range(256)
)
"""A table for bytes.translate: letters and apostrophes stay, lower-case; the rest of ASCII becomes a space."""


class Words(NamedTuple):
    """The words of several documents, one after the other."""

    ids: npt.NDArray[np.int64]
    """Places in `types`; [words]."""
    lengths: npt.NDArray[np.int64]
    """Words of each document; [documents]."""
    types: list[bytes]
    """The different words."""


class Tokens(NamedTuple):
    ids: npt.NDArray[np.uint32]
    """[tokens], without end-of-document tokens."""
    lengths: npt.NDArray[np.int64]
    """Tokens of each document; [documents]."""
    vocab: int


class Batch:
    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        self.texts = texts
        self._tokenizer = tokenizer

    @cached_property
    def utf8(self) -> list[bytes]:
        return [text.encode() for text in self.texts]

    @cached_property
    def paragraphs(self) -> bytes:
        """All documents in UTF-8, without surrounding white space, with an empty line between them."""
        return b"\n\n".join(filter(None, (text.strip() for text in self.utf8)))

    @cached_property
    def words(self) -> Words:
        words = [split_words(text) for text in self.utf8]
        lengths = np.array([len(document) for document in words], dtype=np.int64)
        place: defaultdict[bytes, int] = defaultdict()
        place.default_factory = place.__len__
        ids = np.fromiter(map(place.__getitem__, chain.from_iterable(words)), np.int64, int(lengths.sum()))
        return Words(ids, lengths, list(place))

    @cached_property
    def tokens(self) -> Tokens:
        ids = [self._tokenizer.encode_array(text) for text in self.texts]
        lengths = np.array([len(document) for document in ids], dtype=np.int64)
        joined = np.concatenate(ids) if ids else np.empty(0, dtype=np.uint32)
        return Tokens(joined, lengths, self._tokenizer.vocab_size)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """A hash of each text, uniform over 64 bits; uint64 [documents]."""
        return np.array([text_hash(text) for text in self.utf8], dtype=np.uint64)


def split_words(utf8: bytes) -> list[bytes]:
    """Lower-case runs of letters, apostrophes inside included: b"It's 5 o'clock." is it's, o'clock.

    Every character beyond ASCII is a letter, but for general punctuation.
    """
    plain = GENERAL_PUNCTUATION.sub(b" ", utf8.replace(b"\xe2\x80\x99", b"'")).translate(LOWER_LETTERS)
    if b"'" in plain:
        plain = b" %b " % plain.replace(b"''", b" ")
        plain = plain.replace(b" '", b" ").replace(b"' ", b" ")
    return plain.split()


def text_hash(utf8: bytes) -> int:
    """Independent of the hash that splits shards into training and validation."""
    return int.from_bytes(hashlib.blake2b(utf8, digest_size=8, person=b"statistics").digest(), "big")
