"""tiktoken in place of `tokenizers` for byte-level BPE: the same ids, several times faster.

In: the definition of a tokenizer.json. Out: a tiktoken encoding whose ids provably equal those of `tokenizers`, or
None where that cannot be shown and `tokenizers` itself must encode.

The proof has three parts. Both engines find the same added tokens that are not special (`<think>`): where their rules
differ (`_found_alike`), `tokenizers` encodes. They cut the text between those into the same pieces: the cutting is a
known kind, and a set of probe texts (every Unicode category, long runs, control characters, every added token)
confirms that both read it alike. And they merge a piece in the same way: both merge the adjacent pair of lowest rank,
but tiktoken merges any pair whose joint bytes are an entry, `tokenizers` only listed pairs, and tiktoken takes a piece
that is an entry as it is. If the entries' ids rise in the order of the merges, and every entry's own bytes merge to
that one entry, these are the same: consider the first time that tiktoken joins an unlisted pair (x, y) to an entry z.
Until then no merge crossed the border of z's bytes, and inside them the merges were those that turn z's bytes alone
into z. That sequence has one state of two parts, and its pair is listed.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `tokenizers` cuts at where its ByteLevel step says `use_regex`."""
UNLIKE = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout", "unk_token", "ignore_merges")
"""Options of a BPE model that tiktoken does not know, or that the proof does not cover."""


def tiktoken_encoding(definition: Mapping[str, Any], reference: tokenizers.Tokenizer) -> tiktoken.Encoding | None:
    """The encoding of `definition` (a parsed tokenizer.json) if it equals `reference`, made from the same file.

    `reference` must leave the spelling of special tokens alone (`encode_special_tokens`). Of tiktoken's special tokens
    those that `recognised` names are to be allowed.
    """
    model, pattern = definition["model"], _pattern(definition)
    added = reference.get_added_tokens_decoder()
    if pattern is None or not _is_byte_level_bpe(model) or not _found_alike(list(added.values())):
        return None
    ids_of_added = {token.content: i for i, token in added.items()}
    entries = {entry: i for entry, i in model["vocab"].items() if entry not in ids_of_added}
    if not _merges_alike(model, entries):
        return None
    import tiktoken

    byte_of = byte_of_letter()
    ranks = {bytes(byte_of[letter] for letter in entry): i for entry, i in entries.items()}
    encoding = tiktoken.Encoding("magic", pat_str=pattern, mergeable_ranks=ranks, special_tokens=ids_of_added)
    allowed = recognised(added.values())
    for text in (*probes(), *_probes_of(list(ids_of_added))):
        ids = reference.encode(text, add_special_tokens=False).ids
        if encoding.encode(text, allowed_special=allowed, disallowed_special=()) != ids:
            return None
    return encoding


def _is_byte_level_bpe(model: Mapping[str, Any]) -> bool:
    return model.get("type", "BPE") == "BPE" and not any(model.get(option) for option in UNLIKE)


def _merges_alike(model: Mapping[str, Any], entries: Mapping[str, int]) -> bool:
    """The third part of the proof: both engines merge any piece in the same way."""
    letters = byte_of_letter().keys()
    of_bytes = all(letter in letters for entry in entries for letter in entry)
    return of_bytes and _merges_in_order(model, entries) and _each_is_its_own_merge(model, entries)


def recognised(added: Iterable[tokenizers.AddedToken]) -> frozenset[str]:
    """Spellings of the added tokens that a text gives, because they are not special."""
    return frozenset(token.content for token in added if not token.special)


def _found_alike(added: Sequence[tokenizers.AddedToken]) -> bool:
    """Do both engines find the same added tokens in any text?

    tiktoken knows no conditions on what stands beside a token. Of two tokens that begin at one place `tokenizers` takes
    the longer and tiktoken either. Behind the beginning of a special token's spelling, which is text, tiktoken looks on
    inside it and `tokenizers` after it. And `tokenizers` looks for tokens that are `normalized` after all the others.
    """
    given = [token for token in added if not token.special]
    conditional = any(token.single_word or token.lstrip or token.rstrip for token in given)
    if conditional or len({token.normalized for token in given}) > 1:
        return False
    return not any(_overlap(token, other) for token in given for other in added if other.content != token.content)


