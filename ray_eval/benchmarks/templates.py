"""A prompt set, compiled: a row in, the question with its candidates and the right one out.

Templates are Jinja in a sandbox: they see the row's columns and what this module adds, can change nothing, and reach
neither files nor Python's inside, so a benchmark file from somebody else is safe to load. A name that is no column is
refused before any row is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase as LETTERS
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from configs.errors import ConfigError, DataError
from configs.schema import BenchmarkConfig
from ray_eval.benchmarks.filters import FILTERS

LETTERED = "lettered"
"""Name under which a context finds its options, as lines "A. text"."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One row, rendered.

    contexts: one string shared by all candidates, or one for each candidate.
    candidates: what is scored, without the delimiter; two at least, none of them empty.
    gold: index of the right one.
    """

    contexts: tuple[str, ...]
    candidates: tuple[str, ...]
    gold: int

    def context(self, candidate: int) -> str:
        return self.contexts[candidate if len(self.contexts) > 1 else 0]


class Template:
    """The prompt set `name` of a benchmark. Raises ConfigError for a template that cannot be compiled."""

    def __init__(self, spec: BenchmarkConfig, name: str) -> None:
        prompt = spec.prompts[name]
        self._spec = spec
        self.answer_prefix = prompt.answer_prefix
        contexts = (prompt.context,) if isinstance(prompt.context, str) else prompt.context
        self._contexts = [self._text(text, f"prompts.{name}.context", LETTERED) for text in contexts]
        self._lettered = prompt.options is not None
        kind, texts = ("options", prompt.options) if self._lettered else ("candidates", prompt.candidates)
        assert texts is not None, "the schema asks for one of the two"
        self._texts = self._list(texts, f"prompts.{name}.{kind}")
        self._labels: Callable[[Row], Sequence[Any]]
        if isinstance(prompt.labels, str):
            self._labels = self._expression(prompt.labels, f"prompts.{name}.labels")
        else:
            labels = prompt.labels or spec.labels
            assert labels is not None, "the schema asks for labels"
            self._labels = lambda row: labels

    def __call__(self, row: Row, where: str) -> Question:
        """Raises DataError naming `where`, the value and what is valid."""
        empty = [column for column in self._spec.columns if row[column] is None]
        if empty:
            raise DataError(f"column {empty[0]!r} is null", where=where, valid="a value in every column the spec names")
        try:
            texts = tuple(self._texts(row))
            labels = list(self._labels(row))
            candidates = texts
            if self._lettered:
                row = {**row, LETTERED: [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]}
                candidates = tuple(LETTERS[: len(texts)])
            contexts = tuple(context(row) for context in self._contexts)
            self._check(contexts, texts, candidates, labels)
        except Exception as error:  # whatever a template or an odd row can raise is the user's to mend
            raise DataError(f"cannot be made into a {self._spec.display} prompt: {error}", where=where) from None
        return Question(contexts, candidates, self._gold(labels, row[self._spec.label], where))

    def _check(
        self, contexts: Sequence[str], texts: Sequence[str], candidates: Sequence[str], labels: list[Any]
    ) -> None:
        if len(candidates) < 2 or len(candidates) != len(texts):
            raise ValueError(f"it has {len(texts)} candidates, valid: 2 to {len(LETTERS)} with letters, else 2 or more")
        for name, number in (("labels", len(labels)), ("contexts", len(contexts))):
            if number != len(candidates) and (name, number) != ("contexts", 1):
                raise ValueError(f"it has {len(candidates)} candidates and {number} {name}")
        for i, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"candidate {i} is {text!r}, valid: a text that is not empty")

    def _gold(self, labels: list[Any], label: Any, where: str) -> int:
        for value in (label, label.strip() if isinstance(label, str) else label):
            if value in labels:
                return labels.index(value)
        column = self._spec.label
        raise DataError(f"label {column}={label!r} is out of range", where=where, valid=", ".join(map(repr, labels)))

    def _list(self, texts: str | tuple[str, ...], key: str) -> Callable[[Row], Sequence[Any]]:
        if isinstance(texts, str):
            return self._expression(texts, key)
        renders = [self._text(text, key) for text in texts]
        return lambda row: [render(row) for render in renders]

    def _text(self, text: str, key: str, *added: str) -> Callable[[Row], str]:
        if "{" not in text:
            return lambda row: text
        self._check_names(text, key, added)
        return self._compiled(environment().from_string, text, key).render

    def _expression(self, text: str, key: str) -> Callable[[Row], Sequence[Any]]:
        if text.strip().startswith("{{"):
            raise ConfigError(
                f"a template, {text!r}", where=self._where(key), valid="a list, or an expression: no braces"
            )
        self._check_names(f"{{{{ {text} }}}}", key)
        value = self._compiled(functools.partial(environment().compile_expression, undefined_to_none=False), text, key)
        return lambda row: list(value(row))

    def _check_names(self, text: str, key: str, added: Sequence[str] = ()) -> None:
        valid = (*self._spec.columns, *added)
        names = self._compiled(lambda text: meta.find_undeclared_variables(environment().parse(text)), text, key)
        unknown = sorted(names - set(valid))
        if unknown:
            raise ConfigError(f"no column {unknown[0]!r}", where=self._where(key), valid=", ".join(valid))

    def _compiled(self, compile_: Callable[[str], Any], text: str, key: str) -> Any:
        try:
            return compile_(text)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"not a Jinja template: {error.message} ({text!r})", where=self._where(key)) from None

    def _where(self, key: str) -> str:
        return f"benchmark {self._spec.slug}, {key}"


@functools.cache
def environment() -> ImmutableSandboxedEnvironment:
    """Jinja's own filters and ours; nothing random, no globals."""
    made = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    made.filters.update(FILTERS)
    del made.filters["random"]
    made.globals.clear()
    return made
