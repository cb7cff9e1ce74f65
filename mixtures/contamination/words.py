"""Text as words that compare equal whatever their case, punctuation, white space or Unicode spelling; and their hashes.

A word is a run of letters and digits of the folded text (NFKC, case-folded, without soft hyphens). Everything else only
separates: "don't" is two words, so that a straight, a curly and a missing apostrophe before a space all read alike.
Chinese and Japanese have no spaces: each of their characters is a word. (Thai and its neighbours are written without
spaces too and with vowel signs, which separate: n-grams are then runs of syllables, and an item is found inside running
text except for its first and last piece.)

`words` is the definition; `Batch` finds the same words in many documents at once, with NumPy.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

UNSPACED = "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Ideographs and kana, as a regular expression's character class."""
WORD = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W_{UNSPACED}]+")
SOFT_HYPHEN = "\u00ad"

SEPARATOR, LETTER, IDEOGRAPH = range(3)
BLOCK_WORDS = 1 << 14
"""Words hashed at a time: their letters' powers and sums stay in the processor's cache."""


def fold(text: str) -> str:
    """`text` in the one spelling that stands for all that look alike (Unicode's caseless match)."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).replace(SOFT_HYPHEN, "")
    return unicodedata.normalize("NFKC", text.casefold())


def words(text: str) -> list[str]:
    return WORD.findall(fold(text))


class Batch:
    """The words of several documents, one after another."""

    def __init__(self, documents: Sequence[str]) -> None:
        folded = [fold(document) for document in documents]
        self.text = "\n".join(folded)
        self.start, self.end, self.hash = _hashed_words(self.text)
        """Bounds of each word in `text` (int64) and its hash (uint64; equal words have equal hashes)."""
        ends = np.cumsum([len(text) + 1 for text in folded], dtype=np.int64)
        counts = np.diff(np.searchsorted(self.start, ends), prepend=0)
        self.document: Places = np.repeat(np.arange(len(folded)), counts)
        """Number of each word's document; int64 [words]."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, i: int) -> str:
        return self.text[self.start[i] : self.end[i]]


def hashes(vocabulary: Sequence[str]) -> Hashes:
    """The hash of each word; vocabulary: as `words` gives them."""
    return _hashed_words("\n".join(vocabulary))[2]


def window_hashes(values: Hashes, lengths: Iterable[int]) -> Iterator[tuple[int, Hashes]]:
    """Hash every window of neighbouring values, for each length: uint64 [len(values) - length + 1], or empty.

    Equal windows have equal hashes.
    """
    sums, inverses = _running_sums(values)
    for length in lengths:
        yield length, (sums[length:] - sums[:-length]) * inverses[: max(0, len(sums) - length)]


def _hashed_words(folded: str) -> tuple[Places, Places, Hashes]:
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    start, end = _bounds(codes)
    return start, end, _word_hashes(codes, start, end)


def _bounds(codes: npt.NDArray[np.uint32]) -> tuple[Places, Places]:
    kind = np.zeros(len(codes) + 2, dtype=np.uint8)
    kind[1:-1] = _kinds()[codes]
    edge = kind[1:] != kind[:-1]
    ideograph = kind == IDEOGRAPH
    if ideograph.any():
        edge |= ideograph[1:]
    edges = np.flatnonzero(edge)
    inside = np.flatnonzero(kind[1:][edges] != SEPARATOR)
    return edges[inside], edges[inside + 1]


def _word_hashes(codes: npt.NDArray[np.uint32], start: Places, end: Places) -> Hashes:
    found = np.empty(len(start), dtype=np.uint64)
    for first in range(0, len(start), BLOCK_WORDS):
        block = slice(first, first + BLOCK_WORDS)
        low, high = start[block][0], end[block][-1]
        sums, inverses = _running_sums(_letters()[codes[low:high]])
        begin = start[block] - low
        found[block] = _mixed((sums[end[block] - low] - sums[begin]) * inverses[begin])
    return found


def _running_sums(values: Hashes) -> tuple[Hashes, Hashes]:
    """sums[i] of values[k] * BASE^k for k < i, and BASE^-i, modulo 2^64.

    So (sums[end] - sums[start]) * BASE^-start is the polynomial hash of values[start:end], for all ranges at once.
    """
    powers, inverses = _powers(max(16, len(values).bit_length()))
    sums = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return sums, inverses


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of hashes.

    Without this, hashes of hashes would be sums over letters, and exchanging two letters might change nothing.
    """
    values ^= values >> np.uint64(32)
    values *= np.uint64(0xD6E8FEB86659FD93)
    values ^= values >> np.uint64(32)
    return values


@functools.lru_cache(8)
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """BASE^i and BASE^-i modulo 2^64 for i < 2^bits; an odd number has an inverse."""
    base = 0x9E3779B97F4A7C15
    tables = np.ones((2, 1 << bits), dtype=np.uint64)
    for table, factor in zip(tables, (base, pow(base, -1, 2**64)), strict=True):
        table[1:] = np.cumprod(np.full(len(table) - 1, factor, dtype=np.uint64))
    return tables[0], tables[1]


@functools.cache
def _letters() -> Hashes:
    """A fixed random number for every code point."""
    return _mixed(np.arange(1, 0x110001, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9))


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """SEPARATOR, LETTER or IDEOGRAPH for every code point."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), dtype=np.uint8, count=0x110000)
    for match in re.finditer(r"(.)-(.)", UNSPACED):
        span = slice(ord(match[1]), ord(match[2]) + 1)
        kinds[span] *= IDEOGRAPH
    return kinds
