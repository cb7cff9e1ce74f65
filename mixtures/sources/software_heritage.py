"""The Stack v2's documents: its rows name objects of Software Heritage's public S3 bucket, which hold the text.

In: rows with `blob_id` and `src_encoding`, or with lists of both (a repository a row). Out: the documents in the same
order, each object read from s3://softwareheritage/content/<blob_id> (gzip), decoded as its row says. Many are on their
way at once, because a request takes far longer than its few kilobytes.

An object that does not exist or cannot be decoded is `Unusable`. A failure that may pass (no network, throttling, no
right to read) is tried again and then ends the unit with DataError: a rerun must find the same documents.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.errors import DataError
from configs.untrusted.checks import DOCUMENT_BYTES
from mixtures.sources.formats import TEXT, Columns, Row, Unusable, list_of

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

BUCKET = "softwareheritage/content"
REGION = "us-east-1"
CONNECTIONS = 32
IN_FLIGHT = 4 * CONNECTIONS
"""Objects asked for or waiting for their turn: what bounds the memory."""
ATTEMPTS = 6
"""Attempts of each request, with the growing pauses of AWS's standard retry strategy in between."""
TIMEOUT_S = 60.0


class Blob(NamedTuple):
    id: str | None
    encoding: str | None


def columns(column: str) -> Columns:
    """What to read of the id table: `blob_id` and its neighbour, or the column that lists both."""
    if column == "blob_id":
        return {"blob_id": TEXT, "src_encoding": TEXT}
    return {column: list_of("blob_id", "src_encoding")}


def contents(rows: Iterable[Row], where: str, endpoint: str | None = None) -> Iterator[str | Unusable]:
    """The text behind each blob of `rows`, in order. Raises DataError where the bucket cannot be read."""
    store = _store(endpoint)
    pool = ThreadPoolExecutor(CONNECTIONS)
    waiting: deque[Future[str | Unusable]] = deque()
    try:
        for blob in _blobs(rows):
            waiting.append(pool.submit(_read, store, blob, where))
            if len(waiting) == IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _blobs(rows: Iterable[Row]) -> Iterator[Blob | Unusable]:
    for row in rows:
        bad = next((value for value in row if isinstance(value, Unusable)), None)
        if bad is not None:
            yield bad
        elif len(row) == 2:
            yield Blob(*row)
        else:
            for entry in row[0] or ():
                yield Blob(entry["blob_id"], entry["src_encoding"])


def _read(store: S3FileSystem, blob: Blob | Unusable, where: str) -> str | Unusable:
    if isinstance(blob, Unusable):
        return blob
    if not blob.id:
        return Unusable("null")
    try:
        with store.open_input_stream(f"{BUCKET}/{blob.id}", compression=None) as stream:
            packed: bytes = stream.read(DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        return Unusable("not at Software Heritage", blob.id)
    except OSError as error:
        raise _unreadable(error, blob.id, where) from error
    return _text(packed, blob)


def _text(packed: bytes, blob: Blob) -> str | Unusable:
    try:
        text = _unpacked(packed)
        return Unusable("too large", f"{blob.id}") if text is None else text.decode(blob.encoding or "utf-8")
    except (EOFError, zlib.error):  # cut short, not gzip, damaged
        return Unusable("damaged object", f"{blob.id}")
    except (UnicodeError, LookupError):  # not in this encoding, no such encoding
        return Unusable("undecodable", f"{blob.id}, {blob.encoding}")


def _unpacked(packed: bytes) -> bytes | None:
    """The content of a gzip file of one or more members; None for more than a document may have."""
    parts: list[bytes] = []
    size = 0
    if len(packed) > DOCUMENT_BYTES:
        return None
    while packed or not parts:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(packed, DOCUMENT_BYTES + 1 - size))
        size += len(parts[-1])
        if size > DOCUMENT_BYTES:
            return None
        if not member.eof:
            raise EOFError
        packed = member.unused_data.lstrip(b"\0")  # padding, which the format allows
    return b"".join(parts)


def _store(endpoint: str | None) -> S3FileSystem:
    """Unsigned, as the bucket allows; signed where the environment names an AWS account."""
    import pyarrow as pa
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    pa.set_io_thread_count(max(CONNECTIONS, pa.io_thread_count()))  # also the number of connections it keeps open
    scheme, _, host = (endpoint or "").rpartition("://")
    options: dict[str, Any] = {"endpoint_override": host, "scheme": scheme or "https"} if endpoint else {}
    return S3FileSystem(
        anonymous=not ({"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & set(os.environ)),
        region=REGION,
        connect_timeout=TIMEOUT_S,
        request_timeout=TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **options,
    )


def _unreadable(error: OSError, blob_id: str, where: str) -> DataError:
    reason = str(error).splitlines()[0]
    if "ACCESS_DENIED" in reason:
        hint = "check AWS_ACCESS_KEY_ID or AWS_PROFILE, or unset both: the bucket can be read without an account"
    else:
        hint = "check the network; rerun to go on, what is finished is kept"
    return DataError(f"cannot read {blob_id} from s3://{BUCKET} ({reason})", where=where, hint=hint)
