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
        try:  # lines are written in order: what follows a broken one is not believed either
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
        tokens = self.pending[-1][1]
        measured = self._measured((tokens - (self.tokens_before or 0)) / (now - self.last))
        lines: list[dict[str, Any]] = []
        try:
            for (step, seen, lr, _, _), loss, norm in zip(self.pending, losses, norms, strict=True):
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise self._diverged(step, {"loss": loss, "grad_norm": norm}, "before that update")
                lines.append({"step": step, "tokens": seen, "loss": loss, "lr": lr, "grad_norm": norm, **measured})
                lines += self._spike(step, seen, loss)
        finally:
            self._append(lines)  # the steps before one that diverged are good
        self.pending, self.last, self.tokens_before = [], now, tokens
        if show and self.ranks.is_main:
            self._show(lines[-1] if "loss" in lines[-1] else lines[-2], now)

    def _measured(self, tokens_per_s: float) -> dict[str, float]:
        """Speed, memory and utilisation since the last flush: the same for all steps that are fetched together."""
        memory = round(memory_bytes(self.ranks.device) / 2**30, 3)
        found = {"tokens_per_s": round(tokens_per_s, 1), "memory_gib": memory, "time": round(time.time(), 3)}
        if self.peak is not None:
            used = utilisation(tokens_per_s, self.flops, self.peak, self.ranks.world)
            found |= {"mfu_full": round(used.full, 4), "mfu_causal": round(used.causal, 4)}
        return found

    def _show(self, line: dict[str, Any], now: float) -> None:
        """Print a step for whoever watches."""
        step = line["step"]
        left_s = (now - self.started) / (step - self.first) * (self.steps - step)
        share = ""
        if self.peak is not None:
            share = (
                f"MFU {line['mfu_full']:.1%} full, {line['mfu_causal']:.1%} causal of {self.peak / 1e12:g} TFLOP/s  "
            )
        print(
            f"step {step:>{len(str(self.steps))}}/{self.steps}  loss {line['loss']:.4f}  lr {line['lr']:.2e}  "
            f"grad {line['grad_norm']:.2f}  {line['tokens_per_s']:,.0f} tok/s  {share}{line['tokens']:,} tokens  "
            f"{line['memory_gib']:.1f} GiB  ETA {clock(left_s)}",
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

    def _diverged(self, step: int, found: dict[str, float], when: str) -> DivergedError:
        """The error that ends the run, after its record was written (main rank). found: name -> number."""
        record = self.path.parent / f"diverged-step-{step:07d}.json"
        if self.ranks.is_main:
            numbers = {name: str(value) for name, value in found.items()}  # NaN and infinity are not JSON
            write_json(record, {"step": step, **numbers, "sequences": self.describe(step)})
        shown = ", ".join(f"{name.replace('grad_norm', 'gradient norm')} {value}" for name, value in found.items())
        return DivergedError(
            f"step {step}: {shown}; stopped {when}, nothing was exported",
            where=self.path.parent,
            hint=f"see its documents in {record.name}; rerun to resume from the last checkpoint, or start a run with a "
            "lower optimizer.lr or more optimizer.warmup_steps (--study NAME, or --resume never in this folder)",
        )

    def validation(self, step: int, tokens: int, losses: dict[str, float], bytes_per_token: dict[str, float]) -> None:
        """Losses by source, already summed over ranks, and as bits a byte of the held-out text.

        Raises DivergedError (on every rank) for one that is not finite: such weights cannot be scored either, and
        metrics.jsonl could not hold it.
        """
        if wrong := {f"validation loss on {source}": x for source, x in losses.items() if not math.isfinite(x)}:
            raise self._diverged(step, wrong, "after that update")
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
            stream.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.tracking.log(lines)
