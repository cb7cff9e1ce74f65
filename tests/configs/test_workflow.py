"""Units of a study, what they take by hand, when they would run, and what makes a finished one stale."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import write_study

from configs.cost.gpus import find_gpu
from configs.cost.plan import Hardware
from configs.errors import ArtifactError, ConfigError
from configs.layout import CONFIG_ROOT
from configs.load import load_sources, load_study
from configs.runtime import versions
from configs.schema import StudyConfig
from configs.workflow.driver import find_missing_products
from configs.workflow.plan import plan_lines, seconds_of
from configs.workflow.records import records
from configs.workflow.records.records import State, changes, states, write_record
from configs.workflow.schedule import remaining_s, schedule
from configs.workflow.units import CODE, Unit, study_units
from mixtures.sources.identity import read_identities

H100 = Hardware(find_gpu("H100"), 64, 0.4)

# ---------------------------------------------------------------------------------------------- units


def test_every_unit_stands_behind_what_it_reads() -> None:
    seen: set[str] = set()
    for unit in study_units(load_study("mini"), Path("runs")):
        assert set(unit.inputs) <= seen and unit.name not in seen
        seen.add(unit.name)
    kinds = [name.partition("/")[0] for name in seen]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "tokenize": 1,
        "pretrain": 22,  # 9 mixtures and two more seeds of one, 2 scales
        "finetune": 22,
        "score": 66,  # a milestone and the last step of pretraining, the last step of fine-tuning
        "analyse": 1,
    }


def test_seeds_change_a_training_and_how_it_is_shown_does_not(tmp_path: Path) -> None:
    def identity(**overrides: object) -> dict[str, Mapping[str, object]]:
        study = load_study(write_study(tmp_path), {f"overrides.{k}": v for k, v in overrides.items()})
        return {unit.name: unit.identity for unit in study_units(study, tmp_path)}

    plain, shown, other = identity(), identity(log_every_steps=7), identity(precision="bf16")
    assert plain == shown and list(plain) == list(other)
    assert [name for name in plain if plain[name] != other[name]] == [n for n in plain if n[0] in "pf"]


def local_study(folder: Path, **overrides: object) -> tuple[StudyConfig, Path]:
    """A study on documents of its own, and their folder."""
    documents = folder / "documents"
    for slug, split in (("arc_easy", "test"), ("winogrande", "validation"), ("rte", "validation")):
        for name in (split, "train"):
            path = documents / "benchmarks" / slug / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} of {slug}")
    (documents / "corpora/books").mkdir(parents=True, exist_ok=True)
    (documents / "corpora/books/part-00000.txt").write_text("a book")
    return load_study(write_study(folder, kind="local"), overrides), documents


def identities(study: StudyConfig, documents: Path | None) -> dict[str, Mapping[str, object]]:
    return {unit.name: unit.identity for unit in study_units(study, Path("runs"), read_identities(study, documents))}


def test_other_rows_of_a_benchmark_change_its_scores_and_touched_ones_do_not(tmp_path: Path) -> None:
    study, documents = local_study(tmp_path)
    before = identities(study, documents)
    rows = documents / "benchmarks/rte/validation.parquet"
    os.utime(rows, (1e9, 1e9))
    (rows.with_name("train.parquet")).write_text("no shots are drawn from it")
    assert identities(study, documents) == before
    rows.write_text("other rows")
    after = identities(study, documents)
    assert [name for name in before if before[name] != after[name]] == [n for n in before if n.startswith("score/")]
    ((key, old, new),) = changes(before["score/tiny/V1P0/seed0/pt/last"], after["score/tiny/V1P0/seed0/pt/last"])
    assert key == "rows.rte" and old != new
    shutil.copytree(documents, tmp_path / "copy")
    scores = "score/tiny/V1P0/seed0/pt/last"
    assert identities(study, tmp_path / "copy")[scores] == after[scores]  # the same rows, elsewhere
    rows.unlink()
    assert identities(study, documents)[scores]["rows"]["rte"] == "missing"  # type: ignore[index]

    shots, documents = local_study(tmp_path, **{"scoring.shots": 2})
    before = identities(shots, documents)
    (documents / "benchmarks/rte/train.parquet").write_text("other examples")
    after = identities(shots, documents)
    assert [key for key, _, _ in changes(before[scores], after[scores])] == ["shots.rte"]
    assert "rte" not in identities(load_study(write_study(tmp_path)), documents)[scores]["rows"]  # type: ignore[operator]


def test_rows_in_a_file_of_ones_own_count_wherever_the_documents_are(tmp_path: Path) -> None:
    spec = yaml.safe_load((CONFIG_ROOT / "benchmarks/rte.yaml").read_text())
    spec |= {"slug": "mine", "files": {spec["split"]: "mine.jsonl"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "mine.jsonl").write_text("{}")
    study = load_study(write_study(tmp_path), {"benchmarks": [str(tmp_path / "mine.yaml")]})
    before = identities(study, tmp_path / "microworld")
    (tmp_path / "mine.jsonl").write_text("{}{}")
    after = identities(study, tmp_path / "microworld")
    assert {name.partition("/")[0] for name in before if before[name] != after[name]} == {"score"}


def test_documents_and_a_tokenizer_of_ones_own_count_for_tokenizing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.jsonl").write_text("{}")
    known = load_sources()
    own = known.sources["books"].model_copy(update={"folder": None, "files": str(tmp_path / "notes/**/*.jsonl")})
    sources = known.model_copy(update={"sources": known.sources | {"books": own}})
    for module in ("configs.workflow.units", "configs.documents", "mixtures.sources.identity"):
        monkeypatch.setattr(f"{module}.load_sources", lambda: sources)
    study, documents = local_study(
        tmp_path, **{"tokenizer.file": str(tmp_path / "tokenizer.json"), "data.decontaminate": 0.5}
    )

    def changed_by(path: Path) -> list[str]:
        before = identities(study, documents)["tokenize"]
        path.write_text("something else")
        return [key for key, _, _ in changes(before, identities(study, documents)["tokenize"])]

    assert changed_by(tmp_path / "tokenizer.json") == ["tokenizer_file"]
    assert changed_by(tmp_path / "notes/b.jsonl") == ["files.sources.books"]
    assert changed_by(documents / "corpora/books/part-00000.txt") == ["files.corpora"]
    assert changed_by(documents / "benchmarks/rte/validation.parquet") == ["rows.rte"]  # its items are left out
    shutil.rmtree(tmp_path / "notes")
    assert identities(study, documents)["tokenize"]["files"]["sources.books"] == "missing"  # type: ignore[index]


# ---------------------------------------------------------------------------------------------- the plan


def test_the_papers_study_by_hand() -> None:
    """6 FLOPs a weight and token, and 12 x layers x 2048 x 4096 of attention; 9 mixtures."""
    matrices = {"240m": 241.1e6, "1b": 1147.5e6}  # Table 1 with the tied embedding: 4 d x 2048 + 3 d x 8 d a layer
    flops = {scale: 6 * matrices[scale] + 12 * layers * 2048 * 4096 for scale, layers in (("240m", 8), ("1b", 12))}
    pretraining = 9 * (12e9 * flops["240m"] + 52e9 * flops["1b"])
    row = 256 * 4096  # tokens of a step whose rows are full
    finetuning = 9 * row * 326154 / 256 * (3 * 5 * flops["240m"] + (10 + 5 + 5) * flops["1b"])
    hours = (pretraining + finetuning) / (989.5e12 * 0.4) / 3600
    units = study_units(load_study("paper"), Path("runs"))
    seconds = seconds_of(units, H100)
    assert seconds is not None
    found = {
        kind: sum(seconds[u.name] * u.gpus for u in units if u.kind == kind) / 3600 for kind in ("score", "pretrain")
    }
    everything = sum(seconds[u.name] * u.gpus for u in units) / 3600
    assert found["pretrain"] == pytest.approx(pretraining / (989.5e12 * 0.4) / 3600, rel=0.01)
    assert everything == pytest.approx(hours, rel=0.01)
    # 72 checkpoints x 87,179 examples x 60 tokens, a third of training's FLOPs
    suite = 87_179 * 60 / 3 * 36 * (flops["240m"] + flops["1b"]) / (989.5e12 * 0.4) / 3600
    assert found["score"] == pytest.approx(suite, rel=0.01)
    chain = 52e9 * flops["1b"] + row * 326154 / 256 * 10 * flops["1b"]
    plan = schedule(units, seconds, 64)
    assert plan.critical_s == pytest.approx(chain / 8 / (989.5e12 * 0.4), rel=0.01)  # 8 GPUs a training
    assert plan.critical[1:3] == ("pretrain/1b/V1P0/seed0", "finetune/1b/V1P0/seed0/table2b")
    # Nine long trainings on eight places: the ninth starts when the first ends.
    assert plan.total_s > plan.start_s["pretrain/1b/V3P2/seed0"] == pytest.approx(36.9 * 3600, rel=0.01)
    assert max(plan.critical_s, everything * 3600 / 64) <= plan.total_s < 2 * plan.critical_s


def test_lines_of_the_plan() -> None:
    text = "\n".join(plan_lines(load_study("paper"), Path("runs"), H100, dollars_an_hour=2.5))
    assert "18 pretrain, 54 finetune, 72 score" in text and "$2.5 a GPU-hour" in text
    assert "critical     46.4 h: pretrain/1b/V1P0/seed0 36.9 h -> finetune/1b" in text and "on 64 H100" in text
    assert "token shards 610.2 GiB: 163.8B tokens of 4 bytes" in text
    assert "not known" in plan_lines(load_study("mini"), Path("runs"), H100)[-1]
    with pytest.raises(ConfigError, match="works on 8 GPUs, 4 are given"):
        plan_lines(load_study("paper"), Path("runs"), replace(H100, count=4))


# ---------------------------------------------------------------------------------------------- the schedule


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Unit], dict[str, float]]:
    units, seconds = [], {}
    for i in range(draw(st.integers(1, 12))):
        inputs = draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        units.append(Unit(f"u/{i}", tuple(f"u/{k}" for k in sorted(inputs)), {}, gpus=draw(st.integers(0, 3))))
        seconds[f"u/{i}"] = float(draw(st.integers(0, 5)))
    return units, seconds


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(3, 6))
def test_no_unit_starts_before_its_inputs_or_without_its_gpus(
    graph: tuple[list[Unit], dict[str, float]], gpus: int
) -> None:
    units, seconds = graph
    found = schedule(units, seconds, gpus)
    assert set(found.start_s) == {unit.name for unit in units}
    for unit in units:
        assert found.end_s[unit.name] == found.start_s[unit.name] + seconds[unit.name]
        assert all(found.end_s[name] <= found.start_s[unit.name] for name in unit.inputs)
    for now in found.start_s.values():
        at_work = [u for u in units if found.start_s[u.name] <= now < found.end_s[u.name]]
        assert sum(u.gpus for u in at_work) <= gpus
    work = sum(seconds[u.name] * u.gpus for u in units)
    assert found.total_s >= max(found.critical_s, work / gpus) - 1e-9
    assert found.critical_s == longest_path(units, seconds) == sum(seconds[name] for name in found.critical)
    if gpus >= sum(u.gpus for u in units):
        assert found.total_s == found.critical_s


def longest_path(units: Sequence[Unit], seconds: Mapping[str, float]) -> float:
    """Every chain tried."""
    by_name = {unit.name: unit for unit in units}

    def back(name: str) -> float:
        return seconds[name] + max(map(back, by_name[name].inputs), default=0.0)

    return max(map(back, by_name))


def test_what_remains_is_counted_to_the_end() -> None:
    units = [Unit("a/", (), {}), Unit("b/", ("a/",), {}), Unit("c/", ("a/",), {}), Unit("d/", ("b/", "c/"), {})]
    assert remaining_s(units, {"a/": 1, "b/": 5, "c/": 2, "d/": 3}) == {"a/": 9, "b/": 8, "c/": 5, "d/": 3}


# ---------------------------------------------------------------------------------------------- records

CHAIN = [
    Unit("tokenize", (), {"data": {"kind": "local"}}),
    Unit("pretrain/x", ("tokenize",), {"lr": 0.1, "betas": [0.9, 0.95]}),
    Unit("score/x", ("pretrain/x",), {"sample": None}),
]
ABOUT = {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "host": "here"}


def finish(folder: Path, units: Sequence[Unit], **products: str) -> None:
    made = {unit.name: products.get(unit.kind, "first") for unit in units}
    for unit in units:
        write_record(folder, unit, {name: made[name] for name in unit.inputs}, made[unit.name], **ABOUT)


def test_done_is_what_has_a_record_of_just_this(tmp_path: Path) -> None:
    assert states(tmp_path, CHAIN) == {unit.name: State("missing") for unit in CHAIN}
    finish(tmp_path, CHAIN)
    assert states(tmp_path, CHAIN) == {unit.name: State("done") for unit in CHAIN}


def test_what_changed_is_named_and_what_was_made_of_it_is_stale_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(tmp_path, CHAIN)
    other = [CHAIN[0], replace(CHAIN[1], identity={"lr": 0.2, "betas": [0.9, 0.99]}), CHAIN[2]]
    assert states(tmp_path, other) == {
        "tokenize": State("done"),
        "pretrain/x": State("stale", ("betas.1 0.95 -> 0.99", "lr 0.1 -> 0.2")),
        "score/x": State("stale", ("pretrain/x is stale",)),
    }
    finish(tmp_path, [CHAIN[0]], tokenize="second")  # the documents had changed
    found = states(tmp_path, CHAIN)
    assert found["pretrain/x"].reasons == ("tokenize was made again, and came out otherwise",)
    finish(tmp_path, CHAIN)
    real = records.code_sha256
    monkeypatch.setattr(records, "code_sha256", lambda part: "other" if part == "ray_eval" else real(part))
    found = states(tmp_path, CHAIN)
    assert found["pretrain/x"] == State("done") and found["score/x"] == State("stale", ("code of ray_eval",))


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, CHAIN)
    path = records.record_file(tmp_path, "pretrain/x")
    path.write_text(path.read_text()[:40])
    with pytest.raises(ArtifactError, match="not valid JSON"):
        states(tmp_path, CHAIN)
    path.write_text(json.dumps({"version": 1}))
    with pytest.raises(ArtifactError, match="not a record"):
        states(tmp_path, CHAIN)


def test_what_has_gone_is_found_and_what_was_made_of_it_waits(tmp_path: Path) -> None:
    finish(tmp_path, CHAIN)
    asked: list[tuple[str, str, list[str]]] = []

    def intact(unit: Unit, product: str, waiting: Sequence[Unit]) -> bool:
        asked.append((unit.name, product, [other.name for other in waiting]))
        return unit.name != "pretrain/x"

    assert find_missing_products(tmp_path, CHAIN, intact) == [CHAIN[1]]
    assert asked == [("tokenize", "first", []), ("pretrain/x", "first", [])]  # its score is judged later
    records.record_file(tmp_path, "score/x").unlink()
    asked.clear()
    assert find_missing_products(tmp_path, CHAIN, intact) == [CHAIN[1]]
    assert asked[1] == ("pretrain/x", "first", ["score/x"])
    finish(tmp_path, CHAIN)
    records.record_file(tmp_path, "tokenize").unlink()
    assert find_missing_products(tmp_path, CHAIN, lambda *_: True) == [CHAIN[0]]
    assert find_missing_products(tmp_path / "new", CHAIN, lambda *_: False) == []


def test_an_altered_record_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, CHAIN)
    path = records.record_file(tmp_path, "pretrain/x")
    path.write_text(path.read_text().replace('"here"', '"hers"'))
    with pytest.raises(ArtifactError, match="altered since it was written"):
        states(tmp_path, CHAIN)


def test_differences_of_two_trees() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [1]}
    new = {"a": 1, "b": {"c": (1, 3), "d": 0}, "e": [1, 2], "f": "x"}
    assert changes(old, new) == [("b.c.1", 2, 3), ("b.d", None, 0), ("e", [1], [1, 2]), ("f", None, "x")]
    assert changes({"w": (0.5,)}, {"w": [0.5]}) == []


def test_code_of_figures_counts_only_where_a_unit_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(versions, "PROJECT_ROOT", tmp_path)
    figure, other = tmp_path / "configs/drawing/scene.py", tmp_path / "configs/other.py"
    figure.parent.mkdir(parents=True)
    figure.write_text("")
    other.write_text("")
    hashed = versions.code_sha256.__wrapped__
    before = hashed("configs"), hashed("configs/drawing")
    figure.write_text("changed = True\n")
    assert hashed("configs") == before[0] and hashed("configs/drawing") != before[1]
    other.write_text("changed = True\n")
    assert hashed("configs") != before[0]
    assert [kind for kind, parts in CODE.items() if "configs/drawing" in parts] == ["analyse"]
