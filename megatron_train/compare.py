"""Our model against transformers' on the same weights: the proof that an export means what we trained.

In: an export, or any Llama in Hugging Face's format that this code can build. Out: the largest difference of their
logits and how often they choose the same token, in fp32 on this machine's processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from configs.errors import ArtifactError, ResourceError, user_errors

SEQUENCES, POSITIONS = 4, 256
TOLERANCE, AGREEMENT = 1e-3, 0.999

EXAMPLES = """examples:
  python -m megatron_train.compare runs/mini/mini_s/V1P0/seed0/pt           (a finished run's last export)
  python -m megatron_train.compare runs/mini/mini_s/V1P0/seed0/pt/export/step-0000585
  python -m megatron_train.compare /models/my-llama --sequences 16
"""


class Comparison(NamedTuple):
    largest_difference: float
    """Largest difference of any logit."""
    agreement: float
    """Share of positions at which both models find the same token likeliest."""
    spread: float
    """Standard deviation of the logits: what a difference is to be measured by."""


def compare(folder: Path, sequences: int = SEQUENCES) -> Comparison:
    """Load the folder twice, compare logits of random tokens. Raises ArtifactError or ConfigError for a bad folder."""
    import torch
    from transformers import LlamaForCausalLM

    from megatron_train.checkpoints.export import load_export, read_export, shape_of
    from megatron_train.model.model import build_model
    from megatron_train.ranks import parallel

    read_export(folder)
    shape = shape_of(folder)
    ranks = parallel.initialise(1, 1)
    try:
        model = build_model(shape, tensor_parallel=1, device=torch.device("cpu"), seed=0).eval()
        load_export(folder, model, shape, ranks)
        theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, shape.vocab, (sequences, min(POSITIONS, shape.context_tokens)), generator=draw)
        with torch.no_grad():
            ours, reference = model.logits(tokens), theirs(tokens).logits
    finally:
        parallel.shut_down()
    same = (ours.argmax(-1) == reference.argmax(-1)).float().mean().item()
    return Comparison((ours - reference).abs().max().item(), same, reference.std().item())


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m megatron_train.compare",
        description="Compare an export's logits in this code and in transformers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a finished run, an export, or another Llama")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help=f"of random tokens (default: {SEQUENCES})")
    arguments = parser.parse_args(argv)
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise ResourceError("transformers is not installed", hint="pip install -c constraints.txt transformers")
    from megatron_train.sft import find_parent

    found = compare(find_parent(arguments.folder), arguments.sequences)
    print(
        f"largest difference {found.largest_difference:.2e} (logits spread over {found.spread:.2f}), "
        f"same likeliest token at {found.agreement:.3%} of positions"
    )
    if found.largest_difference > TOLERANCE or found.agreement < AGREEMENT:
        raise ArtifactError(
            "the two models differ", where=arguments.folder, valid=f"at most {TOLERANCE:g}, at least {AGREEMENT:.1%}"
        )


if __name__ == "__main__":
    main()
