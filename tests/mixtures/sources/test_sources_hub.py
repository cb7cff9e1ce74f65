"""Streaming from the Hub: the real path through `datasets`, on folders in the place of repositories.

`datasets` takes a folder where it takes an id, so that only the network is missing; its failures, and those of
huggingface_hub, are raised by a fake in the place of the one call that would go out.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pytest
from datasets import IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from hub_branches import FIRST, SECOND, Branches
from huggingface_hub import errors as hf

from configs.errors import DataError
from configs.layout import revisions_file
from configs.schema import SftSpec, SourceSpec
from mixtures.sources import hub
from mixtures.sources.source import Dropped, Source

Writer = Callable[..., Path]


def web(repository: Path | str, **fields: Any) -> Source:
    options = {"text_column": "content"} | fields
    return Source("web", SourceSpec(kind="web", display="Web", hub=str(repository), **options), None)


def texts(source: Source, dropped: Dropped | None = None) -> list[str]:
    return [document.text for unit in source.units() for document in unit.documents(dropped)]


@pytest.fixture
def repository(tmp_path: Path, write_rows: Writer) -> Path:
    """Two languages whose files differ in the other columns, as StarCoder's do, and a card that names subsets."""
    root = tmp_path / "repository"
    for number in (2, 0, 1):
        rows = {"content": [f"python {number}.{row}" for row in range(5)], "id": range(5)}
        write_rows(root / "python" / f"train-0000{number}-of-00003.parquet", **rows)
    write_rows(root / "rust" / "train-00000-of-00001.parquet", stars=[1.5, None], content=["rust 0", None])
    write_rows(root / "rust" / "test-00000-of-00001.parquet", stars=[1.5], content=["held out"])
    card = "---\nconfigs:\n- config_name: all\n  data_files: '*/train-*'\n- config_name: rust\n  data_dir: rust\n---\n"
    (root / "README.md").write_text(card)
    return root


def test_every_file_is_a_unit_and_together_they_are_the_data_set(repository: Path) -> None:
    source = web(repository, config="all")
    units = source.units()
    names = [*(f"python/train-0000{n}-of-00003.parquet" for n in range(3)), "rust/train-00000-of-00001.parquet"]
    assert [unit.name for unit in units] == names
    assert [unit.size_bytes for unit in units] == [None] * 4
    dropped = Dropped()
    assert texts(source, dropped) == [*(f"python {n}.{row}" for n in range(3) for row in range(5)), "rust 0"]
    assert dropped.first == {"null": ["rust/train-00000-of-00001.parquet row 1"]}
    # The official loader's shards are the same files in the same order.
    whole = load_dataset(str(repository / "python"), split="train", streaming=True)
    assert isinstance(whole, IterableDataset) and whole.num_shards == 3
    for shard, unit in enumerate(units[:3]):
        rows = whole.shard(num_shards=3, index=shard)
        assert [row["content"] for row in rows] == [document.text for document in unit.documents()]


def test_subsets_folders_and_splits_choose_files(repository: Path) -> None:
    assert texts(web(repository, config="rust")) == ["rust 0"]
    assert texts(web(repository, config="rust", split="test")) == ["held out"]
    with pytest.raises(DataError, match=r"on the Hub: no split 'validation'\n  valid: train, test"):
        web(repository, config="rust", split="validation").units()
    with pytest.raises(DataError, match=r"BuilderConfig 'go' not found. Available: \['all', 'rust'\]"):
        web(repository, config="go").units()
    (repository / "README.md").unlink()
    assert len(texts(web(repository, data_dir="python"))) == 15


def test_a_unit_is_read_by_another_process_at_its_commit(repository: Path) -> None:
    unit = pickle.loads(pickle.dumps(web(repository, config="rust", revision=FIRST).units()[0]))
    assert [document.text for document in unit.documents()] == ["rust 0"]
    path = "rust/train-00000-of-00001.parquet"
    assert unit.inputs() == {"column": "content", "hub": str(repository), "revision": FIRST, "path": path}


def test_the_commit_of_a_hub_address_is_the_revision() -> None:
    url = f"hf://datasets/org/web@{FIRST}/data/CC-MAIN-2013-20/000_00000.parquet"
    file = hub._file("org/web", "main", url, "parquet")
    assert (file.revision, file.path) == (FIRST, "data/CC-MAIN-2013-20/000_00000.parquet")
    assert file.where == f"{file.path} of org/web@{FIRST[:12]} on the Hub"


