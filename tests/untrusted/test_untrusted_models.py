"""Exports, models of others and checkpoints that were altered: read, or refused by name; their code is not run."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import damaged, examples, files_below, read_or_refuse, retyped, within_memory
from hypothesis import given
from hypothesis import strategies as st

from configs.artifacts import read_json, sha256_file, sha256_files, write_json
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from mixtures.tokens.new_tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of a few hundred numbers as training exports it, written without transformers."""
    import torch
    from safetensors.torch import save_file

    from configs.schema import ModelShape
    from megatron_train.checkpoints.export import hf_config

    runs = tmp_path_factory.mktemp("runs")
    folder = StudyFolder(runs, "study").run("s", "V1P0", 0, "pt").export(1)
    tokenizer = train_tokenizer(["a b c"] * 3, 262, runs / "tokenizer", {})
    folder.mkdir(parents=True)
    shape = ModelShape(layers=1, hidden=4, heads=2, head_dim=2, ffn_hidden=4, vocab=264, context_tokens=16)
    write_json(folder / "config.json", hf_config(shape, torch.float32) | {"tie_word_embeddings": True})
    at = "model.layers.0."
    shapes = {"model.embed_tokens": (264, 4), "model.norm": (4,), f"{at}input_layernorm": (4,)}
    shapes |= {f"{at}post_attention_layernorm": (4,)}
    shapes |= {f"{at}self_attn.{x}_proj": (4, 4) for x in "qkvo"} | {
        f"{at}mlp.{x}_proj": (4, 4) for x in ("gate", "up", "down")
    }
    torch.manual_seed(0)
    save_file(
        {f"{k}.weight": torch.randn(v) for k, v in shapes.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer.folder / name, folder / name)
    restate(folder, "export.json", step=1, tokens=10, version=1)
    rehash(folder)
    return folder


def restate(folder: Path, name: str, **values: Any) -> None:
    old = read_json(folder / name) if (folder / name).is_file() else {}
    write_json(folder / name, old | values)


def rehash(folder: Path) -> None:
    """export.json says what is there, as whoever altered it may make it say."""
    files = {path.name: {"bytes": path.stat().st_size} for path in folder.iterdir() if path.name != "export.json"}
    restate(
        folder,
        "export.json",
        files=files,
        checkpoint=sha256_files(list(folder.glob("*.safetensors"))),
        tokenizer_sha256=sha256_file(folder / "tokenizer.json"),
    )


def copied(export: Path, runs: Path, name: str, content: bytes) -> Path:
    folder = StudyFolder(runs, "study").run("s", "V1P0", 0, "pt").export(1)
    shutil.copytree(export, folder)
    (folder / name).write_bytes(content)
    if name != "export.json":
        rehash(folder)
    return folder


def score(folder: Path) -> None:
    """Everything that scoring reads of an export."""
    import torch

    from ray_eval.checkpoints.exports import read_export

    found = read_export(folder)
    assert found.score_file.is_relative_to(folder.parents[6]) and found.context_tokens
    found.verify()
    found.encoder().encode("a b")
    found.load(torch.float32, ["cpu"], found.read())


def fine_tune(folder: Path) -> None:
    """Everything that fine-tuning reads of its parent, but for copying the weights into a model of megatron."""
    from megatron_train.checkpoints.export import check_shape, read_export, shape_of, weight_files
    from mixtures.tokens.tokenizer import SpecialIds

    read_export(folder)
    check_shape(folder, shape_of(folder))
    assert all(path.is_relative_to(folder) for path in weight_files(folder).values())
    SpecialIds.read(folder)


FILES = ("config.json", "export.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.mark.parametrize("read", [score, fine_tune])
@pytest.mark.parametrize("name", FILES)
@examples(12)
@given(data=st.data())
def test_an_altered_export_is_read_or_refused(
    read: Callable[[Path], None], name: str, data: st.DataObject, export: Path, tmp_path_factory: Any
) -> None:
    runs = tmp_path_factory.mktemp("r")
    whole = (export / name).read_bytes()
    ways = [damaged(whole)]
    if name.endswith(".json"):
        ways += [retyped(json.loads(whole)).map(lambda tree: json.dumps(tree).encode())]
    folder = copied(export, runs, name, data.draw(st.one_of(ways)))
    before = files_below(runs)
    error = read_or_refuse(lambda: read(folder))
    assert error is None or str(folder) in str(error)
    assert files_below(runs) == before


@examples(25)
@given(data=st.data())
def test_an_altered_header_of_safetensors_is_refused(data: st.DataObject, export: Path, tmp_path_factory: Any) -> None:
    whole = (export / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.dumps(data.draw(retyped(json.loads(whole[8 : 8 + size])))).encode()
    length = data.draw(st.sampled_from((len(header), 2**60, 2**64 - 1, 0, len(whole))))
    folder = copied(
        export,
        tmp_path_factory.mktemp("r"),
        "model.safetensors",
        struct.pack("<Q", length) + header + whole[8 + size :],
    )
    for read in (score, fine_tune):
        read_or_refuse(lambda read=read: read(folder))  # type: ignore[misc]


SIZES: list[tuple[dict[str, int], str]] = [
    ({"num_hidden_layers": 2**20, "hidden_size": 2**20}, "config.json asks for"),
    ({"vocab_size": 2**20}, "config.json asks for"),
    ({"max_position_embeddings": 2**40}, "max_position_embeddings is 1099511627776"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0"),
    ({"head_dim": -2}, "head_dim is -2"),
]


def test_sizes_are_believed_only_with_weights_of_that_size(export: Path, tmp_path: Path) -> None:
    folders = []
    for number, (changes, _) in enumerate(SIZES):
        config = json.dumps(read_json(export / "config.json") | changes).encode()
        folders.append(copied(export, tmp_path / str(number), "config.json", config))
    code = """
    from pathlib import Path
    import torch
    from ray_eval.checkpoints.exports import read_export
    from ray_eval.models.llama import Llama
    start()
    for folder in map(Path, sys.argv[1:]):
        try:
            found = read_export(folder)
            found.load(torch.float32, ["cpu"], found.read())
        except MagicError as error:
            print(" ".join(str(error).split()))
    """
    said = within_memory(code, *folders, limit_mib=64).splitlines()
    for line, (_, message) in zip(said, SIZES, strict=True):
        assert message in line


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "modeling.Model"}},
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "somebody/kernel"},
        {"text_config": {"auto_map": {"AutoModel": "modeling.Model"}}},
        {"text_config": {"attn_implementation": "somebody/kernel"}},
    ],
)
def test_a_config_cannot_ask_for_code(changes: dict[str, Any], export: Path, tmp_path: Path) -> None:
    from ray_eval.checkpoints.hf_checkpoint import read_model

    config = json.dumps(read_json(export / "config.json") | changes).encode()
    folder = copied(export, tmp_path, "config.json", config)
    with pytest.raises(ArtifactError, match="would run code of its own"):
        score(folder)
    with pytest.raises(ArtifactError, match="would run code of its own"):
        read_model(str(folder), tmp_path / "out")


