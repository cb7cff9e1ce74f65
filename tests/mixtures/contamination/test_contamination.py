"""Finding benchmark items in text: nothing missed, nothing invented, nothing across a document's end."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.contamination import words as words_module
from mixtures.contamination.clean import overlaps
from mixtures.contamination.index import Index
from mixtures.contamination.words import Batch, words

FEW_WORDS = st.lists(st.sampled_from(["a", "B", "水", "É", "9"]), max_size=14).map(" ".join)
LETTERS = "abcdefghijklmnopqrstuvwxyz" + "éßøж" + "λ0"
GAPS = (" ", "  ", "\n", "\t", "\u00a0", " - ", ", ", "; ", "… ", " (", ") ", '" ', "_", "/", "’ ")


def naive(texts: list[str], documents: list[str], ngram: int, min_words: int) -> set[tuple[int, int, int]]:
    """(document, text, position) of every n-gram found, by sets of tuples."""
    found = set()
    for number, text in enumerate(texts):
        item = words(text)
        length = min(ngram, len(item))
        if len(item) < min_words:
            continue
        for d, document in enumerate(documents):
            body = words(document)
            grams = {tuple(body[i : i + length]) for i in range(len(body) - length + 1)}
            found |= {(d, number, p) for p in range(len(item) - length + 1) if tuple(item[p : p + length]) in grams}
    return found


def searched(texts: list[str], documents: list[str], ngram: int, min_words: int) -> set[tuple[int, int, int]]:
    index, text_of = Index.build(texts, ngram, min_words)
    found = index.find(Batch(documents))
    owner = index.text_at(found.place)
    assert len(set(zip(*(column.tolist() for column in found), strict=True))) == len(found.document)
    return {
        (int(d), number, int(place - index.bounds[text]))
        for d, place, text in zip(found.document, found.place, owner, strict=True)
        for number in np.flatnonzero(text_of == text).tolist()
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(FEW_WORDS, max_size=5), st.lists(FEW_WORDS, max_size=5), st.integers(1, 4), st.integers(1, 4))
def test_agrees_with_sets_of_tuples(texts: list[str], documents: list[str], ngram: int, min_words: int) -> None:
    min_words = min(ngram, min_words)
    assert searched(texts, documents, ngram, min_words) == naive(texts, documents, ngram, min_words)


@settings(max_examples=100, deadline=None)
@given(st.lists(FEW_WORDS, max_size=4), st.lists(FEW_WORDS, max_size=4), st.integers(1, 4))
def test_colliding_hashes_invent_nothing(texts: list[str], documents: list[str], ngram: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module, "_mixed", lambda values: values & np.uint64(1))
        assert searched(texts, documents, ngram, 1) == naive(texts, documents, ngram, 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(8, 60), st.integers(0, 300), st.booleans())
def test_a_planted_text_is_found_whole(seed: int, length: int, filler: int, change: bool) -> None:
    rng = random.Random(seed)
    item = [_word(rng) for _ in range(length)]
    document = [_word(rng) for _ in range(filler)]
    document.insert(rng.randint(0, len(document)), _changed(item, rng) if change else " ".join(item))
    others = [" ".join(_word(rng) for _ in range(30)) for _ in range(3)]
    texts = [" ".join(item), *(" ".join(_word(rng) for _ in range(20)) for _ in range(5))]
    index, _ = Index.build(texts, 13, 8)
    found = index.find(Batch([others[0], " ".join(document), *others[1:]]))
    assert set(found.document.tolist()) == {1}
    assert index.text_at(found.place).tolist() == [0] * max(1, length - 12)
    assert overlaps(index, found, 4).tolist() == [0, 1, 0, 0]


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 9)))


def _changed(item: list[str], rng: random.Random) -> str:
    """Other case, punctuation and white space."""
    cased = (rng.choice((str.upper, str.title, str))(word) for word in item)
    return "".join(word + rng.choice(GAPS) for word in cased)


def test_no_ngram_bridges_two_documents() -> None:
    item = "one two three four five six seven eight nine ten eleven twelve thirteen"
    index, _ = Index.build([item], 13, 8)
    head, tail = item[:40], item[40:]
    assert len(index.find(Batch([head, tail])).document) == 0
    assert index.find(Batch([tail, f"{head}{tail}", head])).document.tolist() == [1]


def test_short_texts_count_whole_or_not_at_all() -> None:
    texts = [" ".join("abcdefghijklmnop"[:n]) for n in (0, 1, 7, 8, 12, 13, 14)]
    index, text_of = Index.build(texts, 13, 8)
    assert (text_of < 0).tolist() == [True, True, True, False, False, False, False]
    assert index.lengths.tolist() == [8, 12, 13, 13]
    assert index.ngrams.tolist() == [1, 1, 1, 2]
    found = index.find(Batch(["x a b c d e f g h i j k x", texts[4]]))
    assert [(d, int(index.text_at(p))) for d, p in zip(*found, strict=True)] == [(0, 0), (1, 0), (1, 1)]


def test_overlap_is_the_share_of_one_texts_ngrams() -> None:
    item = [f"w{n}" for n in range(22)]  # ten 13-grams
    index, _ = Index.build([" ".join(item), "nothing of this stands in any of the documents"], 13, 8)
    documents = [" ".join(item[:13]), " ".join(item[5:20]) + " x " + " ".join(item[7:20]), "", " ".join(item)]
    assert overlaps(index, index.find(Batch(documents)), 4).tolist() == [0.1, 0.3, 0, 1]


def test_nothing_to_look_for_and_nowhere_to_look() -> None:
    empty, text_of = Index.build(["too short", ""], 13, 8)
    assert text_of.tolist() == [-1, -1]
    assert len(empty.find(Batch(["some text"])).place) == 0
    index, _ = Index.build(["one two three four five six seven eight"], 13, 8)
    for documents in ([], [""], ["", " \n "], ["seven eight"]):
        assert len(index.find(Batch(documents)).place) == 0
        assert overlaps(index, index.find(Batch(documents)), len(documents)).tolist() == [0] * len(documents)


def test_text_without_spaces_is_found_inside_running_text() -> None:
    item = "水を飲む前に必ず沸騰させてください"
    index, _ = Index.build([item], 13, 8)
    found = index.find(Batch([f"山の家では{item}と書いてある。", item[:12]]))
    assert found.document.tolist() == [0] * (len(item) - 12)


def test_an_index_survives_the_disk(tmp_path: Path) -> None:
    texts = ["eins zwei drei vier fünf sechs sieben acht neun", "too short", " ".join(f"w{n}" for n in range(30))]
    for given_texts in (texts, []):
        index, _ = Index.build(given_texts, 13, 8)
        index.save(tmp_path / "index.npz")
        again = Index.load(tmp_path / "index.npz")
        assert (again.vocabulary, again.ngram, again.min_words) == (index.vocabulary, 13, 8)
        for one, other in zip(index.find(Batch(texts)), again.find(Batch(texts)), strict=True):
            assert one.tolist() == other.tolist()
