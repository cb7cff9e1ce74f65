"""The Stack v2: ids from a table, contents from an S3 server that really speaks S3 (moto), and one that fails."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError
from configs.schema import SourceSpec
from mixtures.sources import software_heritage
from mixtures.sources.source import Dropped, Source

Writer = Callable[..., Path]
CODE = "def naïve():\n    return 'ä'\n"


def blob(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class Bucket:
    """The bucket `softwareheritage` of a moto server."""

    def __init__(self, endpoint: str, client: Any) -> None:
        self.endpoint = endpoint
        self._client = client

    def put(self, text: str, encoding: str = "utf-8") -> str:
        return self.put_raw(gzip.compress(text.encode(encoding)), blob(text.encode(encoding)))

    def put_raw(self, body: bytes, name: str) -> str:
        self._client.put_object(Bucket="softwareheritage", Key=f"content/{name}", Body=body)
        return name


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    account = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **account)
    client.create_bucket(Bucket="softwareheritage", ACL="public-read")
    yield Bucket(endpoint, client)
    server.stop()


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def stack(root: Path, endpoint: str, column: str = "blob_id") -> Source:
    fields = {"text_column": column, "contents": "software_heritage", "contents_endpoint": endpoint}
    spec = SourceSpec(kind="code", display="Stack-v2", files=str(root / "*.parquet"), **fields)
    return Source("stack_v2", spec, None)


def texts(source: Source, dropped: Dropped | None = None) -> list[tuple[int, str]]:
    return [(row, text) for unit in source.units() for row, text in unit.documents(dropped)]


def test_contents_come_in_the_order_of_the_table(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    count = software_heritage.IN_FLIGHT + 20
    wanted = [f"{CODE}{number}" for number in range(count)]
    encodings = list(itertools.islice(itertools.cycle(("UTF-8", "ISO-8859-1", "UTF-16", None)), count))
    ids = [bucket.put(text, encoding or "utf-8") for text, encoding in zip(wanted, encodings, strict=True)]
    write_rows(tmp_path / "a.parquet", blob_id=ids, src_encoding=encodings, language=["Python"] * count)
    assert texts(stack(tmp_path, bucket.endpoint)) == list(enumerate(wanted))


def test_a_repository_a_row_gives_a_document_a_file(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    ids = [bucket.put(f"file {number}") for number in range(4)]
    files = [{"blob_id": name, "src_encoding": "UTF-8", "path": "x"} for name in ids]
    write_rows(tmp_path / "a.parquet", repo_name=["a", "b", "c", "d"], files=[files[:3], [], None, files[3:]])
    assert texts(stack(tmp_path, bucket.endpoint, "files")) == [(n, f"file {n}") for n in range(4)]


def test_the_ids_may_come_from_the_hub(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    files = [{"blob_id": bucket.put(f"hub {n}"), "src_encoding": "UTF-8", "length_bytes": 5} for n in range(2)]
    write_rows(tmp_path / "ids" / "data" / "train-00000-of-00001.parquet", repo_name=["a"], files=[files])
    fields = {"hub": str(tmp_path / "ids"), "text_column": "files", "contents": "software_heritage"}
    spec = SourceSpec(kind="code", display="Stack-v2", contents_endpoint=bucket.endpoint, **fields)
    (unit,) = Source("stack_v2", spec, None).units()
    assert list(unit.documents()) == [(0, "hub 0"), (1, "hub 1")]
    assert unit.inputs()["contents"] == "software_heritage" and unit.size_bytes is None


def test_objects_without_a_text_are_dropped_by_reason(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    whole = gzip.compress(CODE.encode() * 100)
    flipped = bytearray(whole)
    flipped[20] ^= 0xFF
    rows = [
        (bucket.put("kept"), "UTF-8"),
        ("0" * 40, "UTF-8"),
        (bucket.put_raw(whole[:-20], "1" * 40), "UTF-8"),
        (bucket.put_raw(b"not gzip", "2" * 40), "UTF-8"),
        (bucket.put_raw(bytes(flipped), "3" * 40), "UTF-8"),
        (bucket.put_raw(b"", "4" * 40), "UTF-8"),
        (bucket.put("Straße", "latin-1"), "UTF-8"),
        (bucket.put("never mind"), "no-such-encoding"),
        (None, "UTF-8"),
        (bucket.put(" \n"), "UTF-8"),
        (bucket.put("kept too"), "UTF-8"),
    ]
    write_rows(tmp_path / "a.parquet", **dict(zip(("blob_id", "src_encoding"), zip(*rows, strict=True), strict=True)))
    dropped = Dropped()
    assert texts(stack(tmp_path, bucket.endpoint), dropped) == [(0, "kept"), (10, "kept too")]
    reasons = {"not at Software Heritage": 1, "damaged object": 4, "undecodable": 2, "null": 1, "blank": 1}
    assert dropped.counts == reasons
    assert dropped.first["not at Software Heritage"] == [f"a.parquet document 1 ({'0' * 40})"]


def test_a_table_without_ids_is_refused(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "a.parquet", content=["x"], blob_id=["y"])
    with pytest.raises(DataError, match=r"a\.parquet: no column 'src_encoding'\n.*found: content, blob_id"):
        texts(stack(tmp_path, bucket.endpoint))
    with pytest.raises(DataError, match=r"column 'content' holds string\n.*a list of struct<blob_id, src_encoding>"):
        texts(stack(tmp_path, bucket.endpoint, "content"))


def test_a_local_folder_holds_the_text_itself(tmp_path: Path, write_rows: Writer) -> None:
    write_rows(tmp_path / "corpora" / "stack_v2" / "a.parquet", text=["local"])
    spec = SourceSpec(kind="code", display="Stack-v2", hub="org/ids", contents="software_heritage")
    assert texts(Source("stack_v2", spec, tmp_path)) == [(0, "local")]


# ---------------------------------------------------------------------------------------------- a server that fails


class Trouble:
    """In front of the bucket: answers `status` the first `failures` times it is asked for an object, `delay_s` late."""

    def __init__(self, bucket: Bucket, status: int = 503, failures: int = 0, delay_s: float = 0.0) -> None:
        trouble = self
        address = bucket.endpoint.removeprefix("http://")
        self.asked: Counter[str] = Counter()
        self.most_at_once = 0
        running: set[int] = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                running.add(threading.get_ident())
                trouble.most_at_once = max(trouble.most_at_once, len(running))
                time.sleep(delay_s)
                running.remove(threading.get_ident())
                key = f"{self.command} {self.path}"
                trouble.asked[key] += 1
                if trouble.asked[key] <= failures:
                    self._answer(status, b"", {})
                    return
                upstream = http.client.HTTPConnection(address)
                upstream.request(self.command, self.path, headers={"Host": self.headers["Host"]})
                reply = upstream.getresponse()
                self._answer(reply.status, reply.read(), {k: v for k, v in reply.getheaders() if k != "Connection"})

            do_HEAD = do_GET

            def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Trouble:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def table(bucket: Bucket, path: Path, write_rows: Writer, count: int) -> list[tuple[int, str]]:
    wanted = [f"object {number}" for number in range(count)]
    write_rows(path / "a.parquet", blob_id=list(map(bucket.put, wanted)), src_encoding=["UTF-8"] * count)
    return list(enumerate(wanted))


def test_passing_failures_are_tried_again(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    wanted = table(bucket, tmp_path, write_rows, 20)
    with Trouble(bucket, failures=2) as trouble:
        assert texts(stack(tmp_path, trouble.endpoint)) == wanted
    assert min(trouble.asked.values()) == 3


def test_lasting_failures_end_the_unit(
    bucket: Bucket, tmp_path: Path, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software_heritage, "ATTEMPTS", 2)
    table(bucket, tmp_path, write_rows, 2)
    with Trouble(bucket, failures=1000) as trouble, pytest.raises(DataError, match="check the network; rerun to go on"):
        texts(stack(tmp_path, trouble.endpoint))
    with Trouble(bucket, 403, failures=1000) as trouble, pytest.raises(DataError, match="unset both: the bucket can"):
        texts(stack(tmp_path, trouble.endpoint))
    with pytest.raises(DataError, match=r"a\.parquet: cannot read [0-9a-f]{40} from s3://softwareheritage/content"):
        texts(stack(tmp_path, "http://127.0.0.1:9"))


def test_requests_wait_together(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    wanted = table(bucket, tmp_path, write_rows, 40)
    with Trouble(bucket, delay_s=0.2) as trouble:
        assert texts(stack(tmp_path, trouble.endpoint)) == wanted
    assert trouble.most_at_once > software_heritage.CONNECTIONS / 2


def test_a_reader_that_stops_early_leaves_no_requests(bucket: Bucket, tmp_path: Path, write_rows: Writer) -> None:
    table(bucket, tmp_path, write_rows, software_heritage.IN_FLIGHT + 2)
    with Trouble(bucket) as trouble:
        (unit,) = stack(tmp_path, trouble.endpoint).units()
        documents = unit.documents()
        next(documents)
        documents.close()  # type: ignore[attr-defined]
        asked = trouble.asked.total()
        time.sleep(0.3)
        assert trouble.asked.total() == asked
