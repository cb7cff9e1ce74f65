"""How each source speaks: facts and filler rendered as prose, textbook, questions and answers, code, papers, novels.

In: a source, a relation (or none, for filler) and a random generator. Out: one document of 60 to 120 words. A
fact document is about one subject and repeats its fact in several wordings; the register decides the frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from mixtures.microworld.world import PEOPLE, Relation

Rng = random.Random
DAYS = ("Monday", "Tuesday", "Friday", "Sunday")
TOWNS = ("the north", "the valley", "the harbour", "the old town", "the hills", "the river")
TALK = (
    "the weather was fine in {town}",
    "{person} came home late on {day}",
    "the market in {town} opens on {day}",
    "{person} wrote a letter to {other}",
    "there was a long walk to {town}",
    "{person} and {other} talked about the news",
    "the road to {town} is closed on {day}",
    "we had soup and bread with {person}",
)


def cap(text: str) -> str:
    return text[:1].upper() + text[1:]


class Voice:
    """The sentences one document can draw on: statements, questions and answers about one fact, and filler."""

    def __init__(self, relation: Relation | None, subject: str, rng: Rng) -> None:
        self.relation, self.subject, self.rng = relation, subject, rng
        self.value = relation.facts[subject] if relation else ""

    def filler(self) -> str:
        person, other = self.rng.sample(PEOPLE, 2)
        return self.rng.choice(TALK).format(
            person=person, other=other, day=self.rng.choice(DAYS), town=self.rng.choice(TOWNS)
        )

    def clause(self) -> str:
        """A statement of the fact; filler where the document has none."""
        if self.relation is None:
            return self.filler()
        return self.rng.choice(self.relation.clauses).format(s=self.subject, v=self.value)

    def question(self) -> str:
        if self.relation is None:
            return f"did you know that {self.filler()}"
        return self.rng.choice(self.relation.questions).format(s=self.subject)

    def reply(self) -> str:
        return "yes" if self.relation is None else self.relation.reply.format(v=self.value)

    def sentence(self, *frames: str) -> str:
        """A clause in one of the frames; `{c}` is the clause, `{p}` a person."""
        return cap(self.rng.choice(frames).format(c=self.clause(), p=self.rng.choice(PEOPLE))) + "."

    def exchange(self) -> str:
        return f"Question: {cap(self.question())}?\nAnswer: {self.reply()}."


def refinedweb(v: Voice) -> str:
    lines = [f"Posted on {v.rng.choice(DAYS)} by {v.rng.choice(PEOPLE)}"]
    for _ in range(6):
        lines.append(v.sentence("{c}", "{p} says that {c}", "well, {c}", "as you know, {c}"))
        if v.rng.random() < 0.4:
            lines.append(cap(v.filler()) + ".")
    lines.append(v.exchange())
    return "\n".join([lines[0], " ".join(lines[1:-1]), lines[-1]])


def fineweb_edu(v: Voice) -> str:
    number = v.rng.randint(1, 40)
    body = [
        v.sentence("{c}", "remember that {c}", "in this lesson we see that {c}", "it follows that {c}")
        for _ in range(6)
    ]
    if v.rng.random() < 0.6:
        body.insert(2, cap(v.filler()) + ".")
    return f"Lesson {number}\n{' '.join(body)}\nReview\n{v.exchange()}\n{v.exchange()}"


def dclm(v: Voice) -> str:
    because = v.sentence("because {c}", "in short, {c}", "{c}", "you should know that {c}")
    more = " ".join(v.sentence("{c}", "also, {c}", "{p} found that {c}") for _ in range(3))
    return f"{v.exchange()} {because} {more}\n{v.exchange()} {cap(v.filler())}."


def python_code(v: Voice) -> str:
    """Functions whose comments, docstrings and tables hold the fact; parses as Python."""
    name = v.subject if v.relation else v.rng.choice(("run", "load", "count", "merge"))
    noun = v.relation.name if v.relation else "value"
    value = v.value if v.relation else v.rng.choice(TOWNS)
    number = v.rng.randint(1, 99)
    return (
        f"# {v.clause()}\n"
        f"def {name}_{noun}(x={number}):\n"
        f'    """{cap(v.clause())}."""\n'
        f"    # {v.clause()}\n"
        f'    table = {{"{name}": "{value}"}}\n'
        f"    if x > {number}:\n"
        f'        print("{v.clause()}")\n'
        f'    return table["{name}"]\n'
        f"# Question: {cap(v.question())}?\n"
        f"# Answer: {v.reply()}.\n"
    )


def sql_code(v: Voice) -> str:
    """A table with its rows, comments and a query; runs as SQL."""
    noun = v.relation.name if v.relation else "note"
    name = v.subject if v.relation else v.rng.choice(PEOPLE)
    value = v.value if v.relation else v.rng.choice(TOWNS)
    table = f"{noun}_{v.rng.randint(1, 99)}"
    return (
        f"-- {v.clause()}\n"
        f"CREATE TABLE {table} (name TEXT, {noun} TEXT);\n"
        f"INSERT INTO {table} VALUES ('{name}', '{value}');\n"
        f"-- {v.clause()}\n"
        f"SELECT '{v.clause()}' FROM {table} WHERE name = '{name}';\n"
        f"-- {v.clause()}\n"
        f"-- Question: {cap(v.question())}?\n"
        f"-- Answer: {v.reply()}.\n"
    )


def starcoder(v: Voice) -> str:
    return python_code(v) if v.rng.random() < 0.9 else sql_code(v)


def stack_v2(v: Voice) -> str:
    return sql_code(v) if v.rng.random() < 0.6 else python_code(v)


def wikipedia(v: Voice) -> str:
    title = cap(v.subject) if v.relation else cap(v.rng.choice(TOWNS))
    opening = (
        f"The {v.subject} is a {v.relation.kind} of {v.rng.choice(TOWNS)}." if v.relation else cap(v.filler()) + "."
    )
    body = " ".join(v.sentence("{c}", "it is written that {c}", "in {p}'s history, {c}") for _ in range(6))
    return f"{title}\n{opening} {body}\nSee also: {v.rng.choice(TOWNS)}"


def arxiv(v: Voice) -> str:
    results = " ".join(
        v.sentence("we find that {c}", "our data show that {c}", "{c}", "it was shown that {c}") for _ in range(6)
    )
    return f"Abstract\n{results}\n1 Introduction\n{cap(v.filler())}. {v.sentence('{c}', 'recall that {c}')}"


def stackexchange(v: Voice) -> str:
    person, other = v.rng.sample(PEOPLE, 2)
    more = " ".join(v.sentence("{c}", "i think {c}", "in my experience {c}") for _ in range(3))
    return (
        f"{person} asked: {cap(v.question())}? {cap(v.filler())}.\n{other} answered: {cap(v.reply())}. {more}\n"
        f"{v.exchange()}"
    )


def books(v: Voice) -> str:
    lines = []
    for _ in range(3):
        lines.append(cap(v.filler()) + ".")
        lines.append(v.sentence('"{c}," said {p}', '{p} smiled: "{c}"', "everyone knew that {c}", "{c}"))
        lines.append(v.sentence("{c}", '"{c}," said {p}'))
    lines.append(f'"{cap(v.question())}?" asked the child. "{cap(v.reply())}," said {v.rng.choice(PEOPLE)}.')
    return " ".join(lines)


REGISTERS: dict[str, Callable[[Voice], str]] = {
    f.__name__: f for f in (refinedweb, fineweb_edu, dclm, starcoder, stack_v2, wikipedia, arxiv, stackexchange, books)
}


def document(source: str, relation: Relation | None, rng: Rng) -> str:
    """One document of `source` about a random subject of `relation` (filler where it is None)."""
    subject = rng.choice(list(relation.facts)) if relation else ""
    return REGISTERS[source](Voice(relation, subject, rng))
