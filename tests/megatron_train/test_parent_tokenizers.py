"""A fine-tuning gives its parent the ids that the parent was trained with: ours, and a Llama that transformers made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HuggingFaceTokenizer
from train_runs import TINY, TINY_SFT, read_metrics
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.artifacts import sha256_file, write_json
from configs.errors import ConfigError
from configs.layout import sft_dir, tokenizer_dir
from configs.schema import ModelShape, SftSpec
from megatron_train import pretrain, sft
from megatron_train.checkpoints.export import hf_config
from megatron_train.parent_tokenizer import check_parent_tokenizer
from mixtures.sources.source import Source
from mixtures.tokens.new_tokenizer import take_tokenizer, train_tokenizer
from mixtures.tokens.sft import prepare_sft
from mixtures.tokens.tokenizer import Tokenizer

TEXTS = ["sun moon river stone bird tree fire water", "to be or not to be, that is the question", "0 1 2 3 4 5 6"] * 5


def add_sft_set(data: Path, tokenizer: Tokenizer) -> None:
    """The SFT set `sft` of another tokenizer of <data>."""
    source = Source("sft", SftSpec(hub="none", folder="sft"), data)
    prepare_sft(source, tokenizer, sft_dir(data, tokenizer.folder.name, "sft"), context_tokens=32, inputs={})


def published(path: Path) -> Path:
    """The tokenizer.json of a published model: it puts <s> before a text, and merges are spelt as they were in 2023."""
    bpe = HuggingFaceTokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>"]
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    bpe.add_tokens([AddedToken("<think>", normalized=False)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    bpe.enable_truncation(16)
    definition = json.loads(bpe.to_str())
    definition["model"]["merges"] = [" ".join(pair) for pair in definition["model"]["merges"]]
    for key in ("byte_fallback", "ignore_merges", "fuse_unk"):
        definition["model"].pop(key, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(definition))
    return path


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<data> with `tiny`, an equally large `other`, and SFT sets of both."""
    root = shutil.copytree(data, tmp_path_factory.mktemp("both"), dirs_exist_ok=True)
    add_sft_set(root, train_tokenizer(TEXTS, 320, tokenizer_dir(root, "other"), inputs={}))
    return root


