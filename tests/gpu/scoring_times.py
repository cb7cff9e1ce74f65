"""How fast one process scores a model of the paper's shapes on whatever device there is, without Ray.

In: random weights in the shapes of 240m.yaml and 1b.yaml, and rows of invented words in the columns of HellaSwag (four
long endings), BoolQ (a passage and a question) and ARC (short answers). Out: JSON with the seconds of `score_study`
from the plan to the score files, and tokens and examples a second. The first round loads, compiles and chooses a form
of attention; the second is what a study sees from its second checkpoint on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ray_eval"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from random_exports import random_export

from configs.artifacts import write_json
from configs.layout import StudyFolder
from configs.load import load_benchmark, load_train
from configs.schema import ModelShape, StudyScoring
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.scoring import ScoreOptions, score_study

ROUNDS = 2
ITEMS = {"hellaswag": 1500, "boolq": 1500, "arc_easy": 1500}
TINY_ITEMS = {"hellaswag": 6, "boolq": 6, "arc_easy": 6}
TINY_SHAPE = {"model.layers": 2, "model.hidden": 32, "model.heads": 2, "model.head_dim": 16, "model.ffn_hidden": 64}


class Words:
    """Sentences of invented words: no two rows are equal, so that nothing is scored once for several."""

    def __init__(self) -> None:
        self.draw = np.random.default_rng(0)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.vocabulary = ["".join(self.draw.choice(letters, self.draw.integers(3, 9))) for _ in range(2000)]

    def some(self, count: int) -> str:
        return " ".join(self.draw.choice(self.vocabulary, count))


def rows(slug: str, count: int, words: Words) -> list[dict[str, Any]]:
    if slug == "hellaswag":
        return [
            {
                "activity_label": words.some(2),
                "ctx_a": words.some(30) + ".",
                "ctx_b": words.some(6),
                "endings": [words.some(25) for _ in range(4)],
                "label": str(number % 4),
            }
            for number in range(count)
        ]
    if slug == "boolq":
        return [
            {"question": words.some(9), "passage": words.some(110), "answer": bool(number % 2)}
            for number in range(count)
        ]
    return [
        {
            "id": str(number),
            "question": words.some(20) + "?",
            "choices": {"text": [words.some(4) for _ in range(4)], "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[number % 4],
        }
        for number in range(count)
    ]


def llama(shape: ModelShape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn_hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context_tokens,
        "initializer_range": 0.02,
        "dtype": torch.bfloat16,
    }


def score(root: Path, scale: str, shape: ModelShape, tokenizer: Tokenizer, slugs: list[str]) -> dict[str, Any]:
    study = StudyFolder(root / "runs", "gpu")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {"rounds": []}
    for seed in range(ROUNDS):
        with torch.device(device):  # a billion random numbers are drawn in no time there
            random_export(study.run(scale, "random", seed, "pt").export(1), tokenizer, seed=seed, **llama(shape))
        exports, _ = inspect_exports(study)
        # What is scored already is skipped: each round scores the export of its seed.
        options = ScoreOptions(root, slugs, StudyScoring(), checkpoints=exports, use_ray=False)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        summary = score_study(study, options)
        tokens = summary.counts.tokens
        results["rounds"].append(
            {
                "seconds": round(summary.seconds, 2),
                "tokens_per_s": round(tokens / summary.seconds),
                "least_tokens": summary.least_tokens,
                "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
                "counts": dataclasses.asdict(summary.counts),
            }
        )
        print(f"{scale}, round {seed + 1}: {summary.seconds:.1f} s, {tokens / summary.seconds:,.0f} tokens/s")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models and a few rows")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    items, words = (TINY_ITEMS if options.tiny else ITEMS), Words()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"torch": torch.__version__, "device": name, "examples": items, "configs": {}}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for slug, count in items.items():
            path = root / "benchmarks" / slug / f"{load_benchmark(slug).split_in(local=True)}.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows(slug, count, words)), path)
        train_tokenizer(words.vocabulary, 1000, root / "tokenizer", {})
        tokenizer = Tokenizer.load(root / "tokenizer")
        for config_name in ("240m.yaml", "1b.yaml"):
            config = load_train(config_name, TINY_SHAPE | {"model.vocab": 1024} if options.tiny else {})
            found["configs"][config.scale] = score(root, config.scale, config.model, tokenizer, list(items))
            write_json(options.output, found)


if __name__ == "__main__":
    main()
