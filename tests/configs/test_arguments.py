"""Command lines: overrides between options, examples in the help; and the grid that a study's name stands for."""

from __future__ import annotations

import pytest

from configs.arguments import CommandParser
from configs.documents import tokens_needed
from configs.grid import training_runs
from configs.load import load_mixture, load_study
from configs.token_bytes import id_bytes
from configs.workflow.arguments import COMMANDS, parse


def test_overrides_may_stand_anywhere() -> None:
    parser = CommandParser(prog="x", description="d", examples="examples:\n  x a=1")
    parser.add_common("study", required=True)
    parser.add_common("workers")
    parser.add_overrides()
    for line in ("a=1 --study s b=2 --workers 2", "--study s --workers 2 a=1 b=2", "a=1 b=2 --workers 2 --study s"):
        found = parser.parse(line.split())
        assert (found.overrides, found.study, found.workers) == (["a=1", "b=2"], "s", 2)
    assert parser.format_help().endswith("examples:\n  x a=1\n")
    plan = parse(["plan", "--gpus", "4", "paper", "seeds=[0]", "--price", "2", "recipes=[]"])
    assert (plan.study, plan.overrides) == ("paper", ["seeds=[0]", "recipes=[]"])
    why = parse(["why", "mini", "table5", "hellaswag", "--json", "mini_m"])
    assert (why.command, why.cell, why.json) == ("why", ["hellaswag", "mini_m"], True)


@pytest.mark.parametrize("line", ["", "--help", "fly mini", *(f"{command} --help" for command in COMMANDS)])
def test_help_and_unknown_commands_end_the_process(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(line.split())
    assert stop.value.code == (0 if "--help" in line else 2)
    shown = capsys.readouterr()
    assert all(command in shown.out + shown.err for command in (COMMANDS if len(line.split()) < 2 else ()))


def test_the_grid_has_every_run_once() -> None:
    study = load_study("mini", {"extra_seeds": {"V1P0": [5]}})
    runs = [(c.scale, c.data.mixture, c.seed, c.stage, c.recipe) for c in training_runs(study)]
    models = [(scale, m, seed) for scale in study.scales for m in study.mixtures for seed in study.seeds_of(m)]
    stages = [("pt", ""), *(("sft", recipe) for recipe in study.recipes)]
    assert runs == [(*model, *stage) for model in models for stage in stages]


def test_needed_tokens_cover_the_largest_run() -> None:
    study = load_study("paper")
    largest = {
        source: max(c.pretraining_tokens * load_mixture(c.data.mixture).weights.get(source, 0) for c in runs)
        for runs in [[c for c in training_runs(study) if c.stage == "pt"]]
        for source in tokens_needed(study)
    }
    assert tokens_needed(study) == {source: pytest.approx(tokens, rel=1e-5) for source, tokens in largest.items()}


def test_ids_take_two_bytes_where_they_suffice() -> None:
    assert [id_bytes(vocab) for vocab in (261, 2**16, 2**16 + 1)] == [2, 2, 4]
