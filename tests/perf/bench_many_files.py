"""What it costs that a source lies in thousands of small files: one text in few and in many, with 1,024 descriptors.

    python tests/perf/bench_many_files.py --output tests/perf/results/many_files.json

Every command runs as a user would run it, in a process that may have as many open files as `--descriptors` says, first
on a source of `--few` files and then on the same documents in `--many`. The mixture is V1P0; its other sources have six
small files each in both cases. Time is wall clock, memory the largest resident set (VmHWM, read 20 times a second).

    tokenize    everything from documents to shards, in one process
    rerun       the same once more, which finds nothing to do
    verify      every byte
    show        what a step of training reads
    pretrain    a model of 2 layers for 20 steps
    read        samples of a blend of the large source alone, in random order, warm: as training reads them
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq
from bench_tokenize import corpus

from configs.artifacts import write_json
from configs.load import load_mixture

PROJECT = Path(__file__).resolve().parents[2]
LARGE, OTHER_FILES, OTHER_DOCUMENTS = "refinedweb", 6, 60
STUDY = [
    *("data.kind=local", "mixtures=[V1P0]", "extra_seeds={}", "checkpoint_tokens={}"),
    *("tokenizer.name=few", "tokenizer.vocab=1200", "tokenizer.sample_megabytes=0.2"),
]
RUN = [
    *("data.tokenizer=few", "data.exhaustion=repeat", "data.max_epochs=1000", "validation.sequences=4"),
    *("budget.tokens=null", "budget.steps=20", "log_every_steps=10", "checkpoint_every_steps=20"),
]
READ = """
import json, sys, time
from pathlib import Path
from mixtures.blend.blend import Blend
from mixtures.tokens.shards import Shards
began = time.perf_counter()
shards = Shards.open(Path(sys.argv[1]))
opened = time.perf_counter() - began
found = {"open_s": opened, "parts": len(list(Path(sys.argv[1]).glob("*.bin")))}
for context in (512, 2048):
    blend = Blend({"source": shards}, {"source": 1.0}, context, 0, shards.num_tokens // context)
    documents = sum(1 for i in range(len(blend)) for _ in blend.pieces(i))
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        for i in range(len(blend)):
            blend[i]
        seconds.append(time.perf_counter() - began)
    best = min(seconds)
    found[f"context {context}"] = {
        "samples_per_s": round(len(blend) / best),
        "documents_per_s": round(documents / best),
        "million_tokens_per_s": round(len(blend) * context / best / 1e6, 2),
    }
print(json.dumps(found))
"""


def write_documents(texts: list[str], root: Path, files: int) -> None:
    names = dict.fromkeys(load_mixture("V1P0").weights, (texts[:OTHER_DOCUMENTS], OTHER_FILES))
    for name, (documents, number) in (names | {LARGE: (texts, files)}).items():
        folder = root / "corpora" / name
        folder.mkdir(parents=True)
        for place in range(number):  # in runs, so that the order of documents is the same for every number of files
            part = documents[place * len(documents) // number : (place + 1) * len(documents) // number]
            pq.write_table(pa.table({"text": part}), folder / f"part-{place:05d}.parquet")
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (root / "corpora" / "sft").mkdir()
    pq.write_table(pa.table({"messages": [chat] * 20}), root / "corpora" / "sft" / "part-00000.parquet")


def resident_kib(pid: int) -> int:
    """Largest resident set so far. `getrusage` would count the memory of this process, which forked the other."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def measured(command: list[str], descriptors: int) -> tuple[dict[str, Any], str]:
    """Seconds, MiB and exit code of a command, and what it printed."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(PROJECT)}
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=limit,
        )
        peak_kib = 0
        while process.poll() is None:
            peak_kib = max(peak_kib, resident_kib(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        output.seek(0)
        said = output.read()
    found = {"seconds": round(seconds, 1), "peak_mib": round(peak_kib / 1024), "exit": process.returncode}
    return found, said


def measure_case(texts: list[str], files: int, descriptors: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_documents(texts, root, files)
        data, runs = ["--data", str(root / "data")], ["--runs", str(root / "runs")]
        study = ["--study", "mini", "--documents", str(root), *data]
        config = ["--config", "mini_s.yaml", *data]
        tokens = root / "data" / "tokens" / "few" / LARGE
        commands = {
            "tokenize": ["-m", "mixtures.tokenize", *study, "--workers", "1", *STUDY],
            "rerun": ["-m", "mixtures.tokenize", *study, "--workers", "1", *STUDY],
            "verify": ["-m", "mixtures.verify", *data],
            "show": ["-m", "mixtures.show", *config, "--step", "1", "--chars", "0", *RUN],
            "pretrain": ["megatron_train/pretrain.py", *config, *runs, "--study", "many", *RUN],
            "read": ["-c", READ, str(tokens)],
        }
        found: dict[str, Any] = {}
        for name, command in commands.items():
            found[name], said = measured(command, descriptors)
            print(f"{files:>6,} files  {name:<10}{json.dumps(found[name])}", flush=True)
            if found[name]["exit"]:
                found[name]["said"] = said.strip().splitlines()[-1]
                print(said[-2000:])
            elif name == "read":
                found["reading"] = json.loads(said.strip().splitlines()[-1])
                print(json.dumps(found["reading"], indent=1))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = PROJECT.parent / "shared" / "data"
    parser.add_argument("--documents", type=Path, default=shared, help="folder with corpora/, for the text")
    parser.add_argument("--megabytes", type=float, default=60.0, help="of text")
    parser.add_argument("--few", type=int, default=6)
    parser.add_argument("--many", type=int, default=6000)
    parser.add_argument("--descriptors", type=int, default=1024, help="open files of a process (ulimit -n)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    texts = corpus(arguments.documents, arguments.megabytes)
    print(f"{len(texts):,} documents, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB of text")
    cases = {f"{n} files": measure_case(texts, n, arguments.descriptors) for n in (arguments.few, arguments.many)}
    if arguments.output:
        facts = {
            "documents": len(texts),
            "megabytes": round(sum(len(text.encode()) for text in texts) / 1e6, 1),
            "descriptors": arguments.descriptors,
        }
        write_json(arguments.output, facts | {"cases": cases})


if __name__ == "__main__":
    main()
