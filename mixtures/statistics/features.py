"""What is measured: each feature turns documents into sums, and the sums of many batches into columns.

Sums only ever add up, so a source's numbers do not depend on how its documents lie in files or batches; all sums here
are integers, and then not even by a rounding. A further column is one more class with the interface `Feature`.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mixtures.statistics.batch import Batch, Words
from mixtures.statistics.histogram import QUANTILES, histogram, quantile

Sums = dict[str, npt.NDArray[Any]]
"""Arrays (of any shape, () included) that are added place by place when sums are merged."""
Values = dict[str, float | int | None]

COMPRESSION_LEVEL = 6
COMPRESSION_BLOCK_BYTES = 4096
DIVERSITY_WINDOW_WORDS = 50


class Column(NamedTuple):
    unit: str
    meaning: str


class Feature(Protocol):
    """Features are sent to worker processes, so they can be pickled."""

    @property
    def name(self) -> str:
        """Stored sums are found again by it: it changes when they would (and so names a model, say, by its hash)."""
        ...

    @property
    def columns(self) -> Mapping[str, Column]:
        """What `values` gives, in order."""
        ...

    def of(self, batch: Batch) -> Sums:
        """Over the documents of a batch; the same keys, shapes and dtypes for every batch, an empty one too."""
        ...

    def values(self, sums: Sums) -> Values:
        """The columns of a row of the table; a column is None where nothing was measured."""
        ...


def merge(a: Sums, b: Sums) -> Sums:
    """The sums over the documents of both."""
    return {key: a[key] + b[key] for key in a.keys() | b.keys()}


def counts(**numbers: int) -> Sums:
    return {key: np.array(number, dtype=np.int64) for key, number in numbers.items()}


def ratio(above: Any, below: Any) -> float | None:
    return float(above) / float(below) if below else None


class Sizes:
    name = "sizes"
    columns: Mapping[str, Column] = {
        "documents": Column("documents", "documents read"),
        "characters": Column("characters", "Unicode code points"),
        "utf8_bytes": Column("bytes", "length in UTF-8"),
        "words": Column("words", "runs of letters, apostrophes inside included"),
        "tokens": Column("tokens", "of the study's tokenizer, without end-of-document tokens"),
        "bytes_per_token": Column("bytes/token", "UTF-8 bytes a token"),
        **{
            f"{measure}_{name}": Column(measure, f"{q:.0%} quantile of a document's length")
            for measure, (name, q) in itertools.product(("tokens", "characters"), QUANTILES.items())
        },
    }

    def of(self, batch: Batch) -> Sums:
        characters = np.array([len(text) for text in batch.texts], dtype=np.int64)
        plain = counts(
            documents=len(batch.texts),
            characters=int(characters.sum()),
            utf8_bytes=sum(map(len, batch.utf8)),
            words=len(batch.words.ids),
            tokens=len(batch.tokens.ids),
        )
        return plain | {
            "tokens_histogram": histogram(batch.tokens.lengths),
            "characters_histogram": histogram(characters),
        }

    def values(self, sums: Sums) -> Values:
        plain: Values = {key: int(sums[key]) for key in ("documents", "characters", "utf8_bytes", "words", "tokens")}
        plain["bytes_per_token"] = ratio(sums["utf8_bytes"], sums["tokens"])
        for measure in ("tokens", "characters"):
            for name, q in QUANTILES.items():
                plain[f"{measure}_{name}"] = quantile(sums[f"{measure}_histogram"], q)
        return plain


class Compression:
    """Blocks, because the ratio grows with the length compressed at once; a shorter document is a block of its own."""

    name = "compression"
    columns: Mapping[str, Column] = {
        "compression_ratio": Column(
            "ratio",
            f"UTF-8 bytes over zlib's at level {COMPRESSION_LEVEL}, "
            f"each document alone in blocks of at most {COMPRESSION_BLOCK_BYTES} bytes",
        )
    }

    def of(self, batch: Batch) -> Sums:
        size = COMPRESSION_BLOCK_BYTES
        blocks = (text[start : start + size] for text in batch.utf8 for start in range(0, len(text), size))
        compressed = sum(len(zlib.compress(block, COMPRESSION_LEVEL)) for block in blocks)
        return counts(plain=sum(map(len, batch.utf8)), compressed=compressed)

    def values(self, sums: Sums) -> Values:
        return {"compression_ratio": ratio(sums["plain"], sums["compressed"])}


DIGITS = b"0123456789"
UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPACE = b" \t\n\r\x0b\x0c"
SYMBOLS = b"#$%&*+/<=>@[\\]^_`{|}~"
CONTINUATION = bytes(range(0x80, 0xC0))
ABOVE_ASCII = bytes(range(0x80, 0x100))


class Characters:
    name = "characters"
    columns: Mapping[str, Column] = {
        "symbol_share": Column("share", f"of the characters, {SYMBOLS.decode()}"),
        "digit_share": Column("share", "of the characters, 0 to 9"),
        "space_share": Column("share", "of the characters, ASCII white space"),
        "non_ascii_share": Column("share", "of the characters, those beyond ASCII"),
        "upper_case_share": Column("share", "of the ASCII letters, the upper-case ones"),
    }

    def of(self, batch: Batch) -> Sums:
        text = b"".join(batch.utf8)

        def occurrences(of: bytes) -> int:
            return len(text) - len(text.translate(None, of))

        continuation = occurrences(CONTINUATION)
        return counts(
            characters=len(text) - continuation,
            symbol=occurrences(SYMBOLS),
            digit=occurrences(DIGITS),
            space=occurrences(SPACE),
            non_ascii=occurrences(ABOVE_ASCII) - continuation,
            upper_case=occurrences(UPPER),
            letters=occurrences(UPPER + UPPER.lower()),
        )

    def values(self, sums: Sums) -> Values:
        shares = ("symbol", "digit", "space", "non_ascii")
        return {f"{name}_share": ratio(sums[name], sums["characters"]) for name in shares} | {
            "upper_case_share": ratio(sums["upper_case"], sums["letters"])
        }


CODE_ENDS = (*(b";", b"{", b"}", b"(", b"[", b"):", b"),", b"},", b"],", b'",', b"',", b"*/", b"\\", b"->", b"=>"),)
CODE_BEGINS = (
    *(b"def ", b"class ", b"import ", b"@", b"elif ", b"else:", b"try:", b"except", b"self.", b">>> "),
    *(b"//", b"/*", b"#include", b"#define", b"#if", b"#endif", b"#!", b"} ", b"});", b"</", b"package ", b"const "),
    *(b"SELECT ", b"INSERT ", b"CREATE ", b"FROM ", b"WHERE ", b"-- "),
)
CODE_HOLDS = b" = "


class Code:
    """Prose and code are told apart by line: how it ends, how it begins, whether it assigns."""

    name = "code"
    columns: Mapping[str, Column] = {
        "code_share": Column(
            "share",
            "of the text, lines that end as code does (; { } ): ...), begin with a word or mark of code, or hold ' = '",
        )
    }

    def of(self, batch: Batch) -> Sums:
        code = total = 0
        for line in batch.paragraphs.split(b"\n"):
            line = line.strip()
            total += len(line)
            if line.endswith(CODE_ENDS) or line.startswith(CODE_BEGINS) or CODE_HOLDS in line:
                code += len(line)
        return counts(code=code, total=total)

    def values(self, sums: Sums) -> Values:
        return {"code_share": ratio(sums["code"], sums["total"])}


class Diversity:
    """The moving-average type/token ratio of Covington and McFall (2010).

    A window never spans documents, and a document shorter than one has none; hence a window that most documents fill.
    """

    name = "diversity"
    columns: Mapping[str, Column] = {
        "type_token_ratio": Column(
            "ratio",
            f"different words among {DIVERSITY_WINDOW_WORDS}, averaged over every window of that many words",
        )
    }

    def of(self, batch: Batch) -> Sums:
        types, windows = types_in_windows(batch.words, DIVERSITY_WINDOW_WORDS)
        return counts(types=types, windows=windows)

    def values(self, sums: Sums) -> Values:
        return {"type_token_ratio": ratio(sums["types"], DIVERSITY_WINDOW_WORDS * sums["windows"])}


def types_in_windows(words: Words, window: int) -> tuple[int, int]:
    """Different words summed over every window of `window` successive words of a document; and how many windows.

    A word is counted in the windows that begin after its previous occurrence and at most `window` - 1 before it.
    """
    ids, lengths = words.ids, words.lengths
    begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
    last_window = np.repeat(np.cumsum(lengths) - window, lengths)
    place = np.arange(len(ids))
    # Word and place in one number, so that a single sort brings equal words together.
    by_word = np.sort(ids << 32 | place)  # of equal words, the places rise
    again = np.flatnonzero(by_word[1:] >> 32 == by_word[:-1] >> 32)
    after_previous = np.zeros(len(ids), dtype=np.int64)
    after_previous[by_word[again + 1] & 0xFFFFFFFF] = (by_word[again] & 0xFFFFFFFF) + 1
    first = np.maximum(np.maximum(after_previous, begin), place - window + 1)
    last = np.minimum(place, last_window)
    return int(np.maximum(last - first + 1, 0).sum()), int(np.maximum(lengths - window + 1, 0).sum())