def _overlap(token: tokenizers.AddedToken, other: tokenizers.AddedToken) -> bool:
    """Could one of them begin where the other does or, if that is special, inside its spelling?"""
    starts = range(len(other.content)) if other.special else (0,)
    tails = (other.content[start:] for start in starts)
    return any(tail.startswith(token.content) or token.content.startswith(tail) for tail in tails)


def _probes_of(tokens: Sequence[str]) -> Iterator[str]:
    """Every added token in several contexts."""
    for between in ("", " ", "\n", "a", " 1. "):
        yield between.join(tokens)
        yield between.join(reversed(tokens))
    for token in tokens:
        halves = f"{token[:-1]} {token[1:]}{token[:-1]}{token[1:]}"
        yield f"a{token}b {token} c{token}{token}\n{token}\n\n{token}  {token}1é{token}水{token}'s{halves}{token}"


def _pattern(definition: Mapping[str, Any]) -> str | None:
    """The regular expression that cuts text, where cutting is all that happens before the merges."""
    step = definition.get("pre_tokenizer") or {}
    steps = step["pretokenizers"] if step.get("type") == "Sequence" else [step]
    last = steps[-1]
    if definition.get("normalizer") or last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if len(steps) == 1:
        return GPT2_PATTERN if last.get("use_regex", True) else None
    first = steps[0]
    isolates = first.get("type") == "Split" and first["behavior"] == "Isolated" and not first["invert"]
    if len(steps) > 2 or not isolates or last.get("use_regex", True):
        return None
    pattern: str | None = first["pattern"].get("Regex")
    return pattern


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Merges in order; older files write `a b`, newer ones [a, b]."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _merges_in_order(model: Mapping[str, Any], entries: Mapping[str, int]) -> bool:
    """Ids rise with the merges, and every entry is a byte or the result of one merge."""
    results = [left + right for left, right in _pairs(model)]
    ids = [entries.get(result, -1) for result in results]
    letters = byte_of_letter()
    rising = all(a < b for a, b in zip([-1, *ids], ids, strict=False))
    return rising and letters.keys() <= entries.keys() and len(entries) == len(results) + len(letters)


def _each_is_its_own_merge(model: Mapping[str, Any], entries: Mapping[str, int]) -> bool:
    from tokenizers import models

    bpe = models.BPE(vocab=dict(entries), merges=_pairs(model), cache_capacity=0)
    return all(len(bpe.tokenize(entry)) == 1 for entry in entries)


@functools.cache
def byte_of_letter() -> dict[str, int]:
    """The visible character that byte-level BPE writes for each byte: itself, or one counted up from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}


@functools.cache
def probes() -> tuple[str, ...]:
    """Texts on which two engines that cut differently would differ."""
    by_category: dict[str, list[str]] = {}
    for code in range(0x30000):
        category = unicodedata.category(chr(code))
        members = by_category.setdefault(category, [])
        if category not in ("Cs", "Cn") and len(members) < 40:
            members.append(chr(code))
    letters = [letter for members in by_category.values() for letter in members]
    spaces = [letter for letter in map(chr, range(0x3001)) if letter.isspace()]
    mixed = "".join(f"a{letter}1 {letter}. {letter}{letter}\n" for letter in letters)
    gaps = "".join(f"x{a}{b}y {a}'s{b} " for a in spaces for b in spaces)
    plain = "I'll say they've 12345 DON'T it's\r\n\r\n\tdef f(x):  return x[1:]   # why?\n  \n end  [1, {}]"
    return (mixed, gaps, plain, plain.upper(), " " * 300 + "a" + "\n" * 300 + "\t " * 150, "a" * 500 + "1" * 500, "")
