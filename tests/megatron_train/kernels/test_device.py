"""Utilisation and peaks, against hand-computed values of published runs."""

from __future__ import annotations

import pytest
import torch

from configs.cost.model import flops_per_token
from configs.load import load_train
from megatron_train.kernels.device import memory_bytes, peak_flops, utilisation


@pytest.mark.parametrize(
    ("config", "tokens_per_s", "full", "causal"),
    # FLOPs a token: 240M 2.252 G with full attention and 1.849 G with causal; 1B 8.093 G and 7.489 G.
    [("240m.yaml", 219.7e3, 0.50, 0.4106), ("1b.yaml", 61.1e3, 0.50, 0.4626)],
)
def test_utilisation_of_both_conventions(config: str, tokens_per_s: float, full: float, causal: float) -> None:
    flops = flops_per_token(load_train(config).model)
    assert utilisation(tokens_per_s, flops, 989.5e12, 1) == pytest.approx((full, causal), rel=2e-3)
    assert utilisation(8 * tokens_per_s, flops, 989.5e12, 8).full == pytest.approx(full, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_follows_the_name(monkeypatch: pytest.MonkeyPatch, name: str, tflops: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda", 0)
    assert peak_flops(gpu, "bf16") == (None if tflops is None else tflops * 1e12)
    assert peak_flops(gpu, "fp32") is None and peak_flops(torch.device("cpu"), "bf16") is None


def test_memory_of_this_process() -> None:
    before = memory_bytes(torch.device("cpu"))
    held = torch.ones(100_000_000)
    assert memory_bytes(torch.device("cpu")) >= max(before, held.nbytes)
