"""Every command of the README and of docs/cli.md runs as typed (long ones shortened by overrides), in their order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
SHORT = "budget.tokens=20480 checkpoint_every_steps=0"
SFT_SHORT = "budget.steps=3"

# README command -> (what is added or changed to make it short, its exit code)
RUNS: dict[str, tuple[str, int]] = {
    "make study": ("make -n study", 0),
    "make test": ("make -n test", 0),
    "make study STUDY=configs/studies/real_small.yaml DATA=../shared/data": ("make -n {}", 0),
    "python -m mixtures.microworld.generate": ("{} --megabytes 0.4", 0),
    "python -m mixtures.tokenize --study mini": ("{}", 0),
    "python -m mixtures.verify --study mini": ("{}", 0),
    "python -m mixtures.show --study mini --mixture V1P0": ("{}", 0),
    "python -m mixtures.show --study mini --scale mini_s --mixture V1P0 --step 12": ("{}", 0),
    "python -m mixtures.contamination --study mini": ("{}", 0),
    "python -m mixtures.statistics --study mini": ("{}", 0),
    "torchrun megatron_train/pretrain.py --config configs/mini_s.yaml": (f"{{}} {SHORT}", 0),
    "torchrun --nproc-per-node 2 megatron_train/pretrain.py --config configs/mini_s.yaml parallel.tensor=2": (
        f"{{}} {SHORT} seed=1",
        0,
    ),
    "python megatron_train/sft.py --config configs/mini_s_sft.yaml --parent runs/by-hand/mini_s/V1P0/seed0/pt": (
        f"{{}} {SFT_SHORT}",
        0,
    ),
    "python -m megatron_train.compare runs/by-hand/mini_s/V1P0/seed0/pt": ("{}", 0),
    "python megatron_train/pretrain.py --config configs/1b.yaml --dry-run --gpu H100 --gpus 64": ("{}", 0),
    "python ray_eval/score.py --study by-hand --data-root data/microworld": ("{} --limit 5", 0),
    "python -m ray_eval.export_results --study by-hand --out lm_eval_results": ("{}", 0),
    "python -m ray_eval.import_results --help": ("{}", 0),
    "python -m analysis.tables --study mini": ("python -m analysis.tables --study by-hand", 0),
    "python -m analysis.tables --study mini --table 1,2,3,4": (
        "python -m analysis.tables --study by-hand --table 1,2,3,4",
        0,
    ),
    "python -m analysis.figures --study mini --out figures": (
        "python -m analysis.figures --study by-hand --out figures",
        0,
    ),
    "python -m analysis.figures --study mini --out figures --format pdf": (
        "python -m analysis.figures --study by-hand --out figures --format pdf",
        0,
    ),
    "python -m analysis.figures --paper --out figures": ("{}", 0),
    "python -m analysis.compare runs/by-hand/scores/mini_s/V1P0/seed0/pt"
    " runs/by-hand/scores/mini_s/V1P0/seed0/sft-mini": ("{}", 0),
    "python -m analysis.planner --study mini --r 0.6 --difference 2": (
        "python -m analysis.planner --study by-hand --r 0.6 --difference 2",
        0,
    ),
    "python study.py status mini": ("{}", 2),  # no such study in the empty folder: a message, no traceback
    "python study.py collect mini --out mini.parquet": (
        "python study.py collect by-hand --out mini.parquet",
        5,  # of seed 1 nothing was fine-tuned: a cell is missing
    ),
    "python study.py why mini table5 hellaswag mini_m accuracy": ("python study.py why by-hand table5 hellaswag", 0),
    "python study.py publish mini --out mini.zip": ("python study.py publish by-hand --out mini.zip", 0),
    "python -m analysis.tables --study mini.zip": ("{}", 0),
    "python study.py clean mini --exports": ("{}", 2),
    "python study.py plan paper --gpu H100 --gpus 64 --price 2.5": ("{}", 0),
    # Without data and a GPU: the plan, what is missing, and exit code 2, which torchrun turns into its own 1.
    "torchrun megatron_train/pretrain.py --config configs/1b.yaml": ("{}", 1),
}


PAGES = ("README.md", "docs/cli.md")


def commands() -> list[str]:
    blocks = [b for page in PAGES for b in re.findall(r"```bash\n(.*?)```", (PROJECT / page).read_text(), re.DOTALL)]
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_is_covered() -> None:
    assert sorted(set(commands())) == sorted(RUNS)


TREES = "configs|docs|tests|ray_eval|mixtures|megatron_train|analysis"


@pytest.mark.parametrize(
    "page", sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]), ids=lambda path: path.name
)
def test_files_and_folders_named_exist(page: Path) -> None:
    """Paths between backticks (perhaps with ::name), and links to files."""
    text = page.read_text()
    for name in re.findall(rf"`((?:{TREES})/[\w./]*?)(?:::\w+)?`", text):
        planned = name.startswith(("mixtures/optimize", "analysis/tracing"))
        assert planned or (PROJECT / name).exists() or (page.parent / name).exists(), name
    for name in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / name).exists(), name


def test_names_after_two_colons_are_there() -> None:
    """`configs/workflow/units.py::CODE`"""
    for page in (PROJECT / "docs/architecture.md", PROJECT / "CONTRIBUTING.md"):
        for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text()):
            assert re.search(rf"^(?:class |def |){name}\b", (PROJECT / file).read_text(), re.MULTILINE), (file, name)


def test_there_is_one_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version  # type: ignore[index]


def test_the_figure_of_the_readme_is_what_the_command_draws(tmp_path: Path) -> None:
    draw = [sys.executable, "-m", "analysis.figures", "--paper", "--out", str(tmp_path)]
    subprocess.run(draw, cwd=PROJECT, check=True, capture_output=True)
    assert (tmp_path / "published_intervals.svg").read_text() == (PROJECT / "docs/published_intervals.svg").read_text()
    assert "7 of 20 with q" in (tmp_path / "published_intervals.svg").read_text()


@pytest.mark.parametrize(
    ("variables", "started"),
    [
        ([], "configs/studies/mini.yaml"),
        (["DATA=/x"], "configs/studies/real_small.yaml --documents /x"),  # the miniature one generates its documents
        (["DATA=/x", "STUDY=mine"], "mine --documents /x"),
    ],
)
def test_make_study_runs_one_that_reads_the_folder(variables: list[str], started: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.run(
        ["make", "-n", "study", *variables], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[-1].strip().endswith(f"study.py run {started}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_run_in_order(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in {line.split("/")[0] for line in tracked.splitlines()}:
        (tmp_path / name).symlink_to(PROJECT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(PROJECT)}
    for variable in ("MAGIC_DATA", "MAGIC_RUNS"):
        environment.pop(variable, None)
    for readme in commands():
        changed, code = RUNS[readme]
        arguments = shlex.split(changed.format(readme.removeprefix("make ") if "make -n" in changed else readme))
        result = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        shown = f"{' '.join(arguments)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        assert result.returncode == code, shown
        if code == 1:
            assert "cannot start; missing:" in result.stderr and "parameters" in result.stdout, shown


@pytest.mark.slow
def test_make_study_runs_any_study(tmp_path: Path) -> None:
    """`make study` itself, on the environment that is there, with a study of seconds."""
    if not (PROJECT / ".venv" / ".ready").is_file():
        pytest.skip("the tests run in an environment that make did not create")
    from tiny_study import write_study

    study = write_study(tmp_path, steps=12)
    # A make that runs the tests must not turn this one into a nested make, which speaks of its directories.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"MAGIC_DATA": str(tmp_path / "data"), "MAGIC_RUNS": str(tmp_path / "runs")}
    result = subprocess.run(
        ["make", "study", f"STUDY={study}"], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.strip().endswith("index.html")