def test_bad_rows_are_dropped_alone_and_bad_columns_refused(tmp_path: Path, write_rows: Writer) -> None:
    raw = pa.array([b"kept", b"\xff\xfe", b"kept too"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    write_rows(tmp_path / "a" / "train.parquet", content=text, size=[1, 2, 3])
    dropped = Dropped()
    assert texts(web(tmp_path / "a"), dropped) == ["kept", "kept too"]
    assert dropped.first == {"not UTF-8": ["train.parquet row 1 (byte 0)"]}
    with pytest.raises(DataError, match=r"train\.parquet of .*: no column 'text'\n  valid: found: content, size"):
        texts(web(tmp_path / "a", text_column="text"))
    with pytest.raises(DataError, match="column 'size' holds int64"):
        texts(web(tmp_path / "a", text_column="size"))


def test_json_lines_of_the_hub(tmp_path: Path) -> None:
    rows = [{"text": "one", "metadata": {"license": "CC"}}, {"text": None, "metadata": {"license": "CC"}}]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dropped = Dropped()
    assert texts(web(tmp_path / "a", text_column="text"), dropped) == ["one"]
    assert dropped.counts == {"null": 1}


def test_other_formats_and_damaged_files_are_refused(tmp_path: Path, write_rows: Writer) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "a.csv").write_text("content\nx\n")
    with pytest.raises(DataError, match=r"its files are csv\n  valid: parquet or json"):
        web(tmp_path / "table").units()
    path = write_rows(tmp_path / "cut" / "a.parquet", content=["x" * 1000] * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut on the Hub: cannot be read \(ArrowInvalid: "):
        texts(web(tmp_path / "cut"))


def test_conversations_of_the_hub(tmp_path: Path, write_rows: Writer) -> None:
    rows = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    write_rows(tmp_path / "chat" / "train.parquet", messages=rows, dataset=["flan"])
    (unit,) = Source("chat", SftSpec(hub=str(tmp_path / "chat")), None).units()
    assert list(unit.conversations()) == rows


# ---------------------------------------------------------------------------------------------- failures


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/api/datasets/org/web"))


FAILURES = {
    "gated": (hf.GatedRepoError("403", response=answer(403)), "its terms must be accepted first", "hf auth login"),
    "revision": (hf.RevisionNotFoundError("404", response=answer(404)), "no revision main", "commits/main"),
    "gone": (hf.RepositoryNotFoundError("404", response=answer(404)), "no such data set", "check its id"),
    "withdrawn": (hf.DisabledRepoError("403", response=answer(403)), "was withdrawn", "datasets/org/web"),
    "offline": (hf.OfflineModeIsEnabled("offline"), "offline mode is on", "HF_HUB_OFFLINE"),
    "no network": (httpx2.ConnectError("refused"), "the Hub cannot be reached", "local folder"),
    "time-out": (httpx2.ReadTimeout("slow"), "the Hub cannot be reached", "check the network"),
    "reset": (ConnectionResetError("reset"), "the Hub cannot be reached", "check the network"),
    "busy": (hf.HfHubHTTPError("429", response=answer(429)), "the Hub answered 429", "wait a little"),
    # As `datasets` words them, with the cause cut off.
    "gated, told by datasets": (
        DatasetNotFoundError("Dataset 'org/web' is a gated dataset on the Hub. Visit the dataset page"),
        "its terms must be accepted first",
        "hf auth login",
    ),
    "revision, told by datasets": (
        DatasetNotFoundError("Revision 'main' doesn't exist for dataset 'org/web' on the Hub."),
        "no revision main",
        "commits/main",
    ),
    "gone, told by datasets": (
        DatasetNotFoundError("Dataset 'org/web' doesn't exist on the Hub or cannot be accessed."),
        "no such data set",
        "check its id",
    ),
    "script": (
        RuntimeError("Dataset scripts are no longer supported, but found web.py"),
        "it is a loading script",
        "name them as `files`",
    ),
    "unknown": (ZeroDivisionError("what"), r"cannot be read \(ZeroDivisionError: what\)", "compare config"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_says_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, problem, hint = FAILURES[case]

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset_builder", fail)
    with pytest.raises(DataError, match=rf"org/web on the Hub: .*{problem}(.|\n)*  next:  .*{hint}"):
        web("org/web").units()


def test_a_failure_in_the_middle_of_a_file_is_told_alike(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = web(repository, config="rust").units()

    def broken(*_: Any, **__: Any) -> Any:
        yield pa.table({"content": ["first"]})
        raise httpx2.ReadError("cut off")

    monkeypatch.setattr(IterableDataset, "iter", broken)
    documents = unit.documents()
    assert next(documents).text == "first"
    with pytest.raises(DataError, match="the Hub cannot be reached"):
        next(documents)


def test_offline_the_real_client_is_understood() -> None:
    with pytest.raises(DataError, match=r"org/web on the Hub: offline mode is on(.|\n)*unset HF_HUB_OFFLINE"):
        web("org/web").units()


def test_a_full_disk_is_not_the_hubs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.load_dataset_builder", full)
    with pytest.raises(OSError, match="No space left"):
        web("org/web").units()


# ---------------------------------------------------------------------------------------------- revisions


def test_a_branch_is_pinned_at_its_first_commit(fake_hub: Branches, tmp_path: Path) -> None:
    said: list[str] = []
    source = web("org/web")
    assert source.resolve_revision(tmp_path, said.append).spec.revision == FIRST
    assert len(said) == 1 and f"main is commit {FIRST}" in said[0]
    assert json.loads(revisions_file(tmp_path).read_text())["org/web@main"]["commit"] == FIRST
    assert source.resolve_revision(tmp_path, said.append).spec.revision == FIRST
    assert len(said) == 1

    fake_hub.head = SECOND
    assert source.resolve_revision(tmp_path, said.append).spec.revision == FIRST
    assert f"main has moved to {SECOND}; this data folder stays at {FIRST}" in said[1]
    assert "delete 'org/web@main'" in said[1]
    assert web("org/web", revision="v2").resolve_revision(tmp_path, said.append).spec.revision == SECOND

    fake_hub.head = httpx2.ConnectError("refused")
    assert source.resolve_revision(tmp_path, said.append).spec.revision == FIRST
    with pytest.raises(DataError, match="the Hub cannot be reached"):
        web("org/other").resolve_revision(tmp_path, said.append)
    assert set(json.loads(revisions_file(tmp_path).read_text())) == {"org/web@main", "org/web@v2"}


def test_commits_and_local_sources_ask_nobody(fake_hub: Branches, tmp_path: Path) -> None:
    commit = web("org/web", revision=SECOND)
    local = Source("web", commit.spec, tmp_path)
    files = web("org/web", files=str(tmp_path / "*.txt"))
    assert commit.resolve_revision(tmp_path, print).spec == commit.spec
    assert [source.resolve_revision(tmp_path, print) for source in (local, files)] == [local, files]
    assert not fake_hub.asked and not revisions_file(tmp_path).exists()
