"""YAML files and dotted overrides to validated models, and back.

In: a path, overrides such as `model.layers=4`, an optional preset of the file. Out: a frozen model of
`configs.schema`. Every refusal names the file, the key, the value found and what would be valid.

A training YAML may hold `presets: {name: {dotted.key: value}}`: named readings of the same recipe
(`configs/1b_sft.yaml#text`).
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from configs.artifacts import write_text
from configs.errors import ConfigError
from configs.layout import CONFIG_ROOT
from configs.schema import (
    BenchmarkConfig,
    MixtureConfig,
    Model,
    SourcesConfig,
    StudyConfig,
    TrainConfig,
)
from configs.untrusted.checks import YAML_BYTES, YAML_NODES, check_name

M = TypeVar("M", bound=Model)

# Order of Table 4; every list of benchmarks follows it.
BENCHMARKS = (
    *("hellaswag", "piqa", "copa", "siqa", "commonsense_qa", "winogrande", "boolq"),
    *("arc_challenge", "arc_easy", "sciq", "openbookqa"),
    *("mnli", "qnli", "rte", "cb"),
    *("qqp", "mrpc", "wic", "wsc", "multirc"),
)
PAPER_MIXTURES = tuple(f"V{v}P{p}" for v in (1, 2, 3) for p in (0, 1, 2))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError for a missing file or malformed YAML, with its line."""
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(
            "no such config file", where=path, valid=", ".join(siblings) or "a path such as configs/mini_s.yaml"
        )
    if (size := path.stat().st_size) > YAML_BYTES:
        raise ConfigError(f"{size:,} bytes of YAML", where=path, valid=f"at most {YAML_BYTES:,}")
    try:
        value = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"), path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"not a text file ({error})", where=path, valid="UTF-8") from None
    if not isinstance(value, dict):
        raise ConfigError(f"expected a mapping of keys, found {_shown(value)}", where=path)
    return value


@functools.lru_cache(maxsize=64)
def _parsed(text: str, where: Path) -> Any:
    """`parse_yaml`, once for the many runs of a study that share a file."""
    return parse_yaml(text, where)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-3 is a number, that a key must not come twice, and that aliases may
    neither hold themselves nor repeat what they stand for without end.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._size(node, {})
        return node

    def _size(self, node: yaml.Node, known: dict[int, int]) -> int:
        """Nodes in `node` with every alias written out; known: of those seen, 0 of those that are being counted."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if known.get(id(node)) == 0:
            raise yaml.MarkedYAMLError(
                problem="an alias stands inside what it stands for", problem_mark=node.start_mark
            )
        if id(node) in known:
            return known[id(node)]
        known[id(node)] = 0
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        size = 1 + sum(self._size(part, known) for part in parts)
        if size > YAML_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {YAML_NODES:,} values", problem_mark=node.start_mark)
        known[id(node)] = size
        return size

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for index, key in enumerate(keys):
            if key.value in names[:index]:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} comes twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that _Loader would take for numbers."""


_EXPONENT = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$")
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(text: str, where: object) -> Any:
    """Raises ConfigError with line and column for malformed YAML."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ConfigError("not valid YAML: it is nested too deeply", where=where) from None
    except Exception as error:  # PyYAML's own, and what int(), float(), datetime() and its own code say of odd scalars
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"not valid YAML: {problem}", where=where) from None


def set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    """tree["a"]["b"] = value for the key "a.b"; intermediate mappings are made."""
    *parents, leaf = key.split(".")
    if not all((*parents, leaf)):
        raise ConfigError(f"override {key!r} has an empty part", valid="e.g. model.layers")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {key}: {parent} is not a mapping, it is {_shown(child)}")
        tree = child
    tree[leaf] = value


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """["model.layers=4"] -> {"model.layers": 4}; values are read as YAML."""
    overrides = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r} is not of the form key=value", valid="e.g. model.layers=4")
        overrides[key.strip()] = parse_yaml(text, f"override {item!r}")
    return overrides


def validate(kind: type[M], tree: Mapping[str, Any], where: object) -> M:
    """Build a model or raise one ConfigError that lists every wrong key."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(kind, item) for item in error.errors()]
        raise ConfigError("\n  ".join(lines), where=where) from None


