"""Tokenizing at length: kills at random moments, memory over gigabytes, one very long document."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from token_shards import contents, tokenize_source, write_source

from configs.runtime.cluster import cluster
from mixtures.tokens.assembly import Assembly, assemble
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

SOURCES = ["refinedweb", "starcoder", "wikipedia", "arxiv", "stackexchange", "books"]
"""Of the mixture V1P0."""
KILLS, KILLS_AT_FULL_SIZE = 8, 20
WORDS = "the stone river keeps a lantern under every bridge because winter returns to them and nobody remembers why"


def prose(size: int, seed: int) -> str:
    """About `size` characters of words in random order."""
    words = WORDS.split()
    return " ".join(random.Random(seed).choices(words, k=size // 6))


@pytest.mark.slow
def test_kills_at_random_moments_change_no_byte(tmp_path: Path, full_size: bool) -> None:
    wanted_kills = KILLS_AT_FULL_SIZE if full_size else KILLS
    root = tmp_path / "documents"
    for number, name in enumerate(SOURCES):
        write_source(root, name, [prose(3000, 1000 * number + n) for n in range(600)], files=4)
    chats = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * 20
    (root / "corpora" / "sft").mkdir()
    pq.write_table(pa.table({"messages": chats}), root / "corpora" / "sft" / "part-00000.parquet")

    def start(data: Path) -> subprocess.Popen[str]:
        options = ["tokenizer.name=tiny", "tokenizer.vocab=400", "tokenizer.sample_megabytes=0.01"]
        options += ["data.kind=local", "mixtures=[V1P0]", "extra_seeds={}", "checkpoint_tokens={}"]
        command = [sys.executable, "-m", "mixtures.tokenize", "--study", "mini", "--documents", str(root)]
        command += ["--data", str(data), "--workers", "2", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def first_line(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"reading {len(SOURCES)} sources")

    process = start(tmp_path / "whole")
    first_line(process)
    began = time.monotonic()
    process.communicate()
    duration = time.monotonic() - began
    assert process.returncode == 0
    wanted = contents(tmp_path / "whole")
    assert sum(name.endswith(".bin") for name in wanted) >= 24

    draw, killed = random.Random(3), tmp_path / "killed"
    unfinished, kills = 0, 0
    hits = wanted_kills // 5  # so many must come while something is being written
    while kills < wanted_kills or (unfinished < hits and kills < 5 * wanted_kills):
        process = start(killed)
        first_line(process)
        time.sleep(draw.uniform(0, duration))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        if process.returncode == 0:  # it was done before the kill came: once more from the beginning
            assert contents(killed) == wanted
            shutil.rmtree(killed)
        else:
            assert process.returncode == -signal.SIGKILL
            unfinished += any(killed.rglob("*.partial"))
    assert unfinished >= hits, "the kills came when nothing was being written"
    process = start(killed)
    process.communicate()
    assert process.returncode == 0
    assert contents(killed) == wanted


@pytest.mark.slow
def test_ray_and_processes_write_the_same_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = write_source(tmp_path, "web", [prose(300, n) for n in range(600)], files=6)
    made = {}
    for name, workers, use_ray in (("one", 1, False), ("two", 2, False), ("four", 4, False), ("ray", 2, True)):
        assembly = Assembly(source, tokenizer, tmp_path / name / "web")
        with cluster(2) if use_ray else contextlib.nullcontext():
            assemble([assembly], workers=workers, use_ray=use_ray)
        made[name] = contents(assembly.folder)
    assert made["one"] == made["two"] == made["four"] == made["ray"]


MEASURED = """
import json, resource, sys
from pathlib import Path

from configs.schema import SourceSpec
from mixtures.tokens.assembly import Assembly, assemble
from mixtures.tokens.shards import Shards
from mixtures.sources.source import Source
from mixtures.tokens.tokenizer import Tokenizer

if __name__ == "__main__":
    root = Path(sys.argv[1])
    source = Source("web", SourceSpec(kind="web", display="web", folder="web"), root)
    folder = root / "tokens" / "x" / "web"
    assemble([Assembly(source, Tokenizer.load(Path(sys.argv[2])), folder)], workers=2)
    shards = Shards.open(folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found = {"bytes": shards.manifest["utf8_bytes"], "documents": shards.manifest["kept"]}
    print(json.dumps({"peak_mib": peak / 1024, **found}))
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path, full_size: bool) -> None:
    """Two files of 1 GB (400 MB): one begins with a single row group of 200 MB (40 MB), both go on with small ones."""
    megabytes, group, limit_mib = (1000, 200, 954) if full_size else (400, 40, 400)
    text = prose(1_000_000, seed=1)
    tokenizer = train_tokenizer([text], 400, tmp_path / "tokenizer", {})
    folder = tmp_path / "corpora" / "web"
    folder.mkdir(parents=True)
    documents = [f"{n} {text[start : start + 10_000]}" for n, start in enumerate(range(0, 1_000_000, 10_000))]
    for number in range(2):
        schema = pa.schema({"text": pa.string()})
        with pq.ParquetWriter(folder / f"part-{number}.parquet", schema, use_dictionary=False) as writer:
            if number == 0:
                big = [f"{n} of the first {document}" for n in range(group) for document in documents]
                writer.write_table(pa.table({"text": big}, schema), row_group_size=len(big))
            for n in range(megabytes if number else megabytes - group):
                writer.write_table(pa.table({"text": [f"{number} {n} {document}" for document in documents]}, schema))
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(tmp_path), str(tokenizer.folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    measured = json.loads(result.stdout)
    print(measured)
    assert measured["bytes"] > 1.95e6 * megabytes and measured["documents"] == 200 * megabytes
    assert measured["peak_mib"] < limit_mib


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "one word", "spaces"])
def test_a_document_of_50_megabytes_goes_through(tokenizer: Tokenizer, tmp_path: Path, kind: str) -> None:
    size = 50_000_000
    long = {"words": prose(size * 6 // 5, 5), "one word": "ab" * (size // 2), "spaces": "x" + " " * size}[kind]
    source = write_source(tmp_path, "web", ["before", long, "after"])
    shards = tokenize_source(source, tokenizer, tmp_path / "out" / "web")
    assert isinstance(shards, Shards) and shards.validation is not None
    sides = (shards, shards.validation)
    decoded = [tokenizer.decode(side.document(i)[:-1]) for side in sides for i in range(side.num_documents)]
    assert sorted(map(len, decoded)) == sorted(map(len, ["before", long, "after"]))
    assert set(decoded) == {"before", long, "after"}
