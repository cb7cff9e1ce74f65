"""Which kernel is chosen, and why: with kernels and clocks of our own, since no GPU is needed to decide."""

from __future__ import annotations

import inspect
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from megatron_cases import ONE
from torch import Tensor

from configs.errors import ResourceError
from configs.load import load_train, parse_overrides
from megatron_train.kernels import attention_probe
from megatron_train.kernels.attention_probe import Problem, choose_attention, decide, measure
from megatron_train.model import attention
from megatron_train.model.attention import AttentionChoice, attend, by_padding, use, whole
from megatron_train.model.packing import Segments

PROBLEM = Problem(positions=48, batch=2, heads=3, head_dim=8, dtype=torch.float32, device=torch.device("cpu"))
GPU = replace(ONE, device=torch.device("cuda"))


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    use(AttentionChoice("cpu"))


# ---- kernels, right and wrong ones


def right(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    return whole(q, k, v) if segments is None else by_padding(q, k, v, segments)


class _Spoiled(torch.autograd.Function):
    """Changes nothing on the way forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.spoil = backward
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.spoil(grad), None


def raises_in_backward(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    def stop(grad: Tensor) -> Tensor:
        raise RuntimeError("head_dim > 192 is not supported in backward\nand a trace")

    return _Spoiled.apply(right(q, k, v, segments), stop)


def wrong_gradient_of_keys(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    return right(q, _Spoiled.apply(k, lambda grad: grad * 1.1), v, segments)


def sees_the_future(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).flatten(2)


def sees_other_examples(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    return whole(q, k, v)


def no_numbers(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    return right(q, k, v, segments) * float("nan")


def unavailable(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
    """As PyTorch does where the one enabled kernel cannot: reasons as warnings, then an error without any."""
    for text in (
        "Flash attention kernel not used because:",
        "Flash attention has been runtime disabled.",
        "cuDNN attention kernel not used because:",
        "head_dim should be no more than 128 (Triggered internally at /pytorch/aten/sdp_utils.cpp:600.)",
    ):
        warnings.warn(text, stacklevel=1)
    raise RuntimeError("No available kernel. Aborting execution.")


def clock(*milliseconds: float) -> Callable[[Callable[[], object]], float]:
    """Runs what it is given and says it took the next of these."""
    times = iter(milliseconds)

    def timer(run: Callable[[], object]) -> float:
        run()
        return next(times)

    return timer


# ---- choosing


def test_the_fastest_that_works_is_chosen() -> None:
    kernels = {"cudnn": right, "flash": right, "efficient": right}
    choice = decide(*measure(kernels, PROBLEM, clock(3.0, 2.0, 9.0)))
    assert choice == AttentionChoice("flash", False, {"cudnn": 3.0, "flash": 2.0, "efficient": 9.0}, {})
    assert choice.describe() == "flash (forward and backward: cudnn 3.00 ms, flash 2.00 ms, efficient 9.00 ms)"


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (raises_in_backward, "head_dim > 192 is not supported in backward"),
        (wrong_gradient_of_keys, "wrong numbers: gradient of keys differs by 10.0% from the math kernel's"),
        (sees_the_future, "wrong numbers: output differs by "),
        (no_numbers, "wrong numbers: output differs by nan"),
        (unavailable, "head_dim should be no more than 128"),
    ],
)
def test_a_kernel_that_fails_is_not_chosen_and_says_why(kernel: attention_probe.Attend, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its warnings are for the reason, not for the screen
        choice = decide(*measure({"cudnn": kernel, "efficient": right}, PROBLEM, clock(5.0)))
    assert choice.backend == "efficient" and list(choice.milliseconds) == ["efficient"]
    assert choice.failures["cudnn"].startswith(reason) and "\n" not in choice.failures["cudnn"]
    assert f"cudnn cannot: {reason}" in choice.describe()


def test_a_kernel_may_fail_at_the_real_shape_only() -> None:
    def small_only(q: Tensor, k: Tensor, v: Tensor, segments: Segments | None) -> Tensor:
        if q.shape[0] == 1000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB")
        return right(q, k, v, segments)

    problem = replace(PROBLEM, positions=1000)
    milliseconds, failures = measure({"flash": small_only, "efficient": right}, problem, clock(5.0))
    assert milliseconds == {"efficient": 5.0}
    assert failures == {"flash": "CUDA out of memory. Tried to allocate 4 GiB"}


def test_no_kernel_that_works_is_refused_with_every_reason() -> None:
    kernels = {"cudnn": unavailable, "flash": raises_in_backward, "efficient": sees_the_future}
    with pytest.raises(ResourceError) as refusal:
        decide(*measure(kernels, PROBLEM, clock()))
    for part in ("cudnn: head_dim should be", "flash: head_dim > 192", "efficient: wrong numbers: output", "next:"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("kernel", [right, sees_other_examples, sees_the_future, raises_in_backward])
def test_packed_rows_go_through_varlen_only_where_it_is_right(kernel: attention_probe.Attend) -> None:
    choice = decide(*measure({"flash": right, "varlen": kernel}, PROBLEM, clock(4.0, 1.0)))
    assert choice.backend == "flash"  # varlen is no kernel for whole texts, however fast
    assert choice.varlen == (kernel is right) == ("varlen" not in choice.failures)
    assert f"flash, packed rows {'varlen' if choice.varlen else 'padded'} (" in choice.describe()


def test_what_is_measured_on_a_gpu_is_the_runs_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], Problem]] = []

    def measured(kernels: dict[str, Any], problem: Problem, timer: object) -> tuple[dict[str, float], dict[str, str]]:
        seen.append((set(kernels), problem))
        return {"cudnn": 1.0}, {}

    monkeypatch.setattr(attention_probe, "measure", measured)
    choose_attention(load_train("1b.yaml", parse_overrides(["batch.micro_sequences=2"])), replace(GPU, tensor_size=2))
    assert choose_attention(load_train("mini_s_sft.yaml", {}), GPU).backend == "cudnn"
    (names, problem), (sft_names, sft_problem) = seen
    assert problem == Problem(4096, 2, 4, 256, torch.bfloat16, torch.device("cuda"))
    assert names == {"cudnn", "flash", "efficient"} and sft_names == names | {"varlen"}
    assert sft_problem == Problem(128, 8, 4, 16, torch.float32, torch.device("cuda"))


def test_nothing_is_measured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_probe, "measure", None)
    choice = choose_attention(load_train("mini_s_sft.yaml", {}), ONE)
    assert choice == AttentionChoice("cpu") and choice.describe() == "PyTorch's on a CPU"


def test_a_choice_is_kept_as_json() -> None:
    choice = AttentionChoice("flash", True, {"flash": 2.5, "varlen": 3.0}, {"cudnn": "no"})
    assert AttentionChoice(**json.loads(json.dumps(asdict(choice)))) == choice


# ---- making the choice effective


def test_only_the_chosen_kernel_is_enabled() -> None:
    backends = torch.backends.cuda
    enabled = (
        backends.cudnn_sdp_enabled,
        backends.flash_sdp_enabled,
        backends.mem_efficient_sdp_enabled,
        backends.math_sdp_enabled,
    )
    for number, name in enumerate(("cudnn", "flash", "efficient")):
        use(AttentionChoice(name))
        assert [is_on() for is_on in enabled] == [number == i for i in range(4)]
    # What cannot run is an error, not another kernel: here efficient, which no CPU has.
    q, k, v = PROBLEM.inputs()
    with pytest.raises(RuntimeError, match="No viable backend"):
        whole(q, k, v)
    use(AttentionChoice("cpu"))
    assert all(is_on() for is_on in enabled)
    whole(q, k, v)


def test_packed_rows_are_handed_to_varlen_as_it_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with PyTorch's own signature, which computes one segment after another."""
    signature = inspect.signature(attention.load_varlen())
    calls = 0

    def varlen(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        given = signature.bind(*args, **kwargs).arguments
        assert given["window_size"] == (-1, 0), "causal"
        assert given["cu_seq_q"].dtype == torch.int32 and torch.equal(given["cu_seq_q"], given["cu_seq_k"])
        bounds = given["cu_seq_q"].tolist()
        lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
        assert given["max_q"] == given["max_k"] == max(lengths)
        parts = zip(*(given[name].split(lengths) for name in ("query", "key", "value")), strict=True)
        heads_first = ([x.transpose(0, 1) for x in part] for part in parts)
        outs = [F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1) for q, k, v in heads_first]
        return torch.cat(outs)

    monkeypatch.setattr(attention, "load_varlen", lambda: varlen)
    assert decide(*measure({"flash": right} | _varlen_candidate(), PROBLEM, clock(1.0, 2.0))).varlen
    assert calls == 2  # checked, then timed
    problem = replace(PROBLEM, positions=30, batch=1, lengths=(5, 1, 17, 7))
    inputs, segments = problem.inputs(), problem.segments()
    padded = attend(*inputs, segments)
    use(AttentionChoice("cpu", varlen=True))
    torch.testing.assert_close(attend(*inputs, segments), padded)
    assert calls == 3
    use(AttentionChoice("cpu"))
    attend(*inputs, segments)
    assert calls == 3


def _varlen_candidate() -> dict[str, attention_probe.Attend]:
    return {name: kernel for name, kernel in attention_probe.candidates(packed=True).items() if name == "varlen"}


@pytest.mark.parametrize("lengths", [(1,), (30,), (1, 1, 1), (5, 1, 17, 7)])
def test_padded_segments_equal_an_explicit_mask(lengths: tuple[int, ...]) -> None:
    problem = replace(PROBLEM, positions=sum(lengths), batch=1, lengths=lengths)
    inputs, segments = problem.inputs(), cast(Segments, problem.segments())
    ours, theirs = by_padding(*inputs, segments), problem.reference(*inputs)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=1e-5)
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad(out, inputs, direction.to(out.dtype)) for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
