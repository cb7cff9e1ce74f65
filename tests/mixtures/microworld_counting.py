"""A model that only counts: how often a text names a subject and its value together. No neural network.

It answers a benchmark's question with the candidate whose words were seen most often with the question's subject, and
so shows on the generated text itself that the declared order of the mixtures is what the text supports.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from mixtures.microworld.world import BY_BENCHMARK, RELATIONS

WORD = re.compile(r"[a-z]+")
SUBJECTS = {subject: relation for relation in RELATIONS.values() for subject in relation.facts}


def count_statements(texts: Iterable[str]) -> Counter[tuple[str, str]]:
    """(subject, value) -> number of lines or sentences that name both, whatever their wording."""
    counts: Counter[tuple[str, str]] = Counter()
    for text in texts:
        for sentence in re.split(r"[.?\n]", text.lower()):
            for subject in set(WORD.findall(sentence)) & SUBJECTS.keys():
                for value in SUBJECTS[subject].values:
                    if value in sentence:
                        counts[subject, value] += 1
    return counts


def exposure(counts: Counter[tuple[str, str]], benchmark: str) -> float:
    """Mean number of statements of a fact that the benchmark asks for."""
    facts = BY_BENCHMARK[benchmark].facts
    return sum(counts[item] for item in facts.items()) / len(facts)


def accuracy(counts: Counter[tuple[str, str]], benchmark: str, threshold: int) -> float:
    """Share of the benchmark's facts whose true value leads all others and was stated at least `threshold` times."""
    relation = BY_BENCHMARK[benchmark]
    known = 0
    for subject, value in relation.facts.items():
        best = max(relation.values, key=lambda v: counts[subject, v])
        known += best == value and counts[subject, value] >= threshold
    return known / len(relation.facts)