@pytest.fixture(scope="module")
def parent(both: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of ours, with tokenizer `tiny`."""
    runs = tmp_path_factory.mktemp("runs")
    where = ["--study", "t", "--data", str(both), "--runs", str(runs)]
    pretrain.main(["--config", "mini_s.yaml", *where, *TINY, "budget.steps=6"])
    return runs / "t/mini_s/V1P0/seed0/pt/export/step-0000006"


def fine_tune(data: Path, runs: Path, parent: Path, *options: str) -> Path:
    where = ["--study", "t", "--data", str(data), "--runs", str(runs), "--parent", str(parent)]
    sft.main(["--config", "mini_s_sft.yaml", *where, *TINY_SFT, "budget.steps=1", *options])
    return next(runs.glob("t/mini_s/*/*/sft-mini"))


def refused(data: Path, runs: Path, parent: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        fine_tune(data, runs, parent, *options)
    assert not runs.exists()
    return capsys.readouterr().err


def test_an_export_with_another_tokenizer_is_refused(
    both: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(both, tmp_path / "runs", parent, capsys, "data.tokenizer=other")
    theirs, here = (sha256_file(tokenizer_dir(both, name) / "tokenizer.json")[:12] for name in ("tiny", "other"))
    assert f"made with tokenizer other (sha256 {here}), which is not the parent's (sha256 {theirs})" in said
    assert "valid: data.tokenizer=tiny\n" in said and str(parent / "tokenizer.json") in said
    assert fine_tune(both, tmp_path / "runs", parent)


def test_an_export_whose_tokenizer_was_replaced_is_refused(
    both: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced = shutil.copytree(parent, tmp_path / "parent")
    content = (replaced / "tokenizer.json").read_bytes()
    (replaced / "tokenizer.json").write_bytes(content.replace(b"<|user|>", b"<|usex|>"))
    assert "not the tokenizer of these weights" in refused(both, tmp_path / "runs", replaced, capsys)


def test_an_export_with_another_end_of_text_is_refused(
    both: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tokenizer.json can stand beside another tokenizer_config.json, which names the end of text."""
    changed = shutil.copytree(parent, tmp_path / "parent")
    config = json.loads((changed / "tokenizer_config.json").read_text())
    text = json.dumps(config).replace('"eos_token": "<|endoftext|>"', '"eos_token": "<|user|>"')
    (changed / "tokenizer_config.json").write_text(text.ljust((parent / "tokenizer_config.json").stat().st_size))
    assert "its special tokens are SpecialIds(eod=2" in refused(both, tmp_path / "runs", changed, capsys)


@pytest.fixture(scope="module")
def llama(shape_: ModelShape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that transformers made and saved, with the tokenizer of its own."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**hf_config(shape_, torch.float32))).save_pretrained(folder)
    path = published(tmp_path_factory.mktemp("published") / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shape_() -> ModelShape:
    return ModelShape(layers=2, hidden=24, heads=4, head_dim=8, ffn_hidden=64, vocab=320, context_tokens=32)


def test_a_llama_of_others_takes_the_tokenizer_that_was_taken_from_it(
    both: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(both, tmp_path / "data")
    taken = take_tokenizer(llama / "tokenizer.json", 320, tokenizer_dir(data, "taken"), {})
    add_sft_set(data, taken)
    assert sha256_file(taken.folder / "tokenizer.json") != sha256_file(llama / "tokenizer.json")
    run = fine_tune(data, tmp_path / "runs", llama, "data.tokenizer=taken")
    assert read_metrics(run)[0]["loss"] == pytest.approx(5.77, abs=0.1)  # ln 320
    said = refused(data, tmp_path / "more", llama, capsys, "data.tokenizer=tiny")
    theirs, here = (
        sha256_file(llama / "tokenizer.json")[:12],
        sha256_file(tokenizer_dir(data, "tiny") / "tokenizer.json"),
    )
    assert f"tokenizer tiny (sha256 {here[:12]}), which is not the parent's (sha256 {theirs})" in said
    assert "the normalizer differs" in said and f"tokenizer.file: {llama}/tokenizer.json" in said


def test_a_llama_without_a_tokenizer_is_refused(
    both: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = shutil.copytree(llama, tmp_path / "llama")
    (bare / "tokenizer.json").unlink()
    said = refused(both, tmp_path / "runs", bare, capsys)
    assert "the parent has no tokenizer.json" in said and "save_pretrained(FOLDER)" in said


def _without_last_merge(definition: dict[str, Any]) -> None:
    definition["model"]["merges"].pop()


def _two_ids_exchanged(definition: dict[str, Any]) -> None:
    vocab = definition["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def _word_pieces(definition: dict[str, Any]) -> None:
    vocab = definition["model"]["vocab"]
    fixed = {"unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    definition["model"] = {"type": "WordPiece", "vocab": vocab, **fixed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(normalizer=None), "the normalizer differs"),
        (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "the pre_tokenizer differs"),
        (_without_last_merge, "the merges differ"),
        (_two_ids_exchanged, "the entry 'b' has id 66 for the parent, 67 here"),
        (lambda d: d["model"].update(ignore_merges=True), "ignore_merges is True for the parent, False here"),
        (lambda d: d["added_tokens"][-1].update(lstrip=True), "'<think>' has lstrip True for the parent, False here"),
        (lambda d: d["added_tokens"][-1].update(content="<hm>"), "'<hm>' has id 300 for the parent, None here"),
        (_word_pieces, "a WordPiece model, here it is BPE"),
        # What changes no id of a text that this project encodes:
        (lambda d: d.update(post_processor=None), None),
        (lambda d: d.update(truncation=None), None),
        (lambda d: d.update(decoder=None), None),
    ],
)
def test_what_gives_a_text_other_ids_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str | None
) -> None:
    ours = take_tokenizer(published(tmp_path / "theirs/tokenizer.json"), 320, tmp_path / "ours", {})
    theirs = tmp_path / "theirs/tokenizer.json"
    check_parent_tokenizer(theirs.parent, None, ours.folder)
    definition = json.loads(theirs.read_text())
    change(definition)
    write_json(theirs, definition)
    if message is None:
        check_parent_tokenizer(theirs.parent, None, ours.folder)
    else:
        with pytest.raises(ConfigError, match=message):
            check_parent_tokenizer(theirs.parent, None, ours.folder)
