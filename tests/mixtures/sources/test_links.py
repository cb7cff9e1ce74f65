"""Links among a source's files: each real file counts once, circles are named, and what leads nowhere is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError
from configs.schema import SftSpec, SourceSpec
from configs.walk import walk
from mixtures.sources.identity import _corpora
from mixtures.sources.local_files import find_globs, find_in_folder
from mixtures.sources.source import Source
from mixtures.tokenize import _remarks

ALL = ["folder", "**/*", "**/*.txt", "**", "*", "*.txt + */*.txt", "folder twice"]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return folder


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def source(root: Path, way: str = "folder", name: str = "web") -> Source:
    """corpora/web below `root`, found in one of several ways."""
    folder = root / "corpora" / "web"
    files: Any = {
        "folder": None,
        "folder twice": [str(folder), str(folder / ".." / "web")],
        "*.txt + */*.txt": [str(folder / "*.txt"), str(folder / "*" / "*.txt")],
    }.get(way, str(folder / way))
    place: Any = {"files": files} if files else {"folder": "web", "hub": "x/y", "text_column": "text"}
    return Source(name, SourceSpec(kind="web", display="Web", **place), root)


def texts(found: Source) -> list[str]:
    return sorted(document.text for unit in found.units() for document in unit.documents())


@pytest.mark.parametrize("way", ALL)
def test_a_folder_that_holds_a_link_to_itself_is_read_once(tmp_path: Path, way: str) -> None:
    web = write(tmp_path / "corpora" / "web", "a.txt", "deep/b.txt")
    link(web / "self", ".")
    link(web / "deep" / "up", "../..")
    looped = source(tmp_path, way)
    assert texts(looped) == ["text of a.txt", "text of deep/b.txt"]
    assert [unit.name for unit in looped.units()] == ["a.txt", "deep/b.txt"]
    if "**" in way or "folder" in way:
        assert f"{web / 'self'} is a loop: it leads back to {web}; not followed" in looped.remarks()
        assert any("deep/up is a loop" in remark for remark in looped.remarks())


def test_the_user_is_told_which_link_is_a_loop_and_which_files_two_sources_share(tmp_path: Path) -> None:
    web = write(tmp_path / "corpora" / "web", "a.txt", "b.txt")
    link(web / "self", web)
    other = Source("copy", SourceSpec(kind="web", display="Web", files=str(web / "a.txt")), tmp_path)
    lines = list(_remarks([source(tmp_path), other]))
    assert lines == [
        f"web: {web / 'self'} is a loop: it leads back to {web}; not followed",
        "copy: 1 of its files are files of web, too; their text counts in both",
    ]
    for number in range(9):
        link(web / f"again{number}.txt", "a.txt")
    assert list(_remarks([source(tmp_path)]))[-1] == "web: and 5 more links to what counts once"


@pytest.mark.parametrize("way", ALL)
def test_two_names_of_one_file_count_once_under_the_name_without_links(tmp_path: Path, way: str) -> None:
    web = write(tmp_path / "corpora" / "web", "m.txt", "z/n.txt")
    link(web / "a.txt", "m.txt")
    link(web / "b", "z")
    link(web / "c.txt", "z/n.txt")
    doubled = source(tmp_path, way)
    assert [unit.name for unit in doubled.units()] == ["m.txt", "z/n.txt"]
    assert texts(doubled) == ["text of m.txt", "text of z/n.txt"]
    assert doubled.remarks()


@pytest.mark.parametrize("way", ALL)
def test_what_lies_elsewhere_is_read_under_the_name_of_its_link(tmp_path: Path, way: str) -> None:
    write(tmp_path / "elsewhere", "x.txt", "x.md", "more/y.txt")
    write(tmp_path / "blobs", "0a1b")
    web = write(tmp_path / "corpora" / "web", "a.txt")
    link(web / "there", tmp_path / "elsewhere")
    link(web / "train.txt", tmp_path / "blobs" / "0a1b")
    (tmp_path / "elsewhere" / "x.md").unlink()
    names = [unit.name for unit in source(tmp_path, way).units()]
    deep = [] if way == "*.txt + */*.txt" else ["there/more/y.txt"]
    assert names == ["a.txt", *deep, "there/x.txt", "train.txt"]
    link(web / "there2", tmp_path / "elsewhere")
    assert [unit.name for unit in source(tmp_path, way).units()] == names


def test_names_do_not_depend_on_where_a_corpus_lies_or_which_links_lead_there(tmp_path: Path) -> None:
    for place in ("one", "two"):
        web = write(tmp_path / place / "corpora" / "web", "a/x.txt", "b/x.txt")
        link(web / "0.txt", "b/x.txt")
    link(tmp_path / "far" / "corpora", tmp_path / "two" / "corpora")
    found = [[unit.name for unit in source(tmp_path / place).units()] for place in ("one", "two", "far")]
    assert found == [["a/x.txt", "b/x.txt"]] * 3
    globbed = [[unit.name for unit in source(tmp_path / place, "**/*.txt").units()] for place in ("one", "two", "far")]
    assert globbed == found


def test_links_between_folders_are_walked_once_each(tmp_path: Path) -> None:
    """Twelve folders that link to all others have more than a hundred million paths without a repeated folder."""
    web = tmp_path / "corpora" / "web"
    for number in range(12):
        write(web / f"d{number:02}", f"{number}.txt")
        for other in range(12):
            link(web / f"d{number:02}" / f"to{other:02}", f"../d{other:02}")
    for way in ("folder", "**/*.txt"):
        assert [unit.name for unit in source(tmp_path, way).units()] == [f"d{n:02}/{n}.txt" for n in range(12)]


def test_hard_links_are_files_of_their_own_as_copies_are(tmp_path: Path) -> None:
    web = write(tmp_path / "corpora" / "web", "a.txt")
    os.link(web / "a.txt", web / "b.txt")
    assert texts(source(tmp_path)) == ["text of a.txt"] * 2
    assert [unit.name for unit in source(tmp_path, "*.txt").units()] == ["a.txt", "b.txt"]


def test_a_link_that_leads_nowhere_is_refused_because_documents_would_be_missed(tmp_path: Path) -> None:
    web = write(tmp_path / "corpora" / "web", "a.txt")
    for target in ("gone.txt", "b.txt"):  # nothing; itself
        link(web / "b.txt", target)
        for way in ("folder", "*"):
            with pytest.raises(DataError, match=r"b\.txt: a link that leads nowhere\n.*documents behind it"):
                source(tmp_path, way).units()
        assert source(tmp_path, "**/a*").remarks() == [f"{web / 'b.txt'} is left out: a link that leads nowhere"]
        (web / "b.txt").unlink()
    link(web / ".hidden", "gone")
    assert texts(source(tmp_path)) == ["text of a.txt"]


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = write(tmp_path / "corpora" / "web", "a.txt", "closed/b.txt")
    scan = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("configs.walk.os.scandir", refused)
    with pytest.raises(DataError, match=r"closed: cannot be read \(Permission denied\)"):
        source(tmp_path).units()
    assert find_globs(str(web / "**" / "*.txt"), None).remarks


def test_a_study_sees_that_documents_behind_a_link_have_changed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "x.txt")
    web = write(tmp_path / "corpora" / "web", "a.txt")
    alone = _corpora(tmp_path)
    link(web / "self", ".")
    assert _corpora(tmp_path) == alone, "a loop adds nothing"
    link(web / "there", elsewhere)
    linked = _corpora(tmp_path)
    (elsewhere / "x.txt").write_text("another, longer text")
    assert len({alone, linked, _corpora(tmp_path)}) == 3


def test_without_links_every_file_is_found_as_before(tmp_path: Path) -> None:
    names = ["a.txt", "b/c.jsonl", "b/d/e.parquet", "b.txt", "b-c/f.txt.zst", "[x]/g.txt"]
    write(tmp_path, *names, ".git/x.txt", "README.md", "b/.x.txt")
    formats = sorted(name for name in names if name != "b-c/f.txt.zst")
    assert list(find_in_folder(tmp_path).files) == formats
    everything = walk(tmp_path, hidden=True)
    assert list(everything.files) == sorted([*names, ".git/x.txt", "README.md", "b/.x.txt"])
    assert not everything.remarks and not everything.missing
    assert everything.files == {p.relative_to(tmp_path).as_posix(): p for p in tmp_path.rglob("*") if p.is_file()}


def test_an_sft_set_with_a_loop_has_each_conversation_once(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    folder = tmp_path / "corpora" / "chat"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    link(folder / "self", ".")
    units = Source("chat", SftSpec(hub="x/y", folder="chat"), tmp_path).units()
    assert [len(list(unit.conversations())) for unit in units] == [1]
