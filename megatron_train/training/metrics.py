"""metrics.jsonl and the printed lines of a run.

In: loss and gradient norm of each step, as tensors. Out: one JSON object a step, appended and synced, and now and then
a line for the reader. Why tensors: asking a GPU for a number makes it wait, so numbers are fetched in batches. A loss
far above the recent ones, or one that is not finite, is recorded with the documents of its step.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.artifacts import write_json, write_text
from configs.clock import clock
from configs.cost.model import Flops
from configs.errors import DivergedError
from configs.untrusted.checks import parse_json
from megatron_train.kernels.device import memory_bytes, utilisation
from megatron_train.ranks.parallel import Ranks
from megatron_train.training.tracking import Tracking

SPIKE_WINDOW, SPIKE_AFTER = 128, 32
"""Steps that a loss is compared with, and how few of them are enough."""
SPIKE_SIGMAS = 6.0


def keep_until(path: Path, step: int) -> list[float]:
    """Drop the lines after `step` and a half-written last one: what a resumed run will write again.

    Returns the losses that stay.
    """
    if not path.is_file():
        return []
    kept, losses = [], []
    for line in path.read_text(errors="replace").splitlines():
        try:
            if (value := parse_json(line))["step"] <= step:
                kept.append(line + "\n")
                losses += [float(value["loss"])] if "loss" in value else []
        except (ValueError, LookupError, TypeError):
            break
    write_text(path, "".join(kept))
    return losses


class Metrics:
    """Collects steps; `flush` fetches, checks, writes and (main rank) prints them."""

    def __init__(
        self,
        path: Path,
        ranks: Ranks,
        steps: int,
        resumed_at: int,
        losses: list[float],
        describe: Callable[[int], list[dict[str, Any]]],
        flops: Flops,
        peak: float | None,
        tracking: Tracking,
    ) -> None:
        """`losses` up to the step resumed at (main rank); `describe` says what the sequences of a step were.

        `flops` of a token and the `peak` of a device in FLOP/s (None: not known) give the utilisation.
        """
        self.path, self.ranks, self.steps, self.first = path, ranks, steps, resumed_at
        self.flops, self.peak, self.tracking = flops, peak, tracking
        self.recent = deque(losses, maxlen=SPIKE_WINDOW)
        self.describe = describe
        self.pending: list[tuple[int, int, float, Tensor, Tensor]] = []
        self.started = self.last = time.perf_counter()
        self.tokens_before: int | None = None

    def add(self, step: int, tokens: int, step_tokens: int, lr: float, loss: Tensor, norm: Tensor) -> None:
        """`tokens` trained on so far, this step included; `loss` is this rank's part of the step's mean loss."""
        if self.tokens_before is None:
            self.tokens_before = tokens - step_tokens
        self.pending.append((step, tokens, lr, loss, norm))

    def flush(self, *, show: bool = False) -> None:
        """Write what is pending. Raises DivergedError (on every rank) at the first loss or norm that is not finite."""
        if not self.pending:
            return
        losses = self.ranks.sum_over_data(torch.stack([loss for *_, loss, _ in self.pending])).tolist()
        norms = torch.stack([norm for *_, norm in self.pending]).tolist()
        now = time.perf_counter()
        step, tokens, lr = self.pending[-1][:3]
        speed = (tokens - (self.tokens_before or 0)) / (now - self.last)
        memory, mfu = round(memory_bytes(self.ranks.device) / 2**30, 3), {}
        if self.peak is not None:
            used = utilisation(speed, self.flops, self.peak, self.ranks.world)
            mfu = {"mfu_full": round(used.full, 4), "mfu_causal": round(used.causal, 4)}
        lines: list[dict[str, Any]] = []
        for (at, seen, rate, _, _), loss, norm in zip(self.pending, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._append(lines)
                raise self._diverged(at, loss, norm)
            line = {"step": at, "tokens": seen, "loss": loss, "lr": rate, "grad_norm": norm}
            clocked = {"tokens_per_s": round(speed, 1), "memory_gib": memory, "time": round(time.time(), 3)}
            lines.append(line | clocked | mfu)
            lines += self._spike(at, seen, loss)
        self._append(lines)
        self.pending, self.last, self.tokens_before = [], now, tokens
        if show and self.ranks.is_main:
            left = (now - self.started) / (step - self.first) * (self.steps - step)
            share = ""
            if mfu and self.peak:
                share = (
                    f"MFU {mfu['mfu_full']:.1%} full, {mfu['mfu_causal']:.1%} causal of {self.peak / 1e12:g} TFLOP/s  "
                )
            print(
                f"step {step:>{len(str(self.steps))}}/{self.steps}  loss {losses[-1]:.4f}  lr {lr:.2e}  "
                f"grad {norms[-1]:.2f}  {speed:,.0f} tok/s  {share}{tokens:,} tokens  "
                f"{memory:.1f} GiB  ETA {clock(left)}",
                flush=True,
            )

    def _spike(self, step: int, tokens: int, loss: float) -> list[dict[str, Any]]:
        """A line about a loss far above the recent ones; none otherwise."""
        found: list[dict[str, Any]] = []
        if self.ranks.is_main and len(self.recent) >= SPIKE_AFTER:
            mean, deviation = float(np.mean(self.recent)), float(np.std(self.recent))
            if loss > mean + SPIKE_SIGMAS * deviation:
                about = {"loss": loss, "mean": mean, "deviation": deviation, "sequences": self.describe(step)}
                found.append({"step": step, "tokens": tokens, "spike": about})
                print(f"  spike       step {step}: loss {loss:.4f}, recently {mean:.4f} ± {deviation:.4f}", flush=True)
        self.recent.append(loss)
        return found

    def _diverged(self, step: int, loss: float, norm: float) -> DivergedError:
        record = self.path.parent / f"diverged-step-{step:07d}.json"
        if self.ranks.is_main:
            write_json(
                record, {"step": step, "loss": str(loss), "grad_norm": str(norm), "sequences": self.describe(step)}
            )
        return DivergedError(
            f"step {step}: loss {loss}, gradient norm {norm}; stopped before that update, nothing was exported",
            where=self.path.parent,
            hint=f"see its documents in {record.name}; rerun to resume from the last checkpoint, or start a run with a "
            "lower optimizer.lr or more optimizer.warmup_steps (--study NAME, or --resume never in this folder)",
        )

    def validation(self, step: int, tokens: int, losses: dict[str, float], bytes_per_token: dict[str, float]) -> None:
        """Losses by source, already summed over ranks, and as bits a byte of the held-out text."""
        bits = {source: loss / math.log(2) / bytes_per_token[source] for source, loss in losses.items()}
        self._append([{"step": step, "tokens": tokens, "validation": losses, "bits_per_byte": bits}])
        if self.ranks.is_main:
            shown = (f"{source} {loss:.4f} ({bits[source]:.3f})" for source, loss in losses.items())
            print("  validation  " + "  ".join(shown) + "  nats a token (bits a byte)", flush=True)
        self.last = time.perf_counter()

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if not self.ranks.is_main or not lines:
            return
        with self.path.open("a") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.tracking.log(lines)