def test_an_adapter_does_not_lead_to_another_model(export: Path, tmp_path: Path) -> None:
    from ray_eval.checkpoints.hf_checkpoint import read_model

    content = json.dumps({"base_model_name_or_path": "somebody/model", "peft_type": "LORA"}).encode()
    folder = copied(export, tmp_path, "adapter_config.json", content)
    for read in (score, lambda folder: read_model(str(folder), tmp_path / "out")):
        with pytest.raises(ArtifactError, match="an adapter of another model"):
            read(folder)


def test_shards_of_weights_lie_in_the_folder(export: Path, tmp_path: Path) -> None:
    from ray_eval.checkpoints.hf_checkpoint import read_model

    for place in ("../../model.safetensors", "/etc/passwd"):
        content = json.dumps({"weight_map": {"model.norm.weight": place}}).encode()
        folder = copied(export, tmp_path / str(len(place)), "model.safetensors.index.json", content)
        for read in (fine_tune, lambda folder: read_model(str(folder), tmp_path / "out")):
            with pytest.raises(ArtifactError, match="it names the file"):
                read(folder)


# ---------------------------------------------------------------------------------------------- plans


@examples(20)
@given(data=st.data())
def test_an_altered_plan_is_read_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    import numpy as np

    from ray_eval.plans.plan import load_plan

    out = io.BytesIO()
    np.savez(out, info=np.frombuffer(b"{}", np.uint8), gold=np.zeros(3, np.int32))
    path = tmp_path_factory.mktemp("p") / "plan.npz"
    path.write_bytes(data.draw(damaged(out.getvalue())))
    assert str(path) in str(read_or_refuse(lambda: load_plan(path)))  # it lacks most arrays: refused in any case


