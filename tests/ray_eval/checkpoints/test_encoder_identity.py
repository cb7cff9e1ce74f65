"""A model is scored with its own tokens and its own config, whoever is scored beside it or was scored before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from eval_rows import words
from foreign_tokenizers import save_tokenizer
from random_models import random_model

from configs.artifacts import describe_file, read_json, write_json
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.load import load_benchmarks
from configs.schema import StudyScoring
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import DELIMITER, load_examples
from ray_eval.checkpoints.exports import read_export
from ray_eval.checkpoints.hf_checkpoint import read_model
from ray_eval.checkpoints.hf_tokenizer import HFTokenizer
from ray_eval.results import metadata_of, read_scores, write_scores
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, ScoringProgress, score_study

ExportMaker = Callable[..., Path]
BENCHMARKS = ("boolq", "piqa", "arc_easy")
TOLERANCE_NATS = 1e-4


def restate(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    changed = read_json(path) | values
    write_json(path, {key: value for key, value in changed.items() if value is not None})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama and a Qwen2 with the same tokenizer files. transformers gives Qwen2 a pre-tokenizer of its own."""
    root = tmp_path_factory.mktemp("models")
    for name, family in (("llama", "Llama 3"), ("qwen2", "Qwen2")):
        vocab = save_tokenizer(root / name, "gpt2", words())
        restate(root / name / "tokenizer_config.json", tokenizer_class=None)
        random_model(root / name, family, vocab, max_position_embeddings=256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (root / "llama" / name).read_bytes() == (root / "qwen2" / name).read_bytes()
    return root


def score(root: Path, out: Path, *models: Path) -> dict[str, pa.Table]:
    """Name of the model -> its score file."""
    options = ["--no-ray", "--benchmarks", ",".join(BENCHMARKS), "--precision", "fp32", "--limit", "20"]
    main([*options, "--data-root", str(root), "--out", str(out), "--model", *map(str, models)])
    return {path.parts[-5]: read_scores(path) for path in (out / "models" / "scores").rglob("*.parquet")}


def sums(table: pa.Table) -> np.ndarray:
    assert not any(table["truncated"].to_pylist())
    return np.concatenate(table["logprob_sum"].to_pylist())


def by_transformers(folder: Path, root: Path) -> np.ndarray:
    """Log-probability of every candidate, from transformers' own tokenizer and model of this folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for spec in load_benchmarks(BENCHMARKS):
        for example in load_examples(spec, root, StudyScoring(sample=20)):
            for i, candidate in enumerate(example.candidates):
                context = example.context(i)
                assert isinstance(context, str)
                head, tail = context.rstrip(), context[len(context.rstrip()) :]
                before = tokenizer(head)["input_ids"]
                after = tokenizer(head + tail + DELIMITER + candidate)["input_ids"][len(before) :]
                with torch.inference_mode():
                    logits = model(torch.tensor([before + after])).logits[0].double()
                logp = logits.log_softmax(-1)[range(len(before) - 1, len(before + after) - 1), after]
                found.append(float(logp.sum()))
    return np.array(found)


def test_equal_files_of_a_tokenizer_are_not_equal_tokens(made: Path, benchmark_root: Path, tmp_path: Path) -> None:
    """Alone, in company and from a kept plan the numbers are those of transformers."""
    names = ("llama", "qwen2")
    folders = {name: made / name for name in names}
    expected = {name: by_transformers(folders[name], benchmark_root) for name in names}
    together = score(benchmark_root, tmp_path / "together", *folders.values())
    for name in names:
        alone = score(benchmark_root, tmp_path / name, folders[name])[name]
        assert sums(alone) == pytest.approx(expected[name], abs=TOLERANCE_NATS)
        assert together[name].equals(alone, check_metadata=True)
    for first, second in (names, names[::-1]):  # the second call finds the first one's plan
        score(benchmark_root, tmp_path / f"{first} first", folders[first])
        after = score(benchmark_root, tmp_path / f"{first} first", folders[second])
        assert after[second].equals(together[second], check_metadata=True)
    hashes = {metadata_of(table)["tokenizer_sha256"] for table in together.values()}
    assert len(hashes) == 2


def test_scores_made_with_tokens_of_another_model_are_made_again(
    made: Path, benchmark_root: Path, tmp_path: Path
) -> None:
    """A file of an earlier version, whose metadata hashed the tokenizer's files and not the config."""
    right = score(benchmark_root, tmp_path, made / "qwen2")["qwen2"]
    (path,) = (tmp_path / "models" / "scores").rglob("*.parquet")
    old = metadata_of(right) | {"tokenizer_sha256": "0" * 64, "plan_hash": "1" * 64}
    del old["config_sha256"]
    wrong = right.set_column(
        right.schema.get_field_index("logprob_sum"),
        right.schema.field("logprob_sum"),
        pa.array([[value - 18 for value in values] for values in right["logprob_sum"].to_pylist()]),
    )
    write_scores(wrong.replace_schema_metadata(old), path)
    assert score(benchmark_root, tmp_path, made / "qwen2")["qwen2"].equals(right, check_metadata=True)


# ---------------------------------------------------------------------------------------------- the hash


@pytest.fixture
def llama(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "llama", tmp_path / "llama")


def test_what_decides_no_id_does_not_change_the_hash(made: Path, llama: Path) -> None:
    before = HFTokenizer(made / "llama").sha256
    assert HFTokenizer(llama).sha256 == before  # in another folder
    restate(llama / "tokenizer_config.json", chat_template="{{ messages }}", model_max_length=77)
    (llama / "config.json").write_text(json.dumps(read_json(llama / "config.json"), indent=7))
    assert HFTokenizer(llama).sha256 == before


def other_family(folder: Path) -> None:
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))


