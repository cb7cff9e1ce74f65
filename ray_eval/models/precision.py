"""Names of precisions, and what to do where one is too narrow for a model's numbers."""

from __future__ import annotations

STORED = {"bfloat16": "bf16", "float16": "fp16"}
"""torch's name of a type -> the precision; any other is computed in fp32."""
WIDER = {
    "fp16": "fp16 ends at 65,504: score it with --precision bf16 or fp32 (in a study's YAML: scoring.precision)",
    "bf16": "score it with --precision fp32 (in a study's YAML: scoring.precision)",
    "fp32": "its training diverged, or its files are damaged: take another checkpoint, or copy it again",
}
"""What to do about numbers that are not finite, by the precision in which they were computed."""


def precision_of(dtype: object) -> str:
    """fp32, bf16 or fp16, of a torch.dtype or its name."""
    return STORED.get(str(dtype).removeprefix("torch."), "fp32")
