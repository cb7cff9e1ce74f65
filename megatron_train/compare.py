"""Our model against transformers' on the same weights: the proof that an export means what we trained.

In: an export, or any Llama in Hugging Face's format that this code can build. Out: the largest difference of their
logits and how often they choose the same token, in fp32 on this machine's processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from configs.arguments import CommandParser, count
from configs.errors import ArtifactError, ResourceError, user_errors

SEQUENCES = 4
TOLERANCE, AGREEMENT = 1e-3, 0.999

EXAMPLES = """examples:
  python -m megatron_train.compare runs/mini/mini_s/V1P0/seed0/pt           (a finished run's last export)
  python -m megatron_train.compare runs/mini/mini_s/V1P0/seed0/pt/export/step-0000585
  python -m megatron_train.compare /models/my-llama --sequences 16
"""


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    text = "Compare an export's logits in this code and in transformers."
    parser = CommandParser(prog="python -m megatron_train.compare", description=text, examples=EXAMPLES)
    parser.add_argument("folder", type=Path, help="a finished run, an export, or another Llama")
    parser.add_argument("--sequences", type=count, default=SEQUENCES, help=f"of random tokens (default: {SEQUENCES})")
    arguments = parser.parse(argv)
    if find_spec("transformers") is None:
        raise ResourceError("transformers is not installed", hint="pip install -c constraints.txt transformers")
    # Only now: transformers may be missing, and with torch it takes seconds to import.
    from megatron_train.checkpoints.comparison import compare
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
