"""A fine-tuning is filed under the model it starts from, by hand as in a study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from train_runs import TINY, TINY_SFT

from configs.artifacts import read_json
from configs.layout import RunFolder, StudyFolder
from configs.load import load, load_study, load_train, parse_overrides
from configs.schema import TrainConfig
from configs.workflow.units import study_units
from megatron_train import pretrain, sft

OTHER = ["data.mixture=V1P2", "seed=1"]
"""Not what configs/*_sft.yaml would say of the model."""


@pytest.fixture(scope="module")
def parent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    options = [*TINY, "budget.steps=6", "data.exhaustion=repeat", "data.max_epochs=20", *OTHER]
    pretrain.main(["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs), *options])
    return runs / "t" / "mini_s" / "V1P2" / "seed1" / "pt"


def fine_tune(data: Path, runs: Path, parent: Path, *overrides: str) -> None:
    place = ["--data", str(data), "--runs", str(runs), "--parent", str(parent)]
    sft.main(["--config", "mini_s_sft.yaml", *place, *TINY_SFT, *overrides])


def config_of(run: Path) -> TrainConfig:
    return load(TrainConfig, run / "config.yaml")


def test_mixture_seed_and_study_are_the_parents(data: Path, parent: Path, tmp_path: Path) -> None:
    fine_tune(data, tmp_path, parent)
    run = tmp_path / "t/mini_s/V1P2/seed1/sft-mini"
    assert read_json(run / "DONE") and [p.name for p in tmp_path.glob("*/*/*/*/*") if p.is_dir()] == ["sft-mini"]
    assert (config_of(run).data.mixture, config_of(run).seed) == ("V1P2", 1)
    # A fine-tuned model is a parent too, and an export that was copied still knows what it is.
    fine_tune(data, tmp_path, run / "export/step-0000008", "recipe=more")
    assert config_of(tmp_path / "t/mini_s/V1P2/seed1/sft-more").data.mixture == "V1P2"
    copied = shutil.copytree(parent / "export/step-0000006", tmp_path / "copied")
    fine_tune(data, tmp_path / "second", copied)
    assert read_json(tmp_path / "second/t/mini_s/V1P2/seed1/sft-mini/DONE") == read_json(run / "DONE")


def test_of_a_study_it_is_the_same_run(data: Path, parent: Path, tmp_path: Path) -> None:
    fine_tune(data, tmp_path / "hand", parent)
    config = load_train("mini_s_sft.yaml", parse_overrides(TINY_SFT)).of("V1P2", 1)
    run = sft.run(config, parent, StudyFolder(tmp_path / "study", "t"), data)
    by_hand = tmp_path / "hand" / run.relative_to(tmp_path / "study")
    for name in ("DONE", "config.yaml"):
        assert (run / name).read_bytes() == (by_hand / name).read_bytes()


def test_units_of_a_study_have_the_configs_of_runs_by_hand() -> None:
    """All mixtures and seeds of the miniature study."""
    study = load_study("mini")
    for unit in study_units(study, Path("runs")):
        if unit.kind == "finetune" and unit.run is not None and unit.folder is not None:
            spec = study.scales[unit.folder.scale].sft[unit.run.config.recipe]
            run = RunFolder.at(unit.folder.path.resolve().with_name("pt"))
            assert run is not None and unit.run.config == load_train(spec, sft.inherited(run))
            assert unit.identity["data"]["mixture"] == unit.folder.mixture


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=0"], "t/mini_s/V1P2/seed1/pt: seed is 0, the parent's is 1\n  valid: seed=1\n  next:  leave seed out"),
        (["data.mixture=V1P0"], "data.mixture is 'V1P0', the parent's is 'V1P2'\n  valid: data.mixture=V1P2"),
        (["data={tokenizer: tiny, mixture: V1P0}"], "data.mixture is 'V1P0', the parent's is 'V1P2'"),
        (["scale=mini_m"], "scale is 'mini_m', the parent's is 'mini_s'\n  valid: scale=mini_s"),
    ],
)
def test_other_names_than_the_parents_are_refused(
    data: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        fine_tune(data, tmp_path, parent, *overrides)
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())
    fine_tune(data, tmp_path, parent, *OTHER, "budget.steps=1")  # the same names may be said


@pytest.mark.parametrize("folder", ["V1P2/seed2/pt", "V1P0/seed1/pt"])
def test_a_parent_in_the_folder_of_another_is_refused(
    data: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    moved = shutil.copytree(parent, tmp_path / "runs/t/mini_s" / folder)
    with pytest.raises(SystemExit, match="2"):
        fine_tune(data, tmp_path / "out", moved)
    said = capsys.readouterr().err
    assert "it is of the run mini_s/V1P2/seed1/pt" in said and f"in that of mini_s/{folder}" in said
    (moved / "export/step-0000006/export.json").unlink()  # then it is half of an export, not somebody's Llama
    with pytest.raises(SystemExit, match="2"):
        fine_tune(data, tmp_path / "out", moved)
    assert "export.json: file is missing" in capsys.readouterr().err


def test_a_longer_context_than_the_parents_is_said(
    data: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine_tune(data, tmp_path, parent, "budget.steps=1", "model.context_tokens=48")
    assert "model.context_tokens is 48, the parent was trained with 32 only" in capsys.readouterr().out
    fine_tune(data, tmp_path, parent, "budget.steps=1", "model.context_tokens=16", "recipe=shorter")
    assert "the parent was trained with" not in capsys.readouterr().out


def test_somebody_elses_llama_is_filed_as_the_command_says(data: Path, parent: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(parent / "export/step-0000006", tmp_path / "llama")
    (foreign / "export.json").unlink()
    fine_tune(data, tmp_path / "runs", foreign, "data.mixture=theirs", "seed=3", "budget.steps=1")
    assert read_json(tmp_path / "runs/by-hand/mini_s/theirs/seed3/sft-mini/DONE")
