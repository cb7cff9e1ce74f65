"""A source of more files than a process may have open is made, verified, shown and read."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from token_shards import make_shards, write_source

from configs.errors import ArtifactError
from configs.load import load_mixture
from mixtures.tokens import open_files
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

Texts = Callable[[int, int], list[str]]
FILES, DESCRIPTORS = 120, 100
STUDY = ["data.kind=local", "mixtures=[V1P0]", "extra_seeds={}", "checkpoint_tokens={}", "tokenizer.name=tiny"]
STUDY += ["tokenizer.vocab=400", "tokenizer.sample_megabytes=0.01"]
RUN = ["model.context_tokens=64", "batch.sequences=4", "batch.micro_sequences=4", "budget.tokens=null"]
RUN += ["budget.steps=3", "data.tokenizer=tiny"]
SCRIPT = """
import os, resource, sys
from pathlib import Path

descriptors, documents, data = int(sys.argv[1]), sys.argv[2], sys.argv[3]
study, run = sys.argv[4].split(), sys.argv[5].split()
resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

def held():
    # Descriptors and maps of files of shards; both must stay few.
    links = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sum("/tokens/" in str(link.readlink()) for link in links), sum("/tokens/" in line for line in maps)

from mixtures import show, tokenize, verify
tokenize.main(["--study", "mini", "--documents", documents, "--data", data, "--workers", "1", *study])
verify.main(["--data", data, "--workers", "1"])
show.main(["--config", "mini_s.yaml", "--data", data, "--step", "1", "--chars", "40", *run])

from configs.load import load_train, parse_overrides
from mixtures.blend.blend import open_blend, open_shards
from mixtures.tokens.shards import Shards
shards = Shards.open(Path(data) / "tokens" / "tiny" / "refinedweb")
most = (0, 0)
for i in range(shards.num_documents):
    assert len(shards.document(i)) == shards.lengths[i] and shards.origin(i)[1] >= 0
    if i % 10 == 0:
        most = tuple(map(max, most, held()))
assert 0 < most[0] <= descriptors // 4 and most[1] <= 1, most
config = load_train("mini_s.yaml", parse_overrides(run))
blend = open_blend(config, open_shards(config, Path(data)), Path(data))
assert all(blend[i].shape == (65,) for i in range(len(blend)))
print(shards.num_documents, "read")

# Every part is damaged: the first is named, and no file of the others stays open.
for path in shards.folder.glob("*.bin"):
    path.write_bytes(path.read_bytes()[:-2] + b"\\xff\\xff")
verify.main([str(shards.folder), "--workers", "1"])
"""


def documents_in(root: Path, files: int, texts: Texts) -> Path:
    """All sources of V1P0, the first in many files."""
    for number, name in enumerate(load_mixture("V1P0").weights):
        write_source(root, name, texts(3 * files if number == 0 else 60, number), files if number == 0 else 2)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (root / "corpora" / "sft").mkdir()
    pq.write_table(pa.table({"messages": [chat] * 5}), root / "corpora" / "sft" / "part-00000.parquet")
    return root


def test_more_files_than_descriptors(tmp_path: Path, texts: Texts) -> None:
    root = documents_in(tmp_path / "documents", FILES, texts)
    arguments = [str(DESCRIPTORS), str(root), str(tmp_path / "data"), " ".join(STUDY), " ".join(RUN)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True)
    assert "all as their manifests say" in done.stdout, done.stderr
    assert "\n    part-00" in done.stdout, "show names the file of a document"
    assert " read\n" in done.stdout, done.stderr
    assert done.returncode == 2 and "part-00000.bin: document" in done.stderr, done.stderr


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return make_shards(texts(120, 1), tokenizer, tmp_path_factory.mktemp("many") / "web", files=40)


def every_document(shards: Shards, _: object = None) -> list[list[int]]:
    return [shards.document(i).tolist() for i in range(shards.num_documents)]


def expected(shards: Shards) -> list[list[int]]:
    """The documents as they lie in the files, one after another."""
    ids = np.concatenate([np.fromfile(path, np.uint16) for path in sorted(shards.folder.glob("*.bin"))])
    return [document.tolist() for document in np.split(ids, np.cumsum(shards.lengths)[:-1])]


def test_threads_that_close_each_others_files_read_the_right_bytes(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = functools.lru_cache(maxsize=2)(open_files._opened.__wrapped__)
    monkeypatch.setattr(open_files, "_opened", few)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(functools.partial(every_document, shards), range(16)))
    assert all(each == found[0] for each in found) and found[0] == expected(shards)
    assert few.cache_info().misses > 100


def test_shards_travel_to_other_processes(shards: Shards) -> None:
    here = every_document(shards)
    assert every_document(pickle.loads(pickle.dumps(shards))) == here
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(functools.partial(every_document, shards), range(2)) == [here, here]


def test_a_piece_of_a_document_is_that_piece(shards: Shards) -> None:
    whole = shards.document(5)
    for start, stop in ((0, 3), (2, None), (1, 10**6), (4, 4), (len(whole), None), (7, 2)):
        np.testing.assert_array_equal(shards.document(5, start, stop), whole[start:stop])
    assert whole.dtype == np.uint16 and not whole.flags.writeable


def test_files_that_go_or_shrink_while_they_are_read_are_named(
    tokenizer: Tokenizer, texts: Texts, tmp_path: Path
) -> None:
    shards = make_shards(texts(90, 2), tokenizer, tmp_path / "web", files=3)
    first, last = shards.folder / "part-00000.bin", shards.folder / "part-00002.bin"
    last.write_bytes(last.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match=r"part-00002\.bin: it ends before the last document"):
        shards.document(shards.num_documents - 1)
    first.unlink()
    with pytest.raises(ArtifactError, match=r"part-00000\.bin: file is missing"):
        shards.document(0)


def test_a_folder_made_again_is_not_read_through_old_files(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    old = make_shards(texts(40, 3), tokenizer, tmp_path / "web")
    before = every_document(old)
    new = make_shards(texts(40, 4), tokenizer, tmp_path / "web")
    assert every_document(new) == expected(new) != before
