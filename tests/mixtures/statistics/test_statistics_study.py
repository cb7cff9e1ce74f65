"""A pool measured end to end: sane on a world whose sources are known, restartable, and clear about what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.documents import sources_of
from configs.errors import ArtifactError, DataError
from configs.load import load_sources, load_study
from configs.schema import StudyConfig
from mixtures.microworld.declaration import shares
from mixtures.microworld.generate import source_texts
from mixtures.sources.source import Source
from mixtures.statistics.__main__ import main
from mixtures.statistics.batch import Batch
from mixtures.statistics.features import Column, Feature, Sums, Values, counts, ratio
from mixtures.statistics.figures import SCORES
from mixtures.statistics.histogram import QUANTILES
from mixtures.statistics.measure import FEATURES, Job, measure_unit, read_sums, sampled
from mixtures.statistics.study import measure_study
from mixtures.statistics.tables import Statistics, UnitFile
from mixtures.statistics.unigram import COLUMNS
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

CODE = {"starcoder", "stack_v2"}
SVG = "{http://www.w3.org/2000/svg}"
Writer = Callable[..., Path]


def study(**overrides: Any) -> StudyConfig:
    return load_study("mini", {"tokenizer.name": "tiny"} | overrides)


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def by_source(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["source"]: row for row in rows(folder, "sources")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, write_rows: Writer) -> Path:
    """The microworld's sources in two files each."""
    root = tmp_path_factory.mktemp("world")
    for source in shares():
        texts = list(source_texts(source, 1e5))
        half = len(texts) // 2
        for number, part in enumerate((texts[:half], texts[half:])):
            write_rows(root / "corpora" / source / f"part-{number:05d}.parquet", text=part)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A data folder with nothing but the tokenizer."""
    data = tmp_path_factory.mktemp("trained")
    texts = (text for source in shares() for text in source_texts(source, 2e4))
    train_tokenizer(texts, 600, data / "tokenizers" / "tiny", {"test": 1})
    return data


@pytest.fixture
def data(tmp_path: Path, trained: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokenizers").symlink_to(trained / "tokenizers")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, world: Path, trained: Path) -> Path:
    data = tmp_path_factory.mktemp("measured")
    (data / "tokenizers").symlink_to(trained / "tokenizers")
    return measure_study(study(), world, data, lambda line: None, workers=1)


def check_matrix(folder: Path) -> None:
    """Every source is closest to its own model."""
    nats: dict[str, dict[str, float]] = {}
    for row in rows(folder, "cross_entropy"):
        nats.setdefault(row["text"], {})[row["model"]] = row["nats_per_token"]
    assert len(nats) == 9
    for text, models in nats.items():
        assert min(models, key=models.__getitem__) == text
        assert by_source(folder)[text]["own_cross_entropy"] == models[text]


def check_sources(folder: Path) -> None:
    sources = by_source(folder)
    assert set(sources) == set(sources_of(study()))
    code = sorted(sources, key=lambda name: sources[name]["code_share"])
    assert set(code[-2:]) == CODE
    assert max(sources, key=lambda name: sources[name]["narrativity"]) == "books"
    for source in sources.values():
        quantiles = [source[f"tokens_{name}"] for name in QUANTILES]
        assert quantiles == sorted(quantiles)
        assert all(0 <= value <= 1 for name, value in source.items() if name.endswith("_share"))
    check_matrix(folder)


def test_the_microworlds_sources_are_what_they_are_made_to_be(measured: Path) -> None:
    check_sources(measured)


def test_units_add_up_to_sources(measured: Path) -> None:
    units = rows(measured, "units")
    assert [unit["unit"] for unit in units] == ["part-00000.parquet", "part-00001.parquet"] * 9
    for name, source in by_source(measured).items():
        for column in ("documents", "characters", "utf8_bytes", "words", "tokens"):
            assert source[column] == sum(unit[column] for unit in units if unit["source"] == name)
        bins = [row for row in rows(measured, "histograms") if (row["source"], row["measure"]) == (name, "tokens")]
        assert sum(row["documents"] for row in bins) == source["documents"]
        middle = np.cumsum([row["documents"] for row in bins]).searchsorted(source["documents"] / 2)
        assert bins[middle]["shortest"] <= source["tokens_p50"] <= bins[middle]["longest"]


def test_tables_carry_units_and_meanings_and_figures_are_svg(measured: Path) -> None:
    for table in ("sources", "units", "histograms", "cross_entropy"):
        for field in pq.read_schema(measured / f"{table}.parquet"):
            assert field.metadata[b"meaning"], field.name
    manifest = json.loads((measured / "manifest.json").read_text())
    assert manifest["synthetic"] is True
    assert set(manifest["files"]) == {
        *(f"{name}.parquet" for name in ("sources", "units", "histograms", "cross_entropy")),
        *(f"figures/{name}.svg" for name in ("lengths", "cross_entropy", "scores")),
    }
    assert set(COLUMNS) < set(manifest["columns"])


def test_figures_show_the_numbers_of_the_tables(measured: Path) -> None:
    def drawn(name: str) -> tuple[ET.Element, list[str]]:
        tree = ET.parse(measured / "figures" / f"{name}.svg").getroot()
        words = [mark.text or "" for mark in tree.iter(f"{SVG}text")]
        assert {"synthetic documents", "web", "code", "curated", "RefinedWeb", "Books"} <= set(words)
        for mark in tree.iter():
            for key, side in (("x", "width"), ("cx", "width"), ("x1", "width"), ("x2", "width")):
                assert -1 <= float(mark.get(key, 0)) <= float(tree.get(side, 0)), (name, mark.attrib)
        return tree, words

    sources = by_source(measured)
    tree, words = drawn("lengths")
    for measure in ("tokens", "characters"):
        assert {f"{source[f'{measure}_p50']:,.0f}" for source in sources.values()} <= set(words)
    ridges = [mark.get("points", "").split() for mark in tree.iter(f"{SVG}polyline")]
    assert len(ridges) == 2 * len(sources) and all(r[0].split(",")[1] == r[-1].split(",")[1] for r in ridges)
    _, words = drawn("cross_entropy")
    assert {f"{row['nats_per_token']:.2f}" for row in rows(measured, "cross_entropy")} <= set(words)
    tree, _ = drawn("scores")
    tips = [title.text or "" for title in tree.iter(f"{SVG}title")]
    assert len(tips) == len(SCORES) * len(sources)
    assert f"Books: {sources['books']['narrativity']:.4g}" in tips
    dots = {(dot[0].text or ""): float(dot.get("cx", 0)) for dot in tree.iter(f"{SVG}circle")}
    order = sorted(sources.values(), key=lambda source: source["readability"])
    names = {source["source"]: load_sources().sources[source["source"]].display for source in order}
    places = [dots[f"{names[source['source']]}: {source['readability']:.4g}"] for source in order]
    assert places == sorted(places) and len(set(places)) > 1


def test_a_rerun_changes_nothing_and_a_new_file_costs_itself(
    data: Path, world: Path, tmp_path: Path, write_rows: Writer
) -> None:
    root = tmp_path / "documents"
    for source in shares():
        (root / "corpora" / source).mkdir(parents=True)
        name = "part-00000.parquet"
        (root / "corpora" / source / name).symlink_to(world / "corpora" / source / name)
    lines: list[str] = []
    folder = measure_study(study(), root, data, lines.append, workers=1)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert measure_study(study(), root, data, lines.append, workers=1) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == stamps
    assert lines[-1].startswith("unchanged")

    before = by_source(folder)
    write_rows(root / "corpora" / "books" / "part-00001.parquet", text=["One more book.", None, " "])
    measure_study(study(), root, data, lines.append, workers=1)
    fresh = {path for path in (folder / "sums").rglob("*.npz") if path.stat().st_mtime_ns != stamps.get(path)}
    assert fresh == {folder / "sums" / "books" / "00001.npz"}
    after = by_source(folder)
    assert after["books"]["documents"] == before["books"]["documents"] + 1
    assert after["dclm"]["type_token_ratio"] == before["dclm"]["type_token_ratio"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dropped"] == {"books/part-00001.parquet": {"null": 1, "blank": 1}}


def test_damaged_sums_are_made_again_and_damaged_tables_are_named(measured: Path, world: Path, trained: Path) -> None:
    data = measured.parents[1]
    sums = measured / "sums" / "dclm" / "00001.npz"
    good = sums.read_bytes()
    for bad in (good[:-100], good[: len(good) // 2] + b"\x00\x01" + good[len(good) // 2 + 2 :], b""):
        sums.write_bytes(bad)
        assert measure_study(study(), world, data, lambda line: None, workers=1) == measured
        assert {k: v.tolist() for k, v in read_sums(sums)["style"].items()}
    table = measured / "units.parquet"
    good = table.read_bytes()
    table.write_bytes(good[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"units\.parquet"):
        measure_study(study(), world, data, lambda line: None, workers=1)
    table.write_bytes(good)


@pytest.mark.slow
@pytest.mark.parametrize("use_ray", [False, True], ids=["processes", "ray"])
def test_workers_do_not_change_a_byte(use_ray: bool, measured: Path, data: Path, world: Path) -> None:
    folder = measure_study(study(), world, data, lambda line: None, workers=2, use_ray=use_ray)
    files = sorted(path.relative_to(measured) for path in measured.rglob("*.*") if path.suffix != ".npz")
    assert len(files) == 8
    for name in files:
        assert (folder / name).read_bytes() == (measured / name).read_bytes(), name


def test_a_share_of_the_documents_or_some_files(data: Path, world: Path, measured: Path) -> None:
    folder = measure_study(study(), world, data, lambda line: None, workers=1, share=0.3, max_units=1)
    units = rows(folder, "units")
    assert len(units) == 9
    whole = {(unit["source"], unit["unit"]): unit["documents"] for unit in rows(measured, "units")}
    total = sum(whole[unit["source"], unit["unit"]] for unit in units)
    assert 0.25 < sum(unit["documents"] for unit in units) / total < 0.35
    texts = [f"document {n}" for n in range(500)]
    few, more = list(sampled(texts, 0.1)), list(sampled(texts, 0.5))
    assert set(few) < set(more) < set(sampled(texts, 1.0))
    assert 20 < len(few) < 90


def test_a_share_too_small_for_any_document_is_refused(data: Path, world: Path) -> None:
    with pytest.raises(DataError, match="larger --share"):
        measure_study(study(), world, data, lambda line: None, workers=1, share=1e-12)
    assert not (data / "statistics" / "tiny" / "manifest.json").exists()


class Questions:
    """A further column, as a user would write it."""

    name = "questions"
    columns: Mapping[str, Column] = {"questions_per_document": Column("1/document", "question marks a document")}

    def of(self, batch: Batch) -> Sums:
        return counts(marks=sum(text.count("?") for text in batch.texts), documents=len(batch.texts))

    def values(self, sums: Sums) -> Values:
        return {"questions_per_document": ratio(sums["marks"], sums["documents"])}


def test_a_further_feature_is_one_class(tmp_path: Path, world: Path, trained: Path) -> None:
    features: Sequence[Feature] = (*FEATURES, Questions())
    tokenizer = Tokenizer.load(trained / "tokenizers" / "tiny")
    units = Source("dclm", load_sources().sources["dclm"], world).units()
    files = []
    for number, unit in enumerate(units):
        path = tmp_path / f"{number}.npz"
        measure_unit(Job(unit, path, tokenizer.folder, tokenizer.sha256, 1.0, features))
        files.append(UnitFile(unit.name, path))
    table = Statistics({"dclm": files}, {"dclm": "web"}, features).sources_table()
    texts = [document.text for unit in units for document in unit.documents()]
    assert table["questions_per_document"].to_pylist() == [sum(text.count("?") for text in texts) / len(texts)]
    assert table.schema.field("questions_per_document").metadata[b"unit"] == b"1/document"


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, trained: Path) -> None:
    cases = {
        ("--share", "0"): "--share 0.0",
        ("--units", "0"): "--units: '0' is not a whole number of at least 1",
        ("--data", str(tmp_path)): "no tokenizer here",
        ("--data", str(trained), "--documents", str(tmp_path), "data.kind=local"): "data folder is missing",
    }
    for arguments, message in cases.items():
        with pytest.raises(SystemExit) as end:
            main(["--study", "mini", *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_the_command_measures_and_help_does_not_import_the_heavy(measured: Path, world: Path) -> None:
    command = [sys.executable, "-m", "mixtures.statistics"]
    arguments = ["--study", "mini", "--documents", str(world), "--data", str(measured.parents[1]), "--workers", "1"]
    arguments += ["tokenizer.name=tiny", "data.kind=local"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    assert "unchanged, 18 units of 9 sources" in done.stdout
    heavy = {"numpy", "pyarrow", "jinja2", "tokenizers", "ray", "torch"}
    probe = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('mixtures.statistics', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))\n"
        "import statistics; print(statistics.mean([1, 3]))"
    )
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=os.environ)
    assert "examples:" in shown.stdout
    assert shown.stdout.endswith("[]\n2\n")


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_sources_are_what_they_stand_for(shared_data: Path, tmp_path: Path) -> None:
    def texts() -> Any:
        for name in sources_of(study()):
            unit = Source(name, load_sources().sources[name], shared_data).units()[0]
            for document, _ in zip(unit.documents(), range(20), strict=False):
                yield document.text

    train_tokenizer(texts(), 2000, tmp_path / "tokenizers" / "tiny", {"test": 1})
    folder = measure_study(study(), shared_data, tmp_path, lambda line: None, workers=1, share=0.1)
    check_sources(folder)
    sources = by_source(folder)
    assert max(sources, key=lambda name: sources[name]["readability"]) == "books"
    assert min(sources, key=lambda name: sources[name]["formality"]) == "books"
    assert {name for name, row in sources.items() if row["compression_ratio"] > 2.9} == CODE
