"""The Hub's own clients, unchanged, against a server in the place of huggingface.co.

It answers what `datasets` and huggingface_hub ask while they stream (a repository, its tree, ranges of its files) and
refuses as the Hub does. The clients read its address when they are imported, and so run in a process of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from configs.artifacts import fingerprint
from configs.layout import PROJECT_ROOT, revisions_file
from mixtures.tokens.tokenizer import Tokenizer

COMMIT = "c0ffee" + "0" * 34
FILES, ROWS = 12, 200


class FakeHub:
    """Serves `<root>/<organisation>/<name>/` as a data set at COMMIT; a folder that holds `.gated` gives no file."""

    def __init__(self, root: Path) -> None:
        hub = self
        self.root = root
        self.asked: list[str] = []

        class Handler(_Handler):
            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                self.route(hub.root)

            do_HEAD = do_POST = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def route(self, root: Path) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        api = parts[0] == "api"
        if parts[api : api + 1] != ["datasets"] or len(parts) < 3 + api:
            return self.refuse(404, "EntryNotFound")
        repository, rest = "/".join(parts[1 + api : 3 + api]), parts[3 + api :]
        folder = root / repository
        if not folder.is_dir():
            return self.refuse(401, "RepoNotFound")
        action, revision, *path = [*rest, "main"] if len(rest) < 2 else rest
        if rest and revision not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if not api:
            return self.file(folder, "/".join(path))
        match action:
            case "tree":
                self.json(self.tree(folder, "/".join(path)))
            case "paths-info":
                self.json([_entry(folder, folder / name) for name in self.wanted() if (folder / name).exists()])
            case _:
                files = [{"rfilename": entry["path"]} for entry in self.tree(folder, "", recursive=True)]
                self.json({"id": repository, "sha": COMMIT, "siblings": files, "private": False, "tags": []})

    def tree(self, folder: Path, below: str, recursive: bool = False) -> list[dict[str, Any]]:
        recursive = recursive or parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
        found = (folder / below).rglob("*") if recursive else (folder / below).glob("*")
        return [_entry(folder, path) for path in sorted(found) if not path.name.startswith(".")]

    def wanted(self) -> list[str]:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        return [paths] if isinstance(paths, str) else paths

    def file(self, folder: Path, name: str) -> None:
        if (folder / ".gated").exists():
            return self.refuse(403, "GatedRepo")
        if not (folder / name).is_file():
            return self.refuse(404, "EntryNotFound")
        content = (folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            end = min(int(last), len(content) - 1) if last else len(content) - 1
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
            return self.answer(206, content[int(first) : end + 1], headers)
        self.answer(200, content, headers)

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


# ---------------------------------------------------------------------------------------------- tests

READ = """
import json, pathlib, sys
from configs.errors import DataError
from configs.schema import SourceSpec
from mixtures.sources.source import Source

data, *wanted = sys.argv[1:]
for fields in map(json.loads, wanted):
    source = Source("web", SourceSpec(kind="web", display="Web", text_column="content", **fields), None)
    try:
        units = source.resolve_revision(pathlib.Path(data), lambda line: None).units()
        print(json.dumps([[unit.inputs(), [text for _, text in unit.documents()]] for unit in units]))
    except DataError as error:
        print(json.dumps(str(error)))
"""

TOKENIZE = """
import json, pathlib, sys
from configs.schema import SourceSpec
from mixtures.tokens.assembly import Assembly, assemble
from mixtures.tokens.sampling import Sample
from mixtures.tokens.shards import Shards
from mixtures.sources.source import Source
from mixtures.tokens.tokenizer import Tokenizer

