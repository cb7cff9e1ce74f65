"""What a mixture takes from each source, and which runs are refused."""

from __future__ import annotations

import pytest

from configs.errors import DataError
from configs.load import load_mixture, load_train
from configs.schema import TrainConfig
from mixtures.blend.blend import Blend
from mixtures.blend.supply import check_supply, supplies, table


def config(**overrides: object) -> TrainConfig:
    """600 samples of 32 tokens from V1P0: 390, 150 and 4 x 15 of them."""
    sizes = {"model.context_tokens": 32, "batch.sequences": 6, "batch.micro_sequences": 6}
    budget = {"budget.tokens": None, "budget.steps": 100}
    return load_train("mini_s.yaml", sizes | budget | overrides)


def available(**changes: int) -> dict[str, int]:
    return dict.fromkeys(load_mixture("V1P0").weights, 12_480) | changes


def test_the_table_says_what_is_wanted_and_what_there_is() -> None:
    rows = supplies(config(), available(books=240))
    assert {row.source: row.wanted // 32 for row in rows} == {
        "arxiv": 15,
        "books": 15,
        "refinedweb": 390,
        "stackexchange": 15,
        "starcoder": 150,
        "wikipedia": 15,
    }
    assert {row.source: row.epochs for row in rows}["books"] == 2
    lines = table(rows).splitlines()
    assert lines[0].split() == ["source", "weight", "tokens", "wanted", "available", "epochs"]
    assert lines[2].split() == ["books", "0.025", "480", "240", "2.000"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("steps", [1, 7, 333])
def test_it_counts_as_the_blend_does(steps: int) -> None:
    from test_blend import memory

    weights = load_mixture("V1P0").weights
    blend = Blend({s: memory([400]) for s in weights}, weights, 32, 0, steps * 6)
    rows = supplies(config(**{"budget.steps": steps}), available())
    assert {row.source: row.wanted for row in rows} == blend.tokens()


def test_a_run_that_would_repeat_text_is_refused_by_default() -> None:
    check_supply(config(), supplies(config(), available(books=480)))
    with pytest.raises(DataError) as refusal:
        check_supply(config(), supplies(config(), available(books=479, arxiv=100)))
    message = str(refusal.value)
    assert "mixture V1P0" in message
    assert "- arxiv: 480 tokens wanted, 100 available, 4.8 epochs" in message
    assert "- books: 480 tokens wanted, 479 available, 1.002 epochs" in message
    assert "wikipedia" not in message
    assert "at most 1 epoch (data.exhaustion: error, no text twice)" in message
    assert "data.exhaustion=repeat data.max_epochs=4.8" in message


def test_repeating_has_a_cap() -> None:
    repeat = config(**{"data.exhaustion": "repeat", "data.max_epochs": 2.5})
    check_supply(repeat, supplies(repeat, available(books=192)))
    refused = r"(?s)books.*2\.513 epochs.*at most 2\.5 epochs.*let text repeat: data\.max_epochs=2\.52"
    with pytest.raises(DataError, match=refused):
        check_supply(repeat, supplies(repeat, available(books=191)))
