"""Does a fine-tuning give its parent the token ids that the parent was trained with?

In: the parent's folder and the tokenizer of the SFT set. Out: nothing, or a ConfigError. Token ids of another tokenizer
train without any error: the loss just starts near that of a random model.

A parent of this project carries a copy of its tokenizer, so the files are equal. Somebody else's Llama carries the
tokenizer.json that the study's tokenizer was taken from (`mixtures.tokens.new_tokenizer.take_tokenizer`): special
tokens were appended then and the post-processor was removed, so what decides the ids is compared instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.artifacts import MANIFEST, read_object, sha256_file
from configs.errors import ArtifactError, ConfigError
from configs.exports import EXPORT_JSON
from configs.untrusted.checks import understood
from mixtures.tokens.tokenizer import SpecialIds, parse_definition

FILE = "tokenizer.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
"""What an added token does to the text around it."""


def check_parent_tokenizer(parent: Path, trained_with: str | None, tokenizer: Path) -> None:
    """Refuse a tokenizer (a folder of <data>/tokenizers) whose ids mean something else to the model in `parent`.

    `trained_with` is the sha256 of a tokenizer.json that export.json names; None for somebody else's Llama. Raises
    ConfigError naming both with their sha256, ArtifactError where the parent's tokenizer.json is missing or replaced.
    """
    theirs = parent / FILE
    if not theirs.is_file():
        raise ArtifactError(
            f"the parent has no {FILE}: nothing tells whether its token ids are those of tokenizer {tokenizer.name}",
            where=parent,
            hint="copy it there from where the model comes from, or let transformers write it: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    before, now = sha256_file(theirs), sha256_file(tokenizer / FILE)
    if trained_with not in (None, before):
        problem = f"it has sha256 {before[:12]}, {EXPORT_JSON} says {trained_with!s:.12}"
        hint = "put back the tokenizer that the parent was trained with"
        raise ArtifactError(f"{problem}: not the tokenizer of these weights", where=theirs, hint=hint)
    if before == now:
        difference = None if trained_with is None else _special_difference(parent, tokenizer)
    elif trained_with is not None:
        difference = "the files differ"
    else:
        difference = next(_differences(theirs, tokenizer / FILE), None)
    if difference is not None:
        fitting = sorted(path.parent.name for path in tokenizer.parent.glob(f"*/{MANIFEST}") if _fits(path, before))
        raise ConfigError(
            f"the SFT set was made with tokenizer {tokenizer.name} (sha256 {now[:12]}), which is not the parent's "
            f"(sha256 {before[:12]}): {difference}",
            where=theirs,
            valid=", ".join(f"data.tokenizer={name}" for name in fitting if name != tokenizer.name) or None,
            hint=f"an SFT set made with the parent's tokenizer (tokenizer.file: {theirs} in the study)",
        )


def _fits(manifest: Path, sha256: str) -> bool:
    """Is it the manifest of a tokenizer with this tokenizer.json?"""
    try:
        files = read_object(manifest).get("files")
    except ArtifactError:
        return False
    return isinstance(files, dict) and isinstance(files.get(FILE), dict) and files[FILE].get("sha256") == sha256


def _special_difference(parent: Path, tokenizer: Path) -> str | None:
    """tokenizer_config.json names the end of text and the padding; equal tokenizer.json files leave both open."""
    before, now = SpecialIds.read(parent), SpecialIds.read(tokenizer)
    return None if before == now else f"its special tokens are {before}, here they are {now}"


def _differences(theirs: Path, ours: Path) -> Iterator[str]:
    """What gives the same text other ids, in words; `theirs` is the parent's tokenizer.json.

    Tokens added to the parent's are allowed: `cli.check_tokenizer` and `check_shape` see to it that the parent's
    embedding has rows for them.
    """
    parent, here = (_normal_form(path) for path in (theirs, ours))
    for part in ("normalizer", "pre_tokenizer"):
        if parent.get(part) != here.get(part):
            yield f"the {part} differs"
    with understood(theirs):
        yield from _model_differences(parent["model"], here["model"])
        added = {token["content"]: token for token in here["added_tokens"]}
        special = SpecialIds.read(ours.parent)
        placed = {special.eod, special.pad, *special.roles.values()}
        for token in parent["added_tokens"]:
            other = added.get(token["content"], {})
            # Text never holds the tokens that this project places itself: how they are found in it does not matter.
            keys = ("id",) if other.get("id") in placed else ("id", *FLAGS)
            for key in keys:
                if token[key] != other.get(key):
                    yield f"the token {token['content']!r} has {key} {token[key]} for the parent, {other.get(key)} here"


def _model_differences(parent: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    if parent["type"] != here["type"]:
        yield f"the parent's is a {parent['type']} model, here it is {here['type']}"
    for key in sorted(parent.keys() | here.keys()):
        before, now = parent.get(key), here.get(key)
        if before == now:
            continue
        if key == "vocab" and isinstance(before, dict) and isinstance(now, dict):
            differing = {entry for entry, _ in before.items() ^ now.items()}
            ids: dict[str, Any] = before  # the parent's first one is named, whatever order a set has
            entry = min(differing, key=lambda entry: (ids.get(entry, math.inf), entry))
            before, now = before.get(entry), now.get(entry)
            yield f"the entry {entry!r} has id {before} for the parent, {now} here"
        elif key in ("vocab", "merges"):
            yield f"the {key} differ ({len(before or ()):,} for the parent, {len(now or ()):,} here)"
        else:
            yield f"{key} is {before} for the parent, {now} here"


def _normal_form(path: Path) -> dict[str, Any]:
    """The file as today's `tokenizers` writes it, which spells out what older files leave to defaults."""
    definition = json.dumps(read_object(path) | {"post_processor": None}).encode()
    found: dict[str, Any] = json.loads(parse_definition(definition, path).to_str())
    return found
