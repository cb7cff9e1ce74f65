"""Jinja filters for what the templates of the 20 benchmarks cannot say in Jinja itself.

In: texts of a row. Out: texts. Each follows lm-evaluation-harness 0.4.13 to the letter, except where it says OLMES.
"""

from __future__ import annotations

import re
from collections.abc import Callable

CONNECTORS = {"cause": "because", "effect": "therefore"}


def without_markup(text: str, one_stop: bool = False) -> str:
    """HellaSwag without WikiHow's bracketed tags; a title becomes a sentence of its own.

    one_stop: OLMES's rule, under which a full stop in front of a title is not doubled.
    """
    text = re.sub(r"\.? \[title\]" if one_stop else r" \[title\]", ". ", text.strip())
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def connector(question: str) -> str:
    """COPA: the word between premise and choice."""
    if question not in CONNECTORS:
        raise ValueError(f"question is {question!r}, valid: {', '.join(CONNECTORS)}")
    return CONNECTORS[question]


def lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def before_blank(sentence: str) -> str:
    """WinoGrande: the sentence up to its blank `_`."""
    return _at_blank(sentence)[0]


def after_blank(sentence: str) -> str:
    """WinoGrande: the rest of the sentence, without surrounding white space."""
    return _at_blank(sentence)[1].strip()


def _at_blank(sentence: str) -> tuple[str, str]:
    before, blank, after = sentence.partition("_")
    if not blank:
        raise ValueError("the sentence has no blank '_'")
    return before, after


def starred(text: str, index: int, word: str) -> str:
    """WSC: `text` with `word`, its word number `index`, between stars."""
    before = " ".join(text.split()[:index])
    return f"{before} *{word}*{text[len(before) + 1 + len(word) :]}"


def detokenized(text: str) -> str:
    """The text without the spaces that a word tokenizer put around punctuation."""
    for spaced, joined in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(spaced, joined)
    return re.sub(r" (['.,])", r"\1", text)


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (without_markup, connector, lower_first, before_blank, after_blank, starred, detokenized)
}