def other_class(folder: Path) -> None:
    restate(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")


def prefix_space(folder: Path) -> None:
    definition = read_json(folder / "tokenizer.json")
    definition["pre_tokenizer"]["add_prefix_space"] = True
    write_json(folder / "tokenizer.json", definition)


def ordinary_text(folder: Path) -> None:
    restate(folder / "tokenizer_config.json", split_special_tokens=True)


def added_token(folder: Path) -> None:
    definition = read_json(folder / "tokenizer.json")
    definition["added_tokens"].append(definition["added_tokens"][0] | {"id": 399, "content": "boots", "special": False})
    write_json(folder / "tokenizer.json", definition)


@pytest.mark.parametrize("change", [other_family, other_class, prefix_space, ordinary_text, added_token])
def test_what_decides_ids_changes_the_hash(change: Callable[[Path], None], llama: Path) -> None:
    text = "<|endoftext|> dry boots: 232 it's"
    before = HFTokenizer(llama)
    change(llama)
    after = HFTokenizer(llama)
    assert before.encode_batch(["a", f"b {text}"]) != after.encode_batch(["a", f"b {text}"])
    assert before.sha256 != after.sha256


def test_code_of_a_tokenizer_is_part_of_its_hash(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    code = (
        "from transformers import PreTrainedTokenizerFast\n"
        "class Words(PreTrainedTokenizerFast):\n"
        "    def __call__(self, texts, **options):\n"
        "        return super().__call__([text + 'SUFFIX' for text in texts], **options)\n"
    )
    restate(llama / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "words.Words"]}, tokenizer_class="Words")
    found = {}
    for suffix in ("", "x"):
        (llama / "words.py").write_text(code.replace("SUFFIX", suffix))
        found[suffix] = HFTokenizer(llama, trust_remote_code=True)
    assert found[""].encode_batch(["a"]) != found["x"].encode_batch(["a"])
    assert found[""].sha256 != found["x"].sha256


