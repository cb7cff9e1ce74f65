"""YAML: whatever a file holds, it becomes a config or one message; it neither runs code nor fills the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import damaged, examples, odd_values, read_or_refuse, retyped, within_memory
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.layout import CONFIG_ROOT, StudyFolder
from configs.load import load, load_mixture, parse_overrides, parse_yaml
from configs.schema import BenchmarkConfig, MixtureConfig, Model, SourcesConfig, StudyConfig, TrainConfig

KINDS: dict[str, type[Model]] = {
    "studies/mini.yaml": StudyConfig,
    "mini_s_sft.yaml": TrainConfig,
    "mixtures/V1P0.yaml": MixtureConfig,
    "benchmarks/arc_easy.yaml": BenchmarkConfig,
    "sources.yaml": SourcesConfig,
}


def tree_of(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((CONFIG_ROOT / name).read_text())
    return tree


@pytest.mark.parametrize("name", KINDS)
@examples(25)
@given(data=st.data())
def test_a_damaged_config_is_read_or_refused(name: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("y") / "config.yaml"
    path.write_bytes(data.draw(damaged((CONFIG_ROOT / name).read_bytes())))
    read_or_refuse(lambda: load(KINDS[name], path))


@pytest.mark.parametrize("name", KINDS)
@examples(25)
@given(data=st.data())
def test_values_of_other_types_are_refused(name: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("y") / "config.yaml"
    path.write_text(yaml.safe_dump(data.draw(retyped(tree_of(name)))), encoding="utf-8", errors="replace")
    read_or_refuse(lambda: load(KINDS[name], path))


@examples(150)
@given(st.text(alphabet="ab01:-{}[],&*<!|>%@`'\"\n #?~.eE+_xo", max_size=40))
@example("!!python/object/apply:os.system [true]")
@example("!!int x")
@example("!!map [1]")
@example("!!float {}")
@example("!!timestamp x")
@example("2001-99-99")
@example("9" * 5000)
@example("0x" + "f" * 5000)
@example("[" * 100_000)
@example("? [a]\n: b")
@example("<<: 1")
@example("a: &a [*a]")
@example("&a {<<: *a}")
@example("\0")
@example("%YAML 9.9\n---\na")
def test_any_text_is_yaml_or_refused(text: str) -> None:
    read_or_refuse(lambda: parse_yaml(text, "a file"))
    read_or_refuse(lambda: parse_overrides([text]))


@examples(50)
@given(odd_values)
def test_a_study_that_is_no_study(tmp_path_factory: Any, value: Any) -> None:
    path = tmp_path_factory.mktemp("y") / "study.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8", errors="replace")
    assert isinstance(read_or_refuse(lambda: load(StudyConfig, path)), ConfigError)


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "study.yaml"
    for tag in ("object/apply:os.mkdir", "object/new:pathlib.Path", "name:os.system", "module:os"):
        path.write_text(f"name: !!python/{tag} [{mark}]\n")
        with pytest.raises(ConfigError, match="could not determine a constructor"):
            load(StudyConfig, path)
    assert not mark.exists()


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: x\nscales: {{}}\n{laughs(9)}\n")
    code = """
    from pathlib import Path
    from configs.load import load
    from configs.schema import StudyConfig
    start()
    load(StudyConfig, Path(sys.argv[1]))
    """
    assert "more than 100,000 values" in within_memory(code, path, limit_mib=32)
    parse_yaml(laughs(4), path)  # what a person might write is read: 11,112 values


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ConfigError, match="1,099,511,627,776 bytes of YAML"):
        load(StudyConfig, path)


ESCAPES = ("../x", "..", ".", "/etc", "a/b", "a\\b", "a\0b", "", "-rf", "a b", "$(id)", "a;b", "a\nb", "ü", "x" * 101)


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize(
    "change",
    [
        lambda tree, name: tree | {"name": name},
        lambda tree, name: tree | {"mixtures": [name]},
        lambda tree, name: tree | {"recipes": [name], "scales": {"s": {"config": "c", "sft": {name: "c"}}}},
        lambda tree, name: tree | {"scales": {name: next(iter(tree["scales"].values()))}},
        lambda tree, name: tree | {"tokenizer": {"name": name}},
    ],
    ids=["study", "mixture", "recipe", "scale", "tokenizer"],
)
def test_names_that_become_paths_are_names(change: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    tree = change(tree_of("studies/mini.yaml") | {"extra_seeds": {}, "checkpoint_tokens": {}}, name)
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    with pytest.raises(ConfigError, match="should match pattern"):
        load(StudyConfig, path)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_run_folder_outside_its_study(name: str, tmp_path: Path) -> None:
    for parts in ((name, "s", "m"), ("a", name, "m"), ("a", "s", name)):
        with pytest.raises(ConfigError, match="a name of at most 100 letters"):
            StudyFolder(tmp_path, parts[0]).run(*parts[1:], 0, "pt")
    with pytest.raises(ConfigError):
        load_mixture(name)
