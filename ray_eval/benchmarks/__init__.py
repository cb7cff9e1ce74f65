"""Benchmarks: rows in, prompts and candidates out.

    templates.py   a prompt set of configs/benchmarks/<slug>.yaml, compiled      filters.py   what Jinja cannot say
    shots.py       solved examples in front; plain text or a conversation

`load_examples` puts them together. docs/benchmarks.md has the prompt sets, their sources and every known trap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.errors import ConfigError
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import BenchmarkConfig, StudyScoring
from mixtures.sources.benchmark_rows import read_rows
from ray_eval.benchmarks.shots import DELIMITER, Shots, Turns, as_text, as_turns
from ray_eval.benchmarks.templates import Template

__all__ = ["DELIMITER", "Context", "Example", "Turns", "load_examples", "prompt_set", "variant"]

Context = str | Turns
"""What a candidate follows: plain text, after which it is scored as DELIMITER + candidate, or a conversation, in which
it is the beginning of the assistant's answer, without a delimiter."""


@dataclass(frozen=True)
class Example:
    """One row, ready to be scored.

    row: its number in the split, from 0.
    contexts: one shared by all candidates, or one for each; solved examples included.
    candidates: what is scored; in a conversation without surrounding white space, as answers were in training.
    gold: index of the truly right candidate.
    unconditional: bare answer prefix for the unconditional log-probability, without solved examples; None for none.
    variant: how it is asked, `<prompt set>/<k>shot`, with `/chat` for a conversation.
    """

    split: str
    row: int
    contexts: tuple[Context, ...]
    candidates: tuple[str, ...]
    gold: int
    unconditional: Context | None
    variant: str = "lm_eval/0shot"

    @property
    def example_id(self) -> str:
        return f"{self.split}/{self.row}"

    def context(self, candidate: int) -> Context:
        return self.contexts[candidate if len(self.contexts) > 1 else 0]


AS_PUBLISHED = StudyScoring()
"""All rows, the benchmark's first prompt set, no shots, plain text."""


def prompt_set(spec: BenchmarkConfig, name: str | None) -> str:
    """`name`, or the benchmark's default for None. Raises ConfigError naming what is there."""
    if name is None:
        return next(iter(spec.prompts))
    if name not in spec.prompts:
        having = [slug for slug in BENCHMARKS if name in load_benchmark(slug).prompts]
        raise ConfigError(
            f"no prompt set {name!r}",
            where=f"benchmark {spec.slug}",
            valid=", ".join(spec.prompts),
            hint=f"{name} is there for {', '.join(having)}" if having else None,
        )
    return name


def variant(spec: BenchmarkConfig, prompt: str | None, shots: int, chat: bool) -> str:
    return f"{prompt_set(spec, prompt)}/{shots}shot{'/chat' if chat else ''}"


def load_examples(spec: BenchmarkConfig, root: Path | None, scoring: StudyScoring = AS_PUBLISHED) -> list[Example]:
    """The examples of one benchmark, in row order, asked as `scoring` says.

    root: folder that holds benchmarks/ (None: the Hub). Raises ConfigError for an unknown prompt set or a wrong
    template, DataError naming file, row, value and what is valid.
    """
    chat = scoring.chat
    template = Template(spec, prompt_set(spec, scoring.prompt))
    name = variant(spec, scoring.prompt, scoring.shots, chat)
    rows = read_rows(root, spec, scoring.sample, scoring.seed)
    solved = Shots(spec, root, template, scoring.shots, scoring.seed)
    put = as_turns if chat else as_text
    prefix = template.answer_prefix if scoring.unconditional else None
    unconditional = None if prefix is None else put(prefix, ())
    examples = []
    for number, row in zip(rows.numbers, rows.table, strict=True):
        question = template(row, f"{rows.where}, row {number}")
        front = solved.of(question)
        contexts = tuple(put(context, front) for context in question.contexts)
        candidates = tuple(text.strip() for text in question.candidates) if chat else question.candidates
        examples.append(Example(rows.split, number, contexts, candidates, question.gold, unconditional, name))
    return examples