def test_files_of_a_tokenizer_written_in_python_are_part_of_its_hash(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    hashes = []
    for name, added in (("one", []), ("copy", []), ("other", ["boots"])):
        tokenizer = ByT5Tokenizer()
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(tmp_path / name)
        hashes.append(HFTokenizer(tmp_path / name).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_tokenizer_that_changes_while_it_waits_is_not_used(llama: Path, tmp_path: Path) -> None:
    model = read_model(str(llama), tmp_path)
    model.encoder()
    prefix_space(llama)
    with pytest.raises(ArtifactError, match="its tokenizer was changed since scoring began"):
        model.encoder()


# ---------------------------------------------------------------------------------------------- the config


def test_equal_weights_with_another_config_are_another_model(llama: Path, benchmark_root: Path, tmp_path: Path) -> None:
    first = score(benchmark_root, tmp_path / "out", llama)["llama"]
    config = read_json(llama / "config.json")
    config["rope_parameters"]["rope_theta"] = 10.0
    write_json(llama / "config.json", config)
    second = score(benchmark_root, tmp_path / "out", llama)["llama"]
    assert metadata_of(first)["checkpoint"] == metadata_of(second)["checkpoint"]
    assert sums(second) == pytest.approx(by_transformers(llama, benchmark_root), abs=TOLERANCE_NATS)
    assert np.abs(sums(first) - sums(second)).max() > 0.1


def test_parts_of_another_config_are_not_used(llama: Path, benchmark_root: Path, tmp_path: Path) -> None:
    def run(progress: Callable[[ScoringProgress], None]) -> int:
        models = [read_model(str(llama), tmp_path)]
        options: dict[str, Any] = {"documents_root": benchmark_root, "benchmarks": BENCHMARKS, "unit_work": 1e6}
        return score_study(
            StudyFolder(tmp_path, "models"),
            ScoreOptions(checkpoints=models, use_ray=False, progress=progress, **options),
        ).counts.tokens

    def stop(progress: ScoringProgress) -> None:
        if progress.share > 0.4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(stop)
    assert len(list((tmp_path / "models" / "scores").rglob("*.part"))) > 1
    config = read_json(llama / "config.json")
    config["rope_parameters"]["rope_theta"] = 10.0
    write_json(llama / "config.json", config)
    seen: list[ScoringProgress] = []
    assert run(seen.append) == seen[-1].num_tokens  # all of them in this call


def test_a_config_that_changes_while_it_waits_is_not_scored(llama: Path, tmp_path: Path) -> None:
    model = read_model(str(llama), tmp_path)
    restate(llama / "config.json", rms_norm_eps=0.5)
    with pytest.raises(ArtifactError, match=r"config\.json or the code that comes with it was changed"):
        model.read()


# ---------------------------------------------------------------------------------------------- exports of ours


def test_exports_whose_special_tokens_differ_share_no_plan(
    make_export: ExportMaker, tokenizer: Tokenizer, benchmark_root: Path, tmp_path: Path
) -> None:
    """The ids that stand for an empty context are chosen by tokenizer_config.json; tokenizer.json is the same."""
    folders = [make_export(StudyFolder(tmp_path, "trial").run("s", "V1P0", seed, "pt").export(1)) for seed in (0, 1, 2)]
    restate(folders[2] / "tokenizer_config.json", eos_token="<|user|>")
    first, same, other = (read_export(folder) for folder in folders)
    assert first.encoding_sha256 == same.encoding_sha256 != other.encoding_sha256
    assert first.encoder().eod == tokenizer.eod != other.encoder().eod
    score_study(
        StudyFolder(tmp_path, "trial"), ScoreOptions(documents_root=benchmark_root, benchmarks=["piqa"], use_ray=False)
    )
    assert len(list((tmp_path / "trial" / "plans").iterdir())) == 2


def test_an_export_with_another_config_is_named(make_export: ExportMaker, tmp_path: Path) -> None:
    """Of the same length: its contents tell."""
    folder = make_export(StudyFolder(tmp_path, "trial").run("s", "V1P0", 0, "pt").export(1))
    files = {path.name: describe_file(path) for path in folder.iterdir() if path.name != "export.json"}
    restate(folder / "export.json", files=files)
    read_export(folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-01'))
    with pytest.raises(ArtifactError, match=r"config\.json: sha256 differs from the manifest"):
        read_export(folder)


def test_a_kept_plan_is_not_used_by_another_version_of_a_package(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compiled again; where the ids are the same, scores stay up to date."""
    make_export(StudyFolder(tmp_path, "trial").run("s", "V1P0", 0, "pt").export(1))

    def run() -> int:
        return score_study(
            StudyFolder(tmp_path, "trial"),
            ScoreOptions(documents_root=benchmark_root, benchmarks=["piqa"], use_ray=False),
        ).scored

    assert run() == 1
    for module in ("ray_eval.results", "ray_eval.scoring"):
        monkeypatch.setattr(f"{module}.versions", lambda packages: dict.fromkeys(packages, "0.1"))
    assert run() == 0 and len(list((tmp_path / "trial" / "plans").iterdir())) == 2
