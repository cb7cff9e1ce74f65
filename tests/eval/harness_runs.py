"""Runs of lm-evaluation-harness itself on given rows, with its own task files, tracker and sample files; offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from test_prompts import TASK_FILES


def run_harness(
    export: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], output: Path, **options: Any
) -> tuple[Path, dict[str, Any]]:
    """Evaluate an export on the rows of some benchmarks; the harness's output folder of the model, and its results."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(output))
    results = simple_evaluate(
        model=_lm(export),
        model_args={"pretrained": str(export)},
        tasks=[_task(slug, benchmark_rows) for slug, benchmark_rows in rows.items()],
        bootstrap_iters=2,
        evaluation_tracker=tracker,
        task_manager=TaskManager(include_defaults=False),
        **options,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    (folder,) = output.iterdir()
    return folder, json.loads(next(folder.glob("results_*.json")).read_text())


def _task(slug: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    import datasets
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    if slug == "boolq":  # the harness reads super_glue's columns, ours are google/boolq's
        rows = [{k: v for k, v in row.items() if k != "answer"} | {"label": int(row["answer"])} for row in rows]
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / f"{TASK_FILES[slug]}.yaml")
    config = {key: value for key, value in config.items() if key not in ("tag", "group")}
    splits = {config[key] for key in ("training_split", "validation_split", "test_split") if config.get(key)}
    held = datasets.DatasetDict({split: datasets.Dataset.from_list(list(rows)) for split in splits})
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: held})


def _lm(export: Path) -> Any:
    """A causal model for the harness, one request at a time; its own HF model needs a package more (accelerate)."""
    import torch
    from lm_eval.api.model import TemplateLM
    from transformers import AutoTokenizer, LlamaForCausalLM

    class CausalLM(TemplateLM):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = AutoTokenizer.from_pretrained(export)
            self.model = LlamaForCausalLM.from_pretrained(export, dtype=torch.float32)
            self.max_length = self.model.config.max_position_embeddings

        eot_token_id = property(lambda self: self.tokenizer.eos_token_id)
        tokenizer_name = "small"

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return self.tokenizer(string, add_special_tokens=False)["input_ids"]

        @torch.no_grad()
        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            out = []
            for _texts, before, after in requests:
                ids = torch.tensor([(before + after)[-(self.max_length + 1) :]])
                logp = self.model(ids[:, :-1]).logits.log_softmax(-1)[0, -len(after) :]
                target = ids[0, -len(after) :]
                out.append((logp.gather(1, target[:, None]).sum().item(), bool((logp.argmax(-1) == target).all())))
            return out

        def get_model_info(self) -> dict[str, Any]:
            return {"model_dtype": str(self.model.dtype), "model_sha": ""}

        def chat_template(self, chat_template: bool | str = False) -> str:
            return "{user}"

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return "".join(f"<{turn['role']}>{turn['content']}\n" for turn in chat_history) + "<assistant>"

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError

    return CausalLM()