def test_a_plan_is_no_archive_of_zeros_or_objects(tmp_path: Path) -> None:
    import numpy as np

    from ray_eval.plans.plan import load_plan

    np.savez_compressed(tmp_path / "zeros.npz", info=np.zeros(1 << 24, np.uint8))
    with pytest.raises(ArtifactError, match="it is compressed"):
        load_plan(tmp_path / "zeros.npz")
    mark = tmp_path / "mark"
    np.savez(tmp_path / "objects.npz", allow_pickle=True, info=np.array([Payload(mark)], dtype=object))
    with pytest.raises(ArtifactError, match="not a scoring plan"):
        load_plan(tmp_path / "objects.npz")
    assert not mark.exists()


# ---------------------------------------------------------------------------------------------- checkpoints


class Payload:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def save(folder: Path) -> dict[str, Any]:
    import torch
    import torch.distributed.checkpoint as dcp

    state = {"master/a": torch.arange(6.0).view(2, 3), "mean/a": torch.ones(2)}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return state


def load(folder: Path) -> dict[str, Any]:
    import torch
    import torch.distributed.checkpoint as dcp

    from megatron_train.checkpoints.checkpoint import SafeReader

    state = {"master/a": torch.zeros(2, 3), "mean/a": torch.zeros(2)}
    try:
        dcp.load(state, storage_reader=SafeReader(folder), no_dist=True)
    except dcp.CheckpointException as error:  # as `Checkpoints.load` does
        raise ArtifactError(str(next(iter(error.failures.values()))[0])) from None
    return state


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_is_read_without_running_what_it_holds(tmp_path: Path) -> None:
    folder, mark = tmp_path / "step", tmp_path / "mark"
    state = save(folder)
    found = load(folder)
    assert all((found[name] == state[name]).all() for name in state)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for content in (
        pickle.dumps(Payload(mark)),
        pickle.dumps((metadata, Payload(mark))),
        b"cos\nsystem\n(S'true'\ntR.",
    ):
        (folder / ".metadata").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"it asks for (pathlib|posix|os)"):
            load(folder)
    # A "tensor" that is said to be bytes would be unpickled by torch's planner without asking.
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    metadata.state_dict_metadata["mean/a"] = BytesStorageMetadata()
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ArtifactError, match=r"it asks for torch\.distributed\.checkpoint\.metadata\.BytesStorage"):
        load(folder)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_names_no_file_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    save(folder)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../other/__0_0.distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ArtifactError, match="it names the file"):
        load(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "step"
    save(folder)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@examples(40)
@given(data=st.data())
def test_a_damaged_checkpoint_is_read_or_refused(data: st.DataObject, checkpoint: Path, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("c") / "step"
    shutil.copytree(checkpoint, folder)
    name = data.draw(st.sampled_from((".metadata", "__0_0.distcp")))
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    read_or_refuse(lambda: load(folder))