def _explain(kind: type[BaseModel], item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        names = _fields_at(kind, item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
        guess = f"; did you mean {close[0]}?" if close else ""
        return f"{key}: unknown key{guess} (valid: {', '.join(names)})"
    if item["type"] == "missing":
        return f"{key}: required, but missing"
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    found = item.get("input")
    shown = f" (found {_shown(found)})" if not isinstance(found, dict) else ""
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _shown(value: Any) -> str:
    """`value` as a reader of YAML knows it."""
    if value is None:
        return "nothing"
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields_at(kind: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the model nested at `path`."""
    current: Any = kind
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        args = [a for a in getattr(current, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = args[0] if args else current
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def load(kind: type[M], path: str | Path, overrides: Mapping[str, Any] | None = None, preset: str | None = None) -> M:
    """Read `path` as `kind`, apply the preset, then the overrides.

    Raises ConfigError naming file, key, value and what would be valid.
    """
    path = Path(path)
    tree = read_yaml(path)
    presets = tree.pop("presets", None) or {}
    if not isinstance(presets, dict) or not all(
        isinstance(p, dict) and all(isinstance(key, str) for key in p) for p in presets.values()
    ):
        raise ConfigError("presets: must map each name to {dotted.key: value}", where=path)
    if preset is not None:
        if preset not in presets:
            raise ConfigError(f"no preset {preset!r}", where=path, valid=", ".join(presets) or "this file has none")
        overrides = presets[preset] | dict(overrides or {})
    for key, value in (overrides or {}).items():
        set_dotted(tree, key, value)
    return validate(kind, tree, path)


def save(config: Model, path: Path) -> None:
    """Write the resolved config, atomically."""
    write_text(path, dump_yaml(config.model_dump(mode="json")))


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """What `read_yaml` reads as the same tree, keys in their order."""
    return str(yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False))


# ---------------------------------------------------------------------------------------------- the project's own


def find_config(given: str | Path) -> Path:
    """`given` itself, else a path relative to configs/, else the name of a study; unchanged where nothing is found."""
    for path in (Path(given), CONFIG_ROOT / given, CONFIG_ROOT / "studies" / f"{given}.yaml"):
        if path.is_file():
            return path
    return Path(given)


def load_train(spec: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """`spec` is a path (see find_config), or `path#preset`."""
    path, _, preset = str(spec).partition("#")
    return load(TrainConfig, find_config(path), overrides, preset or None)


@functools.cache
def load_sources() -> SourcesConfig:
    """configs/sources.yaml and every configs/sources_*.yaml: a user's own entries in a file (or link) of their own.

    Raises ConfigError for a name that two of them define.
    """
    paths = [CONFIG_ROOT / "sources.yaml", *sorted(CONFIG_ROOT.glob("sources_*.yaml"))]
    tree: dict[str, dict[str, Any]] = {"sources": {}, "sft": {}}
    for path in paths:
        for group, entries in load(SourcesConfig, path):
            for name, spec in entries.items():
                if name in tree[group]:
                    raise ConfigError(f"{group}.{name}: defined a second time", where=path, valid="another name")
                tree[group][name] = spec
    return SourcesConfig(**tree)


@functools.cache
def load_mixture(name: str) -> MixtureConfig:
    """configs/mixtures/<name>.yaml; also refuses sources that configs/sources.yaml does not know."""
    path = CONFIG_ROOT / "mixtures" / f"{check_name(name, 'the mixture')}.yaml"
    mixture = load(MixtureConfig, path)
    known = load_sources().sources
    for source in mixture.weights:
        if source not in known:
            raise ConfigError(f"weights.{source}: unknown source", where=path, valid=", ".join(known))
    if mixture.name != name:
        raise ConfigError(f"name: {mixture.name!r} differs from the file name", where=path, valid=name)
    return mixture


def load_benchmark(name: str) -> BenchmarkConfig:
    """One of BENCHMARKS by its slug, or a user's own by the path of its YAML file (see find_config)."""
    if name in BENCHMARKS:
        return _paper_benchmark(name)
    if not name.endswith((".yaml", ".yml")):
        raise ConfigError(f"unknown benchmark {name!r}", valid=f"{', '.join(BENCHMARKS)}, or the path of a YAML file")
    path = find_config(name)
    spec = load(BenchmarkConfig, path)
    if spec.slug in BENCHMARKS:
        raise ConfigError(f"slug: {spec.slug!r} is one of the paper's 20", where=path, valid="a slug of your own")
    files = {split: str(path.parent.resolve() / Path(file).expanduser()) for split, file in spec.files.items()}
    return spec.model_copy(update={"files": files})


@functools.cache
def _paper_benchmark(slug: str) -> BenchmarkConfig:
    return load(BenchmarkConfig, CONFIG_ROOT / "benchmarks" / f"{slug}.yaml")


def load_benchmarks(names: Iterable[str] = ()) -> list[BenchmarkConfig]:
    """The named benchmarks (all 20 if none is named), in the order of Table 4, then as given.

    Raises ConfigError for one that is named twice.
    """
    specs = [load_benchmark(name) for name in names] or [load_benchmark(slug) for slug in BENCHMARKS]
    slugs = [spec.slug for spec in specs]
    if twice := [slug for slug in slugs if slugs.count(slug) > 1]:
        raise ConfigError(f"benchmark {twice[0]!r} is named twice", valid="each once")
    return sorted(specs, key=lambda spec: BENCHMARKS.index(spec.slug) if spec.slug in BENCHMARKS else len(BENCHMARKS))


def load_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """A study (see find_config) whose mixtures, benchmarks, scales and presets all load."""
    found = find_config(path)
    if not found.is_file():
        known = sorted(p.stem for p in (CONFIG_ROOT / "studies").glob("*.yaml"))
        raise ConfigError("no such config file", where=found, valid=f"{', '.join(known)}, or the path of a YAML file")
    study = load(StudyConfig, found, overrides)
    for mixture in study.mixtures:
        load_mixture(mixture)
    load_benchmarks(study.benchmarks)
    for scale in study.scales:
        pretrain_config(study, scale, study.mixtures[0], seed=0)
        for recipe in study.recipes:
            sft_config(study, scale, recipe, seed=0)
    return study


def pretrain_config(study: StudyConfig, scale: str, mixture: str, seed: int) -> TrainConfig:
    """The resolved pretraining config of one run of a study."""
    overrides = dict(study.overrides) | {
        "data.mixture": mixture,
        "data.tokenizer": study.tokenizer.name,
        "seed": seed,
        "checkpoint_tokens": list(study.checkpoint_tokens.get(scale, ())),
    }
    config = load_train(study.scales[scale].config, overrides)
    return _fits(study, scale, config)


def sft_config(study: StudyConfig, scale: str, recipe: str, seed: int) -> TrainConfig:
    """The resolved fine-tuning config of a study's recipe; `TrainConfig.of` names the model that it starts from."""
    overrides = dict(study.overrides) | {"data.tokenizer": study.tokenizer.name, "seed": seed, "recipe": recipe}
    return _fits(study, scale, load_train(study.scales[scale].sft[recipe], overrides))


def _fits(study: StudyConfig, scale: str, config: TrainConfig) -> TrainConfig:
    if config.scale != scale:
        raise ConfigError(f"scale {config.scale!r} of the config differs from the study's key {scale!r}", where=scale)
    if config.model.vocab < study.tokenizer.vocab:
        raise ConfigError(
            f"model.vocab ({config.model.vocab}) is smaller than the tokenizer ({study.tokenizer.vocab} entries)",
            where=f"study {study.name}, scale {scale}",
            valid=f"model.vocab >= {study.tokenizer.vocab}",
        )
    return config
