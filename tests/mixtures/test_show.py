"""What a step reads, as `mixtures.show` prints it, is what training is fed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from token_shards import tokenize_source

from configs.layout import shards_dir, tokenizer_dir
from configs.load import load_mixture, load_sources, load_train
from configs.schema import TrainConfig
from mixtures import show
from mixtures.blend.blend import Blend, open_blend, open_shards
from mixtures.blend.samples import read_sample
from mixtures.sources.source import Source
from mixtures.tokens.tokenizer import Tokenizer

OVERRIDES = {
    "model.context_tokens": 64,
    "batch.sequences": 6,
    "batch.micro_sequences": 3,
    "budget.tokens": None,
    "budget.steps": 12,
    "data.tokenizer": "tiny",
}
OPTIONS = [f"{key}={'null' if value is None else value}" for key, value in OVERRIDES.items()]


@pytest.fixture
def data(documents_root: Path, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """<data> with the sources of V1P0, in two parts each."""
    data = tmp_path / "data"
    shutil.copytree(tokenizer.folder, tokenizer_dir(data, "tiny"))
    for name in load_mixture("V1P0").weights:
        source = Source(name, load_sources().sources[name], documents_root)
        tokenize_source(source, tokenizer, shards_dir(data, "tiny", name))
    return data


@pytest.fixture
def config() -> TrainConfig:
    return load_train("mini_s.yaml", OVERRIDES)


@pytest.fixture
def blend(config: TrainConfig, data: Path) -> Blend:
    return open_blend(config, open_shards(config, data), data)


def run(data: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    show.main(["--config", "mini_s.yaml", "--data", str(data), *arguments, *OPTIONS])
    return capsys.readouterr().out


def test_it_shows_the_sequences_that_training_is_fed(blend: Blend, config: TrainConfig) -> None:
    torch = pytest.importorskip("torch")
    from megatron_train.data import PretrainData
    from megatron_train.ranks.parallel import Ranks

    alone = Ranks(0, 1, 0, 1, 0, 1, torch.device("cpu"), cast(Any, None), None)
    batch = config.batch
    for step in (1, 5, 12):
        shown = [read_sample(blend, n).tokens for n in range((step - 1) * batch.sequences, step * batch.sequences)]
        fed = []
        for rank in range(2):
            ranks = replace(alone, world=2, data=rank, data_size=2)
            fed += PretrainData(blend, batch.sequences, batch.micro_sequences, ranks).step(step).micro
        np.testing.assert_array_equal(np.concatenate([micro.tokens for micro in fed]), np.stack(shown)[:, :-1])
        np.testing.assert_array_equal(np.concatenate([micro.labels for micro in fed]), np.stack(shown)[:, 1:])


def test_every_stretch_is_where_it_says(blend: Blend, documents_root: Path, tokenizer: Tokenizer) -> None:
    """The ids of a sequence, made again from the rows of the input files."""
    for number in range(len(blend)):
        sample = read_sample(blend, number)
        ids = []
        for part in sample.stretches:
            path = documents_root / "corpora" / sample.source / Path(part.unit).name
            text = pq.read_table(path, columns=["text"])["text"][part.row].as_py()
            document = [*tokenizer.encode(text), tokenizer.eod]
            assert len(document) == part.length
            ids += document[part.start : part.stop]
        assert ids == sample.tokens.tolist()
        assert sample.epoch == 1


def test_a_step_lists_sources_documents_and_text(
    blend: Blend, data: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(data, capsys, "--step", "3", "--chars", "100000")
    assert out.startswith("step 3: 6 sequences x 64 tokens (")
    assert "\x1b" not in out, "plain where no terminal reads it"
    heads = re.findall(r"^\[(\d)\] (\w+), sample (\d+) of the run, epoch 1$", out, re.MULTILINE)
    assert heads == [(str(n - 12), blend.source_of(n), str(n)) for n in range(12, 18)]
    assert len(re.findall(r"^    \S+ row \d+: tokens \d+ to \d+ of \d+$", out, re.MULTILINE)) == sum(
        len(read_sample(blend, n).stretches) for n in range(12, 18)
    )
    unindented = out.replace("    | ", "")
    for n in range(12, 18):
        assert tokenizer.decode(blend[n]) in unindented


def test_it_shows_one_sequence_several_steps_or_no_text(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run(data, capsys, "--step", "3", "--sample", "4", "--chars", "20")
    assert re.findall(r"^\[(\d)\]", one, re.MULTILINE) == ["4"] and "… (" in one
    several = run(data, capsys, "--steps", "3:5", "--chars", "0")
    assert re.findall(r"^step (\d+)", several, re.MULTILINE) == ["3", "4", "5"]
    assert "… (" not in several


def test_without_a_step_it_prints_the_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(data, capsys)
    assert out.startswith("mini_s, mixture V1P0, 12 steps\nsource ")
    assert len(out.splitlines()) == 2 + len(load_mixture("V1P0").weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "13"], r"no step 13 in this run\n  valid: 1 to 12"),
        (["--step", "0"], r"no step 0 in this run"),
        (["--steps", "5:3"], r"no step 5:3 in this run"),
        (["--steps", "five"], r"--steps five is not FIRST:LAST"),
        (["--step", "1", "--sample", "6"], r"no sequence 6 in a step\n  valid: 0 to 5"),
    ],
)
def test_impossible_requests_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        run(tmp_path, capsys, *arguments)
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_study_names_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        show.main(["--study", "mini", "--scale", "huge", "--mixture", "V1P0"])
    assert end.value.code == 2
    assert "no scale 'huge'" in (error := capsys.readouterr().err) and "mini_s, mini_m" in error
    with pytest.raises(SystemExit):
        show.main(["--study", "mini", "--mixture", "V1P0", "--data", str(tmp_path)])
    assert "mixtures.tokenize" in capsys.readouterr().err
