"""(context, candidate) to token ids, by the rule of lm-evaluation-harness 0.4.13.

The rule (`TemplateLM._encode_pair`, `HFLM._loglikelihood_tokens`): trailing white space of the context moves to the
continuation; context + continuation is encoded whole and cut at the length of the encoded context; the input is
the encoded context followed by what lies behind the cut, of which the last `context_tokens + 1` tokens are kept.
What stands for an empty context, and whether a BOS token is put before every other, is the tokenizer's to say.

In a conversation the context is what `Tokenizer.chat` gives with `answer_next`, up to and including the line break
after the assistant's mark, and the candidate is encoded alone, as the assistant's answers were in training. Long ones
are cut like plain text.

Two cases in which the harness stops with an assertion are defined here. Where one token spans the join and leaves
nothing behind the cut, the whole text is cut at the last token it shares with the context. A candidate longer than
the model's context is scored on its last `context_tokens` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError
from ray_eval.benchmarks import DELIMITER, Context, Example, Turns


class Encoder(Protocol):
    """What scoring needs of a tokenizer (`mixtures.tokens.tokenizer.Tokenizer`, `hf_tokenizer.HFTokenizer`)."""

    eod: int
    """Stands for an empty context."""
    sha256: str
    bos_policy: str
    """What is put around every text, and what stands for an empty context; recorded with the scores."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts that begin a sequence, with the special tokens that the tokenizer itself adds."""


@runtime_checkable
class ChatEncoder(Encoder, Protocol):
    """A tokenizer with a chat format."""

    def chat(self, messages: Sequence[Mapping[str, str]], *, answer_next: bool) -> tuple[list[int], list[bool]]: ...


@dataclass(frozen=True)
class Scored:
    """ids: context and continuation after truncation; the last `num_targets` of them are predicted."""

    ids: NDArray[np.int32]
    num_targets: int
    truncated: bool


def split_pair(context: str, candidate: str) -> tuple[str, str]:
    """(context without trailing white space, what is scored)."""
    head = context.rstrip()
    return head, context[len(head) :] + DELIMITER + candidate


class Encodings:
    """Encodes each distinct string of some examples once, in one batch; then answers for pairs."""

    def __init__(self, tokenizer: Encoder, context_tokens: int, examples: Iterable[Example]) -> None:
        self._tokenizer, self._eod, self._context_tokens = tokenizer, tokenizer.eod, context_tokens
        self._chats: dict[Turns, list[int]] = {}
        texts: dict[str, None] = {}
        for example in examples:
            for i, candidate in enumerate(example.candidates):
                for context in (example.context(i), example.unconditional):
                    if isinstance(context, tuple):
                        texts[candidate] = None
                    elif context is not None:
                        head, tail = split_pair(context, candidate)
                        texts[head] = texts[head + tail] = None
        self._ids = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))

    def __call__(self, context: Context, candidate: str) -> Scored:
        if isinstance(context, tuple):
            before, after = self._conversation(context), self._ids[candidate]
        else:
            head, tail = split_pair(context, candidate)
            before, whole = self._ids[head], self._ids[head + tail]
            if head:
                after = whole[len(before) :]
                if not after:
                    before, after = _recut(before, whole)
            else:
                before, after = [], _inside(whole, before)
        ids = ((before or [self._eod]) + after)[-(self._context_tokens + 1) :]
        num_targets = min(len(after), len(ids) - 1)
        return Scored(np.array(ids, np.int32), num_targets, truncated=len(ids) < max(len(before), 1) + len(after))

    def _conversation(self, turns: Turns) -> list[int]:
        if turns not in self._chats:
            if not isinstance(self._tokenizer, ChatEncoder):
                raise ConfigError("the tokenizer has no chat format", hint="score without chat")
            messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
            self._chats[turns] = self._tokenizer.chat(messages, answer_next=True)[0]
        return self._chats[turns]


def _recut(before: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """Cut `whole` behind the tokens it shares with `before`, leaving at least one to score."""
    cut = 0
    while cut < min(len(before), len(whole) - 1) and before[cut] == whole[cut]:
        cut += 1
    return whole[:cut], whole[cut:]


def _inside(whole: list[int], around: list[int]) -> list[int]:
    """`whole` without the special tokens that its tokenizer puts around everything: `around` is what it makes of ""."""
    front = 0
    while front < len(around) and whole[front] == around[front]:
        front += 1
    return whole[front : len(whole) - (len(around) - front)]
