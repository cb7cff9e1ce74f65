"""Tokenizers of others: the tokens and log-probabilities of lm-evaluation-harness' own HFLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_rows import words
from foreign_tokenizers import KINDS, save_tokenizer
from random_models import random_model

from configs.errors import ArtifactError
from configs.load import load_benchmark
from ray_eval.benchmarks import DELIMITER, Example
from ray_eval.checkpoints.hf_tokenizer import HFTokenizer
from ray_eval.models.hf_model import HFModel
from ray_eval.models.scorer import Scorer
from ray_eval.plans.encoding import Encodings
from ray_eval.plans.plan import compile_plan

MAX_LENGTH = 40
TOLERANCE_NATS = 1e-4
CONTEXTS = (
    "Question: is tin a metal?\nAnswer:",
    "Ends with spaces  ",
    "Ünlü é — ß \n",
    "A long one, which is cut: " + "the mill stopped, and it rained all day; " * 4,
)
CANDIDATES = ("yes", "no, not at all", "  two spaces", "é — ß?", "ice", "A wheel broke. " * 6)
POLICIES = {
    "metaspace": "<s>; <s> stands for an empty context",
    "gpt2": "none; <|endoftext|> stands for an empty context",
    "only_eos": "none; <|im_end|> stands for an empty context",
    "llama3": "<|begin|>; <|begin|> stands for an empty context",
    "around": "<s> </s>; <s> stands for an empty context",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model with each kind of tokenizer."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path_factory.mktemp("models") / kind
        vocab = save_tokenizer(made[kind], kind, words())
        random_model(made[kind], "GPT-NeoX", vocab, max_position_embeddings=MAX_LENGTH)
    return made


def harness(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def example(context: str, candidates: tuple[str, ...] = CANDIDATES) -> Example:
    return Example("test", 0, (context,), candidates, 0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_encoded_as_the_harness_encodes_them(kind: str, folders: dict[str, Path]) -> None:
    lm, tokenizer = harness(folders[kind]), HFTokenizer(folders[kind])
    assert tokenizer.bos_policy == POLICIES[kind] and tokenizer.eod == lm.prefix_token_id
    spelt = lm.tokenizer.decode(lm.prefix_token_id)
    for context in (*CONTEXTS, f"{spelt}The prefix token is spelt out"):
        encode = Encodings(tokenizer, MAX_LENGTH, [example(context)])
        for candidate in CANDIDATES:
            before, after = lm._encode_pair(context, DELIMITER + candidate)
            scored = encode(context, candidate)
            assert scored.ids.tolist() == (before + after)[-(MAX_LENGTH + 1) :]
            assert scored.num_targets == min(len(after), MAX_LENGTH)
            assert scored.truncated == (len(before + after) > MAX_LENGTH + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_harness(kind: str, folders: dict[str, Path]) -> None:
    """Those after an empty context included, for which the prefix token stands."""
    from lm_eval.api.instance import Instance

    candidates = CANDIDATES[:-1]  # the last is longer than the model's context, where the harness stops
    contexts = (*CONTEXTS, "")
    pairs = [(context, DELIMITER + candidate) for context in contexts for candidate in candidates]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    expected = [value for value, _ in harness(folders[kind]).loglikelihood(requests, disable_tqdm=True)]

    model, tokenizer = HFModel(folders[kind]), HFTokenizer(folders[kind])
    examples = [example(context, candidates) for context in contexts]
    plan = compile_plan([(load_benchmark("piqa"), examples)], tokenizer, MAX_LENGTH)
    assert plan.info["bos_policy"] == POLICIES[kind]
    scorer, sums = Scorer(plan), np.zeros(plan.num_sequences)
    for unit in scorer.units(model):
        sums[scorer.sequences(unit)], _ = scorer.score(model, unit)
    assert sums[plan.sequence] == pytest.approx(expected, abs=TOLERANCE_NATS)
    assert np.ptp(expected) > 10


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "gpt2", words())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ArtifactError, match="neither a BOS nor an EOS token"):
        HFTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match="transformers cannot load its tokenizer"):
        HFTokenizer(tmp_path)
