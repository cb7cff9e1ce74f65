"""The plan of the house, read from the syntax trees: who may import whom, and how much one folder holds."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from configs.runtime.versions import NO_SAY
from configs.workflow.units import CODE, KINDS

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = ("configs", "mixtures", "megatron_train", "ray_eval", "analysis")
"""In the order the data walks through them."""
LARGEST_FOLDER = 16
"""Python files that a reader still takes in at a glance."""

Imports = Mapping[str, set[str]]


def modules(root: Path) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module of the rooms; a package is its __init__.py."""
    found = {}
    for path in (path for room in ROOMS for path in (root / room).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(trees: Mapping[str, ast.Module]) -> Imports:
    """Module -> modules of the rooms that it imports, those inside functions and for type checkers too."""
    return {name: {other for other in imported(tree, trees) if other != name} for name, tree in trees.items()}


def imported(tree: ast.Module, known: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "relative imports hide where a name comes from"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield from (name for name in (inside if inside in known else node.module,) if name in known)


def circle(graph: Imports) -> list[str]:
    """One circle of the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(graph: Imports) -> list[str]:
    """Imports of a room that stands further down the data's way; analysis reads files, so it imports configs alone."""
    found = []
    for name, others in graph.items():
        room = name.partition(".")[0]
        allowed = ROOMS[: ROOMS.index(room) + 1]
        if room == "analysis" and not name.startswith("analysis.tracing"):
            allowed = ("configs", "analysis")
        found += [f"{name} -> {other}" for other in sorted(others) if other.partition(".")[0] not in allowed]
        if not name.startswith("analysis.tracing"):  # the one part of analysis that loads models: nobody builds on it
            found += [f"{name} -> {other}" for other in sorted(others) if other.startswith("analysis.tracing")]
    return found


def subrooms(graph: Imports, room: str) -> Imports:
    """The folders of a room and the modules beside them -> those that they import."""
    depth = room.count(".") + 2
    names = {name: ".".join(name.split(".")[:depth]) for name in graph if name.startswith(f"{room}.")}
    found: dict[str, set[str]] = {part: set() for part in names.values()}
    for name, part in names.items():
        found[part] |= {names[other] for other in graph[name] if other in names and names[other] != part}
    return found


@pytest.fixture(scope="module")
def graph() -> Imports:
    return imports(modules(PROJECT))


def test_no_module_imports_itself_by_way_of_others(graph: Imports) -> None:
    assert circle(graph) == []


def test_no_room_imports_one_behind_it(graph: Imports) -> None:
    assert upward(graph) == []


@pytest.mark.parametrize("room", [*ROOMS, "configs.workflow"])
def test_the_folders_of_a_room_stand_in_an_order(graph: Imports, room: str) -> None:
    assert circle(subrooms(graph, room)) == []


def test_no_folder_holds_more_than_a_reader_takes_in() -> None:
    folders = (*ROOMS, "tests")
    sizes = Counter(path.parent for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    assert {str(path.relative_to(PROJECT)): n for path, n in sizes.items() if n > LARGEST_FOLDER} == {}


ENTRIES = {
    "tokenize": ("mixtures.tokenize", "mixtures.microworld.generate", "mixtures.microworld.declaration"),
    "pretrain": ("megatron_train.pretrain",),
    "finetune": ("megatron_train.sft",),
    "score": ("ray_eval.scoring", "ray_eval.checkpoints.exports"),
    "analyse": ("analysis.scores.metrics", "analysis.report.page"),
}
"""Kind of unit -> the modules that study.py calls to make it."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_is_stale_after_any_change_of_code_that_makes_it(graph: Imports, kind: str) -> None:
    """Every module that its entries reach lies in the code that its record names, or has no say in a result."""
    reached, todo = set(ENTRIES[kind]), list(ENTRIES[kind])
    while todo:
        new = graph[todo.pop()] - reached
        reached |= new
        todo += new
    parts = [part.removesuffix(".py") for part in (*CODE[kind], *NO_SAY)]
    paths = {name.replace(".", "/") for name in reached} - {"mixtures"}  # its __init__.py holds a docstring alone
    assert {path for path in paths if not any(path == part or path.startswith(f"{part}/") for part in parts)} == set()


def test_what_is_forbidden_is_seen(tmp_path: Path) -> None:
    """The checks themselves, on a house with one fault of each kind."""
    for name, text in {
        "configs/a.py": "from configs import b",
        "configs/b.py": "def f():\n    import configs.a",
        "configs/up.py": "from mixtures.source import Source",
        "mixtures/source.py": "",
        "mixtures/x/one.py": "from mixtures.y import two",
        "mixtures/x/three.py": "",
        "mixtures/y/two.py": "from mixtures.x.three import name",
        "analysis/reads.py": "import ray_eval.score",
        "analysis/builds.py": "from analysis.tracing import model",
        "analysis/tracing/model.py": "import megatron_train.model",
        "megatron_train/model/model.py": "",
        "ray_eval/score.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = imports(modules(tmp_path))
    assert set(circle(graph)) == {"configs.a", "configs.b"}
    assert set(upward(graph)) == {
        "configs.up -> mixtures.source",
        "analysis.reads -> ray_eval.score",
        "analysis.builds -> analysis.tracing.model",
    }
    assert set(circle(subrooms(graph, "mixtures"))) == {"mixtures.x", "mixtures.y"}
    assert circle(subrooms(graph, "configs")) and not circle(subrooms(graph, "analysis"))
