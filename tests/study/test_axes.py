"""Every axis of a study at once: scales and a benchmark of one's own, further mixtures, seeds, recipes, milestones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from tiny_study import SHAPE, write_study

from configs.artifacts import read_json
from configs.layout import PROJECT_ROOT

RIDDLES = """slug: riddles
display: Riddles
category: wordplay
files: {test: riddles.jsonl}
split: test
columns: [riddle, options, answer]
label: answer
labels: [0, 1]
prompts:
  lm_eval: {context: "Riddle: {{ riddle }}\\nAnswer:", candidates: options}
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_axis_at_once(tmp_path: Path) -> None:
    path = write_study(tmp_path, steps=12)
    presets = {"presets": {"short": {"budget.steps": 5}, "long": {"budget.steps": 10}}}
    for name in ("tiny.yaml", "tiny_sft.yaml"):  # a second scale, and two recipes for both
        config = yaml.safe_load((tmp_path / name).read_text()) | (presets if "sft" in name else {})
        (tmp_path / name).write_text(yaml.safe_dump(config))
        config |= {"scale": "wide", "model": SHAPE | {"ffn_hidden": 48}}
        (tmp_path / name.replace("tiny", "wide")).write_text(yaml.safe_dump(config))
    (tmp_path / "riddles.yaml").write_text(RIDDLES)
    rows = [{"riddle": f"What is {i}?", "options": ["a number", "a tree"], "answer": i % 2} for i in range(12)]
    (tmp_path / "riddles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = yaml.safe_load(path.read_text())
    study["scales"] = {
        scale: {
            "config": str(tmp_path / f"{scale}.yaml"),
            "sft": {name: f"{tmp_path / scale}_sft.yaml#{name}" for name in ("short", "long")},
        }
        for scale in ("tiny", "wide")
    }
    study |= {"mixtures": ["V1C2P0", "V2C1P1"], "seeds": [0, 1], "recipes": ["short", "long"]}
    study |= {"checkpoint_tokens": {"tiny": [1024, 2048], "wide": [2048]}}
    study["benchmarks"] = ["arc_easy", "rte", str(tmp_path / "riddles.yaml")]
    path.write_text(yaml.safe_dump(study))
    place = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data"), "--workers", "2"]
    command = [sys.executable, str(PROJECT_ROOT / "study.py"), "run", str(path), *place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    folder = tmp_path / "runs" / "tiny"
    scores = pq.read_table(folder / "scores").to_pandas()
    cells = scores.groupby(["scale", "mixture", "seed", "stage", "recipe", "step"], observed=True).size().reset_index()
    pretrained = cells[cells["stage"] == "PT"]
    for scale, steps in (("tiny", [4, 8, 12]), ("wide", [8, 12])):
        found = pretrained[pretrained["scale"] == scale].groupby(["mixture", "seed"], observed=True)["step"].apply(list)
        assert list(found) == [steps] * 4
    assert set(cells["recipe"]) == {"", "short", "long"} and len(cells[cells["stage"] == "SFT"]) == 2 * 2 * 2 * 2
    assert set(scores["benchmark"]) == {"arc_easy", "rte", "riddles"}
    runs = [folder / "tiny" / "V1C2P0" / f"seed{seed}" / "pt" for seed in (0, 1)]
    first = [json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"] for run in runs]
    assert first[0] != first[1]  # other weights and another order of the data
    assert read_json(runs[0] / "DONE")["inputs"] != read_json(runs[1] / "DONE")["inputs"]
    metrics = pd.read_parquet(folder / "metrics.parquet")
    assert set(metrics["seed"]) == {0, 1} and set(metrics["step"]) == {4, 5, 8, 10, 12}
    page = (folder / "report" / "index.html").read_text()
    assert "Riddles" in page and "V2C1P1" in page
