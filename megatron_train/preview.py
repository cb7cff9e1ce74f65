"""What a fine-tuning run learns from, shown before it starts: examples with the part that carries loss marked.

In: a tokenized SFT set and its tokenizer. Out: lines to read; the assistant's part green on a terminal, in ⟦brackets⟧
elsewhere. A mask lost on the way changes no shape and raises no error; this is where it is seen.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from configs.errors import DataError
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.tokenizer import Tokenizer

EXAMPLES = 3
CHARACTERS = 600
GREEN, PLAIN = "\x1b[32m", "\x1b[0m"


def check_mask(dataset: SftDataset) -> None:
    """Raises DataError where every token carries loss, or none does: then the mask was lost."""
    loss, tokens = dataset.manifest["loss_tokens"], dataset.manifest["tokens"]
    if loss == 0 or loss == tokens:
        which = "no token" if loss == 0 else "every token"
        raise DataError(
            f"{which} of the SFT set carries loss",
            where=dataset.folder,
            valid="the assistant's tokens, and no others",
            hint="delete the folder and make it again: python -m mixtures.tokenize --help",
        )


def preview(dataset: SftDataset, tokenizer: Tokenizer, *, colour: bool | None = None) -> str:
    """The first examples of the set as text; `colour` None: where the output is a terminal."""
    opening, closing = (GREEN, PLAIN) if (sys.stdout.isatty() if colour is None else colour) else ("⟦", "⟧")
    lines = []
    for number in range(min(EXAMPLES, len(dataset))):
        tokens, mask = dataset[number]
        carries_loss = np.concatenate([[False], mask])  # the first token is never a label
        text = ""
        for learnt, group in itertools.groupby(zip(tokens, carries_loss, strict=True), key=lambda pair: bool(pair[1])):
            piece = tokenizer.decode(int(token) for token, _ in group)
            piece = piece if len(piece) <= CHARACTERS else f"{piece[:CHARACTERS]}… ({len(piece):,} characters)"
            text += f"{opening}{piece}{closing}" if learnt else piece
        lines.append(f"example {number}: {int(mask.sum())} of {len(mask)} labels carry loss\n" + text.rstrip("\n"))
    return "\n".join(lines)
