"""Benchmarks of the Hub: read at a commit that is recorded once, named in the scores, and part of what a plan is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pytest
from eval_rows import ROWS
from hub_branches import FIRST, SECOND, Branches

from configs.errors import DataError
from configs.layout import StudyFolder, revisions_file
from configs.load import load_benchmark, load_study
from mixtures.contamination.study import benchmarks_of
from mixtures.sources import hub
from mixtures.sources.benchmark_rows import read_rows
from ray_eval.results import metadata_of, read_scores
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, Summary, score_study

COPA = load_benchmark("copa").revision
"""A commit: nobody is asked."""


class Repositories:
    """In the place of datasets.load_dataset: rows of piqa and copa, of piqa other ones at the second commit."""

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []

    def __call__(self, name: str, config: str | None, *, split: str, revision: str) -> datasets.Dataset:
        self.read.append((name, revision))
        rows = ROWS["piqa" if name == load_benchmark("piqa").hub else "copa"]
        return datasets.Dataset.from_list(rows[::-1] if revision == SECOND else rows)


@pytest.fixture
def repositories(monkeypatch: pytest.MonkeyPatch) -> Repositories:
    fake = Repositories()
    monkeypatch.setattr(datasets, "load_dataset", fake)
    return fake


@pytest.fixture
def runs(make_export: Callable[..., Path], tmp_path: Path) -> Path:
    make_export(StudyFolder(tmp_path / "runs", "trial").run("mini_s", "V1P0", 0, "pt").export(1))
    return tmp_path / "runs"


def score(runs: Path, **options: Any) -> Summary:
    data, names = runs.with_name("data"), ["piqa", "copa"]
    return score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(documents_root=None, benchmarks=names, use_ray=False, data=data, **options),
    )


def test_rows_are_those_of_a_recorded_commit(
    runs: Path, fake_hub: Branches, repositories: Repositories, tmp_path: Path
) -> None:
    said: list[str] = []
    assert score(runs, say=said.append).scored == 1
    piqa = load_benchmark("piqa").hub
    assert repositories.read == [(piqa, FIRST), (load_benchmark("copa").hub, COPA)]
    assert fake_hub.asked == [(piqa, "main")] and said[0].startswith(f"{piqa}: main is commit {FIRST}, recorded in")
    assert json.loads(revisions_file(tmp_path / "data").read_text())[f"{piqa}@main"]["commit"] == FIRST
    (path,) = (runs / "trial" / "scores").rglob("*.parquet")
    first = read_scores(path)
    commits = json.loads(metadata_of(first)["benchmark_commits"])
    assert commits == {"piqa": f"{piqa}@{FIRST}", "copa": f"{load_benchmark('copa').hub}@{COPA}"}

    # The branch moves, then the network goes: nobody asks, and the plan is the same.
    for fake_hub.head in (SECOND, httpx2.ConnectError("refused")):
        assert score(runs).skipped == 1
    assert len(fake_hub.asked) == 1 and len(repositories.read) == 2

    # Another commit is another plan: rows are read anew.
    revisions_file(tmp_path / "data").unlink()
    with pytest.raises(DataError, match="the Hub cannot be reached"):
        score(runs)
    fake_hub.head = SECOND
    assert score(runs).scored == 1 and (piqa, SECOND) in repositories.read
    assert len(list((runs / "trial" / "plans").glob("*.npz"))) == 2
    again = read_scores(path)
    assert json.loads(metadata_of(again)["benchmark_commits"])["piqa"] == f"{piqa}@{SECOND}"
    assert again["gold"].to_pylist()[:2] == first["gold"].to_pylist()[1::-1]


def test_the_command_line_names_the_folder(
    runs: Path, fake_hub: Branches, repositories: Repositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named nowhere, it is MAGIC_DATA."""
    (runs / "trial" / "study.json").write_text('{"documents_root": null}')
    command = ["--no-ray", "--runs", str(runs), "--benchmarks", "piqa"]
    monkeypatch.setenv("MAGIC_DATA", str(tmp_path / "of the environment"))
    main([*command, "--data", str(tmp_path / "named")])
    assert revisions_file(tmp_path / "named").is_file() and not (tmp_path / "of the environment").exists()
    main(command)
    assert revisions_file(tmp_path / "of the environment").is_file()


def test_scores_of_local_rows_name_no_commit(
    runs: Path, benchmark_root: Path, fake_hub: Branches, tmp_path: Path
) -> None:
    score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(documents_root=benchmark_root, benchmarks=["piqa"], use_ray=False, data=tmp_path / "data"),
    )
    (path,) = (runs / "trial" / "scores").rglob("*.parquet")
    assert "benchmark_commits" not in metadata_of(read_scores(path))
    assert not fake_hub.asked and not (tmp_path / "data").exists()


def test_a_search_for_items_reads_the_same_commits(fake_hub: Branches, tmp_path: Path) -> None:
    """Those of one repository are asked for once."""
    study = load_study("paper")
    found = {spec.slug: spec.revision for spec in benchmarks_of(study, None, tmp_path, print)}
    assert len(found) == 20 and found.pop("copa") == COPA and set(found.values()) == {FIRST}
    assert len(fake_hub.asked) == len({load_benchmark(slug).hub for slug in found})
    assert {spec.revision for spec in benchmarks_of(study, tmp_path, tmp_path, print)} == {"main", COPA}


def test_rows_without_a_commit_are_not_read(repositories: Repositories) -> None:
    with pytest.raises(AssertionError, match="its revision is resolved first"):
        read_rows(None, load_benchmark("piqa"))
    assert not repositories.read


def test_those_who_pin_at_the_same_time_agree(fake_hub: Branches, tmp_path: Path) -> None:
    """What another process records while the Hub is asked stands."""
    ask = fake_hub.dataset_info

    def slow(name: str, revision: str) -> Any:
        answer = ask(name, revision)
        if len(fake_hub.asked) == 1:
            fake_hub.head = SECOND
            assert (
                hub.resolve_revision("org/a", "main", tmp_path, print)
                == hub.resolve_revision("org/b", "main", tmp_path, print)
                == SECOND
            )
        return answer

    fake_hub.dataset_info = slow  # type: ignore[method-assign]
    assert hub.resolve_revision("org/a", "main", tmp_path, print) == SECOND
    assert set(json.loads(revisions_file(tmp_path).read_text())) == {"org/a@main", "org/b@main"}


def test_what_keeps_rows_on_the_hub_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for sources and models: the cause and the next step, not the client's exception."""

    def fail(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("'super_glue' is a gated dataset on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"on the Hub: its terms must be accepted first(.|\n)*hf auth login"):
        read_rows(None, load_benchmark("copa"))
