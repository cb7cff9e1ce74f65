"""A new source is one YAML entry: in configs/sources.yaml or in a file of the user's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.layout import CONFIG_ROOT
from configs.load import load_mixture, load_sources
from configs.schema import SourceSpec
from mixtures.sources.source import Source


@pytest.fixture
def own_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project's configs, to add to."""
    root = tmp_path / "configs"
    shutil.copytree(CONFIG_ROOT, root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr("configs.load.CONFIG_ROOT", root)
    caches = (load_sources, load_mixture)
    for cache in caches:
        cache.cache_clear()
    yield root
    for cache in caches:
        cache.cache_clear()


def test_one_entry_adds_a_source_to_mixtures(own_configs: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "elsewhere" / "2026"
    corpus.mkdir(parents=True)
    (corpus / "notes.jsonl").write_text(json.dumps({"body": "a note"}) + "\n")
    (own_configs / "sources_mine.yaml").write_text(
        f"sources:\n  notes: {{kind: web, display: Notes, files: {corpus.parent}/**/*.jsonl, text_column: body}}\n"
        f"sft:\n  talks: {{files: {corpus}/*.parquet}}\n"
    )
    mixture = own_configs / "mixtures" / "mine.yaml"
    mixture.write_text("name: mine\nweights: {notes: 0.5, refinedweb: 0.5}\n")
    assert load_mixture("mine").weights == {"notes": 0.5, "refinedweb": 0.5}
    assert "talks" in load_sources().sft
    for root in (None, tmp_path):  # wherever the other sources of the study are
        (unit,) = Source("notes", load_sources().sources["notes"], root).units()
        assert list(unit.documents()) == [(0, "a note")]


def test_a_name_is_given_once(own_configs: Path) -> None:
    (own_configs / "sources_mine.yaml").write_text("sources: {books: {kind: web, display: Mine, files: /x}}\n")
    with pytest.raises(ConfigError, match=r"sources_mine\.yaml: sources\.books: defined a second time"):
        load_sources()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{kind: web, display: Mine}", "no place to read from: give hub, folder or files"),
        ("{kind: web, display: Mine, files: /x, folder: y}", "files takes the place of folder"),
        ("{kind: web, display: Mine, file: /x}", r"unknown key; did you mean files\?"),
        ("{kind: web, display: Mine, hub: x, contents: s3}", "contents"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(own_configs: Path, entry: str, problem: str) -> None:
    (own_configs / "sources_mine.yaml").write_text(f"sources: {{mine: {entry}}}\n")
    with pytest.raises(ConfigError, match=rf"sources_mine\.yaml: .*{problem}"):
        load_sources()


def test_the_papers_sources_say_where_they_are_and_under_which_licence() -> None:
    known = load_sources()
    for name, spec in {**known.sources, **known.sft}.items():
        assert spec.hub and spec.folder == name and spec.licence
    assert known.sources["stack_v2"].contents == "software_heritage"


def test_a_source_without_a_folder_is_looked_for_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "corpora" / "mine").mkdir(parents=True)
    (tmp_path / "corpora" / "mine" / "a.txt").write_text("text")
    source = Source("mine", SourceSpec(kind="web", display="Mine", hub="org/mine"), tmp_path)
    assert [unit.name for unit in source.units()] == ["a.txt"]
