"""The interface of apex.optimizers: arguments, where state is kept, and that a group must not be empty."""

from __future__ import annotations

from typing import Any

import torch


class FusedAdam(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019); steps are counted by group, and moments are created where none are."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        assert bias_correction and adam_w_mode and not capturable
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            _ = group["params"][0].device  # the real one reads it
            group["step"] = group.get("step", 0) + 1
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                mean, square = state["exp_avg"], state["exp_avg_sq"]
                mean.mul_(beta1).add_(weight.grad, alpha=1 - beta1)
                square.mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
                unbiased = mean / (1 - beta1 ** group["step"])
                spread = (square / (1 - beta2 ** group["step"])).sqrt() + group["eps"]
                weight.sub_(group["lr"] * (unbiased / spread + group["weight_decay"] * weight))


class FusedSGD(torch.optim.SGD):
    """Imported by megatron beside the other; not used."""
