"""Style scores from words alone: readability, formality, narrative against expository.

They stand in for ratings by people or language models, and order sources rather than documents. English is assumed;
of code they say little. A word's class is looked up in the short lists of style.yaml, else guessed from its ending; a
word that neither knows has no class.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from configs.load import read_yaml
from mixtures.statistics.batch import Batch
from mixtures.statistics.features import Column, Sums, Values, counts, ratio

LISTS = {name: words.encode().split() for name, words in read_yaml(Path(__file__).with_name("style.yaml")).items()}


def _words(*lists: str) -> frozenset[bytes]:
    return frozenset(word for name in lists for word in LISTS[name])


FORMAL = _words("articles", "prepositions")
DEICTIC = _words("pronouns", "verbs", "adverbs", "interjections")
NARRATIVE = _words("persons", "past_tense")
CONNECTIVES = _words("connectives")
NOMINALISATIONS = (*LISTS["endings_of_nominalisations"],)
FORMAL_ENDINGS = (*NOMINALISATIONS, *LISTS["endings_of_other_nouns"], *LISTS["endings_of_adjectives"])
SHORTEST_WITH_ENDING = 5
"""Letters; in shorter words (city, wage, bed) it is rarely an ending."""

SENTENCE_BREAK = re.compile(rb"[.!?](?:[\"')\]]|\xe2\x80[\x99\x9d])*\s+|\n\s*\n")
CLOSING_SPEECH = re.compile(rb"[,.!?](?:\"|\xe2\x80\x9d)")
CITATIONS = (
    re.compile(rb" \[\d+(?:[,-] ?\d+)*\]"),  # [3], [1, 2]
    re.compile(rb"\([A-Z][^()\n]{0,80}(?:1[5-9]|20)\d\d[a-z]?\)"),  # (Smith and Jones, 2004)
    re.compile(rb"\\cite"),
    re.compile(rb" et al\b"),
)
"""One by one, because an expression that begins with fixed letters is searched for several times faster."""
VOWELS = re.compile(rb"[aeiouy]+")
SILENT_E = re.compile(rb"(?:[^aeiouy]e|[^aeiouytd]ed|[^aeiouysxzcgh]es)$")
SYLLABIC_L = re.compile(rb"[^aeiouy]l(?:e|es|ed)$")


class Style:
    name = "style"
    columns: Mapping[str, Column] = {
        "letters_per_word": Column("letters/word", "UTF-8 bytes of a word, apostrophes included"),
        "words_per_sentence": Column(
            "words/sentence", "sentences end at . ! ? before white space, at an empty line and with the document"
        ),
        "readability": Column(
            "points",
            "Flesch's reading ease: 206.835 - 1.015 words/sentence - 84.6 syllables/word; higher is easier",
        ),
        "formality": Column(
            "points",
            "after the F-score of Heylighen and Dewaele (1999): 50 (1 + (formal - deictic) / (formal + deictic)); "
            "formal: articles, prepositions, endings of nouns and adjectives; deictic: pronouns, verbs, adverbs, "
            "interjections; words of no known class do not count",
        ),
        "narrativity": Column(
            "marks/100 words",
            "marks of narrative less marks of exposition; narrative: first- and third-person pronouns, past tense, "
            "closing quotation marks of speech; expository: nominalisations, connectives, citations",
        ),
    }

    def of(self, batch: Batch) -> Sums:
        words = batch.words
        traits = np.array([traits_of(word) for word in words.types], dtype=np.int64).reshape(-1, 6)
        often = np.bincount(words.ids, minlength=len(words.types))
        letters, syllables, formal, deictic, narrative, expository = (int(total) for total in often @ traits)
        return counts(
            words=len(words.ids),
            sentences=count_sentences(batch.paragraphs),
            letters=letters,
            syllables=syllables,
            formal=formal,
            deictic=deictic,
            narrative=narrative + len(CLOSING_SPEECH.findall(batch.paragraphs)),
            expository=expository + sum(len(citation.findall(batch.paragraphs)) for citation in CITATIONS),
        )

    def values(self, sums: Sums) -> Values:
        words_per_sentence = ratio(sums["words"], sums["sentences"])
        syllables_per_word = ratio(sums["syllables"], sums["words"])
        readability = None
        if words_per_sentence is not None and syllables_per_word is not None:
            readability = 206.835 - 1.015 * words_per_sentence - 84.6 * syllables_per_word
        formal = ratio(sums["formal"] - sums["deictic"], sums["formal"] + sums["deictic"])
        return {
            "letters_per_word": ratio(sums["letters"], sums["words"]),
            "words_per_sentence": words_per_sentence,
            "readability": readability,
            "formality": None if formal is None else 50 * (1 + formal),
            "narrativity": ratio(100 * (sums["narrative"] - sums["expository"]), sums["words"]),
        }


def count_sentences(paragraphs: bytes) -> int:
    return len(SENTENCE_BREAK.findall(paragraphs)) + 1 if paragraphs else 0


@functools.lru_cache(maxsize=1 << 18)
def traits_of(word: bytes) -> tuple[int, int, bool, bool, bool, bool]:
    """Letters, syllables; whether the word is formal, deictic, narrative, expository."""
    formal, deictic = _register(word)
    narrative = word in NARRATIVE or _ends(word, (b"ed",))
    expository = word in CONNECTIVES or _ends(word, NOMINALISATIONS)
    return len(word), syllables(word), formal, deictic, narrative, expository


def _register(word: bytes) -> tuple[bool, bool]:
    """Whether the word belongs to a formal class, and to a deictic (context-dependent) one."""
    if word in FORMAL or word in DEICTIC:
        return word in FORMAL, word not in FORMAL
    if _ends(word, FORMAL_ENDINGS):
        return True, False
    return False, _ends(word, (b"ed", b"ing", b"ly"))


def _ends(word: bytes, endings: tuple[bytes, ...]) -> bool:
    return len(word) >= SHORTEST_WITH_ENDING and word.endswith(endings)


def syllables(word: bytes) -> int:
    """Groups of vowels (y included), at least one; without the silent e of -e, -es and -ed.

    It is not silent after a vowel, in -le after a consonant, in -ted and -ded, and in -es after a hissing sound.
    """
    silent = SILENT_E.search(word) and not SYLLABIC_L.search(word)
    return max(1, len(VOWELS.findall(word)) - bool(silent))
