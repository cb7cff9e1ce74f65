"""Words: what compares equal, and that the fast way finds exactly the words of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixtures.contamination import words as module
from mixtures.contamination.words import Batch, hashes, window_hashes, words

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)
WORDY = st.text("abE9 _-'\n.ßİſéÉ\u0301\u00ad\u200b½²ﬁⅫ水の々カ゛กิमे🙂\ud800", max_size=40)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The cat", "the CAT"),
        ("don't stop", "Don’t … STOP!"),
        ("a well-known fact", "A well\u2011known\nfact"),
        ("Straße", "STRASSE"),
        ("ﬁne ½ café", "fine 1⁄2 cafe\u0301"),
        ("con\u00adtami\u00adnation", "contamination"),
        ("snake_case_name", "snake case name"),
        ("ΟΔΟΣ ΐ", "οδος Ϊ́"),
        ("ＡＢＣ １２", "abc 12"),
        ("no\u00a0break", "no break"),
    ],
)
def test_texts_that_look_alike_have_the_same_words(one: str, other: str) -> None:
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" -- …\n_", []),
        ("it's x_1", ["it", "s", "x", "1"]),
        ("水は冷たい。OK", ["水", "は", "冷", "た", "い", "ok"]),
        ("Ελλάδα море مرحبا", ["ελλάδα", "море", "مرحبا"]),
        ("हिन्दी", ["ह", "न", "द"]),  # vowel signs separate
        ("🙂❤️", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY_TEXT | WORDY, max_size=6))
@example([""])
@example(["", "a", "", "b水"])
def test_a_batch_has_exactly_the_words_of_its_documents(documents: list[str]) -> None:
    batch = Batch(documents)
    found: list[list[str]] = [[] for _ in documents]
    for i, document in enumerate(batch.document.tolist()):
        found[document].append(batch[i])
    assert found == [words(document) for document in documents]
    assert batch.hash.dtype == np.uint64


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY_TEXT | WORDY, max_size=6), st.integers(1, 5))
def test_hashes_follow_the_word_alone(documents: list[str], block: int) -> None:
    vocabulary = sorted({word for document in documents for word in words(document)})
    known = dict(zip(vocabulary, hashes(vocabulary).tolist(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_WORDS", block)
        batch = Batch(documents)
    assert batch.hash.tolist() == [known[batch[i]] for i in range(len(batch))]
    assert len(set(known.values())) == len(known)


def test_window_hashes_follow_the_window_alone() -> None:
    values = np.random.default_rng(0).integers(0, 3, 500, dtype=np.uint64)
    for length, found in window_hashes(values, (1, 2, 5, 500, 501, 900)):
        windows = [tuple(values[i : i + length].tolist()) for i in range(len(values) - length + 1)]
        assert len(found) == len(windows)
        assert len(set(zip(windows, found.tolist(), strict=True))) == len(set(windows)) == len(set(found.tolist()))