if __name__ == "__main__":
    data, tokenizer, needed, available = sys.argv[1:]
    spec = SourceSpec(kind="web", display="Web", text_column="content", hub="org/many")
    source = Source("web", spec, None).resolve_revision(pathlib.Path(data), lambda line: None)
    sample = Sample.of(int(needed), int(available))
    folder = pathlib.Path(data) / "tokens" / "web"
    folder.parent.mkdir(parents=True, exist_ok=True)
    assembly = Assembly(source, Tokenizer.load(pathlib.Path(tokenizer)), folder, sample)
    if assembly.existing() is None:
        assemble([assembly], workers=2)
    shards = Shards.open(folder)
    print(json.dumps([shards.num_tokens, shards.manifest]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, write_rows: Callable[..., Path]) -> Iterator[FakeHub]:
    root = tmp_path_factory.mktemp("hub")
    for number in range(3):
        rows = {"content": [f"{number}.{row}" for row in range(4)], f"only_{number}": range(4)}
        write_rows(root / "org" / "web" / "data" / f"train-0000{number}-of-00003.parquet", **rows)
    for number in range(FILES):
        content = [f"{number}.{row} the stone keeps a lantern under the bridge" for row in range(ROWS)]
        write_rows(root / "org" / "many" / f"train-{number:05d}-of-{FILES:05d}.parquet", content=content)
    write_rows(root / "org" / "gated" / "train.parquet", content=["x"])
    (root / "org" / "gated" / ".gated").touch()
    for name in ("script", "empty"):
        (root / "org" / name).mkdir()
    (root / "org" / "script" / "script.py").write_text("import datasets")
    with FakeHub(root) as server:
        yield server


def read(hub: FakeHub, data: Path, *wanted: dict[str, str]) -> list[Any]:
    """What a fresh process reads of each source: its units' inputs and texts, or the message of the refusal."""
    return [json.loads(line) for line in run(hub, data, "-c", READ, str(data), *map(json.dumps, wanted)).splitlines()]


def run(hub: FakeHub, data: Path, *arguments: str) -> str:
    """The output of a fresh Python, for which `hub` is the Hub."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(data / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment["PYTHONPATH"] = str(PROJECT_ROOT)
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hub_is_streamed_at_one_commit_and_refusals_are_understood(hub: FakeHub, tmp_path: Path) -> None:
    web, *refused = read(
        hub,
        tmp_path,
        {"hub": "org/web"},
        {"hub": "org/gated"},
        {"hub": "org/nothing"},
        {"hub": "org/web", "revision": "v9"},
        {"hub": "org/script"},
        {"hub": "org/empty"},
        {"hub": "org/web", "split": "test"},
    )
    path = "data/train-0000{}-of-00003.parquet"
    assert web == [
        [
            {"column": "content", "hub": "org/web", "revision": COMMIT, "path": path.format(number)},
            [f"{number}.{row}" for row in range(4)],
        ]
        for number in range(3)
    ]
    assert json.loads(revisions_file(tmp_path).read_text())["org/web@main"]["commit"] == COMMIT
    expected = (
        "terms must be accepted",
        "no such data set",
        "no revision v9",
        "a loading script",
        "has no files",
        "no split",
    )
    for message, part in zip(refused, expected, strict=True):
        assert message.startswith("org/") and part in message
    listings = [line for line in hub.asked if "/tree/" in line and "/org/web/" in line]
    files = [line for line in hub.asked if line.startswith("GET /datasets/org/web/resolve/") and "train-" in line]
    assert all(COMMIT in line for line in (*listings, *files))
    assert len(listings) <= 4, "units must not list the repository again"


def test_a_sample_of_the_hub_is_tokenized_file_by_file_and_needs_no_network_afterwards(
    hub: FakeHub, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """A quarter of the tokens from the shortest run of files that has them, a part of each file's documents."""
    script = tmp_path / "tokenize_sample.py"  # a file, because its worker processes import it again
    script.write_text(TOKENIZE)
    per_row = len(tokenizer.encode("0.0 the stone keeps a lantern under the bridge")) + 1
    available = FILES * ROWS * per_row
    needed = available // 16
    arguments = (str(script), str(tmp_path / "data"), str(tokenizer.folder), str(needed), str(available))
    found, manifest = json.loads(run(hub, tmp_path, *arguments))
    units = [unit["name"] for unit in manifest["units"]]
    assert needed <= found and manifest["sample"]["fraction"] == pytest.approx(0.25, rel=0.01)
    assert 2 <= len(units) <= 6, "about a quarter of the files"
    assert (
        units == sorted((f"train-{n:05d}-of-{FILES:05d}.parquet" for n in range(FILES)), key=fingerprint)[: len(units)]
    )
    assert found - manifest["units"][-1]["tokens"] < needed, "no file more than it takes"

    asked = len(hub.asked)
    assert json.loads(run(hub, tmp_path, *arguments)) == [found, manifest]
    again = [line for line in hub.asked[asked:] if "/api/datasets/org/many/tree" in line or "/resolve/" in line]
    assert not again, "what is finished is kept, and the list of files is recorded"
