"""The preview marks exactly what the loss mask marks, and a lost mask is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from train_runs import TOKENIZER

from configs.errors import DataError
from configs.layout import sft_dir, tokenizer_dir
from megatron_train.preview import check_mask, preview
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def chats(data: Path) -> SftDataset:
    return SftDataset.open(sft_dir(data, TOKENIZER, "sft"))


def test_the_assistants_part_is_marked(chats: SftDataset, data: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_dir(data, TOKENIZER))
    shown = preview(chats, tokenizer, colour=False)
    assert re.findall("⟦(.*?)⟧", shown) == [("moon " * n).strip() + "<|endoftext|>" for n in (1, 2, 3)]
    assert shown.count("<|user|>") == 3 == shown.count("<|assistant|>\n⟦")
    for number in range(3):
        _, mask = chats[number]
        assert f"example {number}: {int(mask.sum())} of {len(mask)} labels carry loss" in shown
    assert "\x1b[32mmoon<|endoftext|>\x1b[0m" in preview(chats, tokenizer, colour=True)


@pytest.mark.parametrize(("carries_loss", "message"), [(False, "no token"), (True, "every token")])
def test_a_lost_mask_is_refused(chats: SftDataset, carries_loss: bool, message: str) -> None:
    check_mask(chats)
    lost = SftDataset.open(chats.folder)
    lost.manifest["loss_tokens"] = lost.manifest["tokens"] * int(carries_loss)
    assert np.array_equal(lost[0][1], chats[0][1])
    with pytest.raises(DataError, match=f"{message} of the SFT set carries loss"):
        check_mask(lost)
