"""Log-probabilities of chosen tokens, against PyTorch's log_softmax in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ray_eval.models import output_layer

PLACES, HIDDEN, VOCAB, TARGETS = 300, 16, 2500, 700


def inputs(spread: float, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """spread: of the logits, in nats; shift: of all of them."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(PLACES, HIDDEN, generator=draw)
    states[:, 0] = 1.0
    weights = torch.randn(VOCAB, HIDDEN, generator=draw) * spread / HIDDEN**0.5
    weights[:, 0] += shift
    head = torch.randint(0, PLACES, (TARGETS,), generator=draw).sort().values
    return states, weights, head, torch.randint(0, VOCAB, (TARGETS,), generator=draw)


def reference(states: Tensor, weights: Tensor, head: Tensor, token: Tensor) -> Tensor:
    return torch.log_softmax(states.double() @ weights.double().T, -1)[head, token]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("shift", [0.0, 70.0, -70.0, 500.0, -500.0])
def test_it_is_log_softmax(spread: float, shift: float, parts: int) -> None:
    """Also where 2^logit is more, or less, than float32 can hold."""
    given = inputs(spread, shift)
    states, weights, head, token = given
    found = output_layer.log_probabilities(states, weights.split(-(-VOCAB // parts)), head, token)
    assert found.dtype == torch.float32
    ulp = 2**-23 * (states.double() @ weights.double().T).abs().max()
    torch.testing.assert_close(found.double(), reference(*given), rtol=2**-23, atol=float(4 * ulp))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_place_without_numbers_has_no_probability_and_harms_no_other(value: float) -> None:
    states, weights, head, token = inputs(3.0)
    expected = output_layer.log_probabilities(states, [weights], head, token)
    states[7] = value
    found = output_layer.log_probabilities(states, [weights], head, token)
    assert found[head == 7].isnan().all()
    torch.testing.assert_close(found[head != 7], expected[head != 7], rtol=0, atol=1e-5)


def test_no_piece_is_larger_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(output_layer.PLACES, "cpu", 7)
    monkeypatch.setitem(output_layer.LOGITS, "cpu", 700)
    made = []
    product = torch.mm

    def watched(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
        made.append((tuple(out.shape), out.data_ptr()))
        return product(a, b, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    given = inputs(3.0)
    states, weights, head, token = given
    found = output_layer.log_probabilities(states, [weights], head, token)
    torch.testing.assert_close(found.double(), reference(*given), rtol=0, atol=1e-5)
    assert max(rows * columns for (rows, columns), _ in made) <= 700
    assert max(columns for (_, columns), _ in made) == 7
    assert len({pointer for _, pointer in made}) == 1
