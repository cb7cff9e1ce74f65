"""Each measure of the pool against an independent count, and sums that do not depend on how documents are divided."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.statistics.batch import Batch, Words, split_words
from mixtures.statistics.features import (
    DIVERSITY_WINDOW_WORDS,
    SYMBOLS,
    Characters,
    Code,
    Compression,
    Diversity,
    Sizes,
    types_in_windows,
)
from mixtures.statistics.histogram import EDGES, histogram, quantile
from mixtures.statistics.measure import FEATURES, measure, merge_all
from mixtures.statistics.style import Style, count_sentences, syllables
from mixtures.tokens.tokenizer import Tokenizer

TEXTS = st.text(st.sampled_from("abcE xyZ.,!?'\"\n\t(){};=012#é’—水\\"), max_size=80)


def style(text: str, tokenizer: Tokenizer) -> dict[str, float | int | None]:
    return Style().values(Style().of(Batch([text], tokenizer)))


# ---------------------------------------------------------------------------------------------- adding up


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), data=st.data())
def test_any_division_of_documents_gives_the_same_sums(
    texts: list[str], data: st.DataObject, tokenizer: Tokenizer
) -> None:
    whole = measure(texts, tokenizer)
    part_of = data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    a, b, c = (
        measure([text for text, p in zip(texts, part_of, strict=True) if p == part], tokenizer) for part in range(3)
    )
    for divided in (merge_all(merge_all(a, b), c), merge_all(c, merge_all(b, a))):
        for feature in FEATURES:
            assert whole[feature.name].keys() == divided[feature.name].keys()
            for key, total in whole[feature.name].items():
                assert total.dtype == np.int64
                np.testing.assert_array_equal(total, divided[feature.name][key])
            assert feature.values(whole[feature.name]) == feature.values(divided[feature.name])


def test_nothing_measured_is_null_not_zero(tokenizer: Tokenizer) -> None:
    sums = measure([], tokenizer)
    for feature in FEATURES:
        values = feature.values(sums[feature.name])
        assert list(values) == list(feature.columns)
        assert all(value in (None, 0) for value in values.values())
    assert style("", tokenizer)["readability"] is None


# ---------------------------------------------------------------------------------------------- lengths


@given(
    lengths=st.lists(st.integers(0, 10**9), min_size=1, max_size=200),
    q=st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.95, 1.0]),
)
def test_quantiles_are_within_a_bin_of_numpys(lengths: list[int], q: float) -> None:
    exact = np.quantile(lengths, q, method="inverted_cdf")
    found = quantile(histogram(np.array(lengths)), q)
    assert found is not None
    assert found == exact if exact < 45 else math.isclose(found, exact, rel_tol=0.0111)


def test_bins_cover_all_lengths_without_gaps() -> None:
    assert EDGES[0] == 0
    assert (np.diff(EDGES) > 0).all()
    assert ((EDGES[46:] - 1) / EDGES[45:-1]).max() < 2 ** (1 / 32)
    lengths = np.arange(100_000)
    np.testing.assert_array_equal(histogram(lengths), np.histogram(lengths, bins=EDGES)[0])
    assert quantile(np.zeros(len(EDGES) - 1, dtype=np.int64), 0.5) is None


def test_sizes_are_those_of_python(texts: object, tokenizer: Tokenizer) -> None:
    documents = texts(50, 3)  # type: ignore[operator]
    values = Sizes().values(Sizes().of(Batch(documents, tokenizer)))
    assert values["documents"] == 50
    assert values["characters"] == sum(map(len, documents))
    assert values["utf8_bytes"] == sum(len(text.encode()) for text in documents)
    assert values["tokens"] == sum(len(tokenizer.encode(text)) for text in documents)


# ---------------------------------------------------------------------------------------------- characters, lines


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_shares_are_those_counted_character_by_character(texts: list[str], tokenizer: Tokenizer) -> None:
    characters = Counter("".join(texts))
    total = characters.total()
    values = Characters().values(Characters().of(Batch(texts, tokenizer)))
    if not total:
        assert values["digit_share"] is None
        return
    expected = {
        "symbol_share": sum(n for c, n in characters.items() if c in SYMBOLS.decode()),
        "digit_share": sum(n for c, n in characters.items() if c in "0123456789"),
        "space_share": sum(n for c, n in characters.items() if c in " \t\n\r\v\f"),
        "non_ascii_share": sum(n for c, n in characters.items() if not c.isascii()),
    }
    assert {name: values[name] for name in expected} == {name: n / total for name, n in expected.items()}
    letters = [c for c in characters.elements() if c.isascii() and c.isalpha()]
    assert values["upper_case_share"] == (sum(c.isupper() for c in letters) / len(letters) if letters else None)


def test_compression_is_zlibs_over_blocks_of_each_document(tokenizer: Tokenizer) -> None:
    long, short = "the stone keeps a lantern under the bridge 水 " * 300, "a short document"
    encoded = long.encode()
    assert 3 * 4096 < len(encoded) < 4 * 4096
    blocks = [encoded[:4096], encoded[4096:8192], encoded[8192:12288], encoded[12288:], short.encode()]
    by_hand = sum(map(len, blocks)) / sum(len(zlib.compress(block, 6)) for block in blocks)
    values = Compression().values(Compression().of(Batch([long, short], tokenizer)))
    assert values["compression_ratio"] == by_hand


def test_code_is_told_from_prose_by_line(tokenizer: Tokenizer) -> None:
    prose = "It was late, and the road (the old one) was closed.\nWe import nothing; we let it be."
    code = "def f(x):\n    y = x\n    if (y) {\n    g(y);\n"
    one_of_each = "x = 1\nfive!"
    shares = [Code().values(Code().of(Batch([text], tokenizer)))["code_share"] for text in (prose, code, one_of_each)]
    assert shares == [0.0, 1.0, 0.5]


# ---------------------------------------------------------------------------------------------- words


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_words_are_runs_of_letters_with_apostrophes_inside(text: str) -> None:
    expected = re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower())
    assert [word.decode() for word in split_words(text.encode())] == expected


def test_typographic_marks_are_no_letters() -> None:
    text = "“It’s naïve”—she said… ‘Straße’, 5 o'clock"
    assert [word.decode() for word in split_words(text.encode())] == [
        *("it's", "naïve", "she", "said", "straße", "o'clock"),
    ]


@given(
    documents=st.lists(st.lists(st.integers(0, 5), max_size=20), min_size=1, max_size=5),
    window=st.integers(1, 8),
)
def test_moving_average_of_types_is_that_of_every_window(documents: list[list[int]], window: int) -> None:
    every = [len(set(d[i : i + window])) for d in documents for i in range(len(d) - window + 1)]
    ids = np.array([word for d in documents for word in d], dtype=np.int64)
    words = Words(ids, np.array([len(d) for d in documents], dtype=np.int64), [])
    assert types_in_windows(words, window) == (sum(every), len(every))


def test_type_token_ratio_does_not_depend_on_the_amount_of_text(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    draw = [f"w{'abcdefghij'[a]}{'abcdefghij'[b]}" for a, b in rng.zipf(1.5, (40_000, 2)) % 10]

    def ratio(count: int) -> float:
        values = Diversity().values(Diversity().of(Batch([" ".join(draw[:count])], tokenizer)))
        assert values["type_token_ratio"] is not None
        return values["type_token_ratio"]

    assert abs(ratio(4_000) - ratio(40_000)) < 0.01
    naive = [len(set(draw[:count])) / count for count in (4_000, 40_000)]
    assert naive[0] > 5 * naive[1]
    short = " ".join(draw[: DIVERSITY_WINDOW_WORDS - 1])
    assert Diversity().values(Diversity().of(Batch([short], tokenizer)))["type_token_ratio"] is None


# ---------------------------------------------------------------------------------------------- style


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "the cat like makes were jumped watched whole eyes through a e hmm"),
        (2, "table apples wanted houses little happy eating handled reading"),
        (3, "beautiful marvellous government animal energy"),
        (4, "information community celebrity"),
    ],
)
def test_syllables(count: int, words: str) -> None:
    wrong = {word: syllables(word.encode()) for word in words.split() if syllables(word.encode()) != count}
    assert not wrong


def test_sentences() -> None:
    def count(text: str) -> int:
        return count_sentences(text.encode())

    assert count("") == 0
    assert count("no full stop") == 1
    assert count("One. Two! Three?") == 3
    assert count('"Is it?" he asked. (It was.) Version 2.5 ran.') == 4
    assert count("A heading\n\nA text.\n\nAnother") == 3
    assert count("He said: “Come.” They came.") == 2


def test_readability_is_fleschs_of_two_sentences_counted_by_hand(tokenizer: Tokenizer) -> None:
    # 6 words, 6 syllables; 1+3+2+1+2+3+2 = 14 syllables in 7 words.
    text = "The cat sat on the mat. The beautiful children were eating marvellous apples."
    expected = 206.835 - 1.015 * 13 / 2 - 84.6 * 20 / 13
    assert style(text, tokenizer)["readability"] == pytest.approx(expected, abs=1e-12)


def test_formality_counts_the_classes_of_words(tokenizer: Tokenizer) -> None:
    assert style("The government of the nation", tokenizer)["formality"] == 100
    assert style("I know you", tokenizer)["formality"] == 0
    # formal: in, the, nation; deictic: she, lived; of no class: stone
    assert style("She lived in the stone nation", tokenizer)["formality"] == pytest.approx(60)


def test_narrativity_tells_a_story_from_a_treatise(tokenizer: Tokenizer) -> None:
    story = '"Come in," he said. She took her coat and went to him. They had walked all night.'
    treatise = "Therefore the distribution of the measurements is a limitation (Smith, 2004); see [3] and \\cite{x}."
    # he, said, she, took, her, went, him, they, had, walked, and one closing mark; 17 words.
    assert style(story, tokenizer)["narrativity"] == pytest.approx(100 * 11 / 17)
    # therefore, distribution, measurements, limitation, and three citations; 14 words.
    assert style(treatise, tokenizer)["narrativity"] == pytest.approx(-100 * 7 / 14)
    # Narrative: he, said; expository: however, expectation.
    assert style("However he said nothing of the expectation", tokenizer)["narrativity"] == 0
