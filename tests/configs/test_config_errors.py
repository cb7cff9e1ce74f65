"""A user's mistake: file, key, value found, what would be valid; exit code 2 and no traceback."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ArtifactError, ConfigError, DataError, MagicError, ResourceError
from configs.layout import CONFIG_ROOT, PROJECT_ROOT
from configs.load import load, load_mixture, load_study, load_train, parse_overrides, read_yaml, save
from configs.schema import MixtureConfig, StudyConfig, TrainConfig

MINI = CONFIG_ROOT / "mini_s.yaml"


def refused(*overrides: str, spec: Path | str = MINI) -> str:
    with pytest.raises(ConfigError) as caught:
        load_train(spec, parse_overrides(overrides))
    message = str(caught.value)
    return message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.heeds=4", ["model.heeds: unknown key", "did you mean heads?", "valid: layers, hidden, heads"]),
        ("modle.heads=4", ["modle: unknown key", "did you mean model?"]),
        ("model.layers=many", ["model.layers", "integer", "found 'many'"]),
        ("model.layers=2.5", ["model.layers", "integer", "found 2.5"]),
        ("model.layers=0", ["model.layers", "greater than 0", "found 0"]),
        ("model.layers=", ["model.layers", "found nothing"]),
        ("optimizer.lr=fast", ["optimizer.lr", "number", "found 'fast'"]),
        ("optimizer.lr=-1e-3", ["optimizer.lr", "greater than 0", "found -0.001"]),
        ("precision=fp8", ["precision", "'fp32' or 'bf16'", "found 'fp8'"]),
        ("model.head_dim=15", ["model.head_dim", "even", "found 15"]),
        ("batch.micro_sequences=3", ["batch", "8", "3", "multiple"]),
        ("parallel.tensor=3", ["model.heads (4) must be divisible by parallel.tensor (3)"]),
        ("budget.steps=5", ["budget", "exactly one of tokens, steps, epochs", "found tokens and steps"]),
        ("budget.tokens=null", ["exactly one", "found none"]),
        ("checkpoint_tokens=[700_000]", ["checkpoint_tokens (700,000)", "599,040 tokens"]),
        ("recipe=mini", ["recipe", "empty for stage pt"]),
        ("model=4", ["model", "found 4"]),
        ("seed=-1", ["seed", "greater than or equal to 0"]),
    ],
)
def test_impossible_values_are_named(override: str, parts: list[str]) -> None:
    message = refused(override)
    assert str(MINI) in message
    for part in parts:
        assert part in message, message


def test_every_wrong_key_is_listed_at_once() -> None:
    message = refused("model.heeds=4", "optimizer.lr=fast", "precision=fp8")
    assert all(key in message for key in ("model.heeds", "optimizer.lr", "precision"))


def test_tensor_parallel_size_must_divide_the_vocabulary() -> None:
    assert "model.vocab (1023)" in refused("model.vocab=1023", "parallel.tensor=2")


@pytest.mark.parametrize("item", ["model.layers", "=4", "model.layers=[1,", "model..layers=4", "model.layers.deep=1"])
def test_malformed_overrides(item: str) -> None:
    message = refused(item)
    assert "override" in message and "Traceback" not in message


def test_vocabulary_smaller_than_the_tokenizer() -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab \(1280\) is smaller than the tokenizer \(2048 entries\)"):
        load_study("mini", {"tokenizer.vocab": 2048})


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("mixtures", ["V1P0", "V9P9"], "V9P9.yaml: no such config file"),
        ("mixtures", [], "mixtures"),
        ("mixtures", ["V1P0", "V1P0"], "mixtures names ['V1P0'] twice"),
        ("benchmarks", ["hellaswag", "mmlu"], "unknown benchmark 'mmlu'"),
        ("recipes", ["table2b"], "scales.mini_s.sft lacks the recipes ['table2b']"),
        ("extra_seeds", {"V1C2P0": [1]}, "extra_seeds names mixtures that are not in the study"),
        ("checkpoint_tokens", {"1b": [1000]}, "checkpoint_tokens names scales that are not in the study"),
        ("scales", {"small": {"config": "mini_s.yaml", "sft": {"mini": "mini_s_sft.yaml"}}}, "differs from the study"),
        ("data.kind", "s3", "'microworld', 'local' or 'hub'"),
    ],
)
def test_impossible_studies(key: str, value: object, part: str) -> None:
    overrides: dict[str, object] = {key: value}
    if key in ("mixtures", "scales"):
        overrides["extra_seeds"] = {}
    if key == "scales":
        overrides["checkpoint_tokens"] = {}
    with pytest.raises(ConfigError) as caught:
        load_study("mini", overrides)
    assert part in str(caught.value)


# ---------------------------------------------------------------------------------------------- files


def test_mixture_weights(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    for weights, part in (
        ("{refinedweb: 0.5, starcoder: 0.4}", "sum to 0.9, they must sum to 1"),
        ("{refinedweb: 1.5, starcoder: -0.5}", "weights.refinedweb"),
        ("{refinedweb: .nan}", "weights"),
        ("{}", "sum to 0"),
        ("{refinedweb: 0.5, refinedweb: 0.5}", "the key 'refinedweb' comes twice"),
    ):
        path.write_text(f"name: bad\nweights: {weights}\n")
        with pytest.raises(ConfigError) as caught:
            load(MixtureConfig, path)
        assert str(path) in str(caught.value) and part in str(caught.value)


def test_a_mixture_of_an_unknown_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.load.CONFIG_ROOT", tmp_path)
    load_mixture.cache_clear()
    (tmp_path / "mixtures").mkdir()
    (tmp_path / "sources.yaml").write_text((CONFIG_ROOT / "sources.yaml").read_text())
    (tmp_path / "mixtures" / "odd.yaml").write_text("name: odd\nweights: {reddit: 1.0}\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml: weights\.reddit: unknown source\n  valid: refinedweb, fineweb"):
        load_mixture("odd")
    (tmp_path / "mixtures" / "other.yaml").write_text("name: odd\nweights: {books: 1.0}\n")
    with pytest.raises(ConfigError, match="differs from the file name"):
        load_mixture("other")
    load_mixture.cache_clear()


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1bb\.yaml: no such config file\n  valid: .*1b\.yaml"):
        load_train(CONFIG_ROOT / "1bb.yaml")
    with pytest.raises(ConfigError, match=r"no preset 'texts'\n  valid: table2b, text, equal"):
        load_train("1b_sft.yaml#texts")
    path = tmp_path / "x.yaml"
    for content, part in (
        (b"scale: [1,\nstage: pt", "line 2"),
        (b"- a\n- b\n", "expected a mapping of keys"),
        (b"", "found nothing"),
        (b"\xff\xfe\x00", "x.yaml: not"),
        (b"presets: 3\n", "presets"),
        (b"{[1]: 2}\n", "not valid YAML"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_train(path)
        assert str(path) in str(caught.value) and part in str(caught.value), caught.value


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-3\nb: 5E3\nc: 12_000\nd: 1.5e+2\ne: e5\nf: 0x10\n")
    assert read_yaml(path) == {"a": 1e-3, "b": 5e3, "c": 12_000, "d": 150.0, "e": "e5", "f": 16}
    assert load_train(MINI, parse_overrides(["budget.tokens=6e5", "optimizer.lr=3e-3"])).budget.tokens == 600_000


# ---------------------------------------------------------------------------------------------- round trips

TRAIN_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "optimizer.lr": st.floats(1e-9, 10, allow_subnormal=False),
        "optimizer.beta2": st.floats(0, 1),
        "model.layers": st.integers(1, 100),
        "model.head_dim": st.integers(1, 64).map(lambda n: 2 * n),
        "model.tied_embeddings": st.booleans(),
        "tracking.wandb_project": st.text(min_size=1),
        "data.tokenizer": st.sampled_from(["1e5", "yes", "null", "007", "1_0"]),
        "checkpoint_tokens": st.lists(st.integers(1, 500_000), max_size=3),
    },
)


@given(TRAIN_FIELDS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_saved_config_loads_as_itself(tmp_path: Path, overrides: dict[str, object]) -> None:
    config = load_train(MINI, overrides)
    save(config, tmp_path / "config.yaml")
    assert load(TrainConfig, tmp_path / "config.yaml") == config


def test_saved_studies_and_presets_load_as_themselves(tmp_path: Path) -> None:
    for config in (load_study("mini"), load_study("real_small"), load_train("1b_sft.yaml#text")):
        save(config, tmp_path / "config.yaml")
        assert load(type(config), tmp_path / "config.yaml") == config
    assert isinstance(load_study("mini"), StudyConfig)


@given(st.integers() | st.booleans() | st.none() | st.lists(st.integers()) | st.floats(allow_nan=False))
def test_override_values_are_yaml(value: object) -> None:
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    assert parse_overrides([f"a.b={text}"]) == {"a.b": value}


@pytest.mark.parametrize("kind", [MagicError, ConfigError, DataError, ArtifactError, ResourceError])
def test_errors_survive_pickling(kind: type[MagicError]) -> None:
    error = kind("it is odd", where=Path("a/b.yaml"), valid=["even"], hint="make it even")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.problem == "it is odd"
    assert str(again) == "a/b.yaml: it is odd\n  valid: ['even']\n  next:  make it even"
    assert str(pickle.loads(pickle.dumps(again))) == str(error)


# ---------------------------------------------------------------------------------------------- the command line


def run(*command: str, timeout: float | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env=os.environ | environment,
        check=False,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    "arguments",
    [("configs/1b.yaml", "model.heeds=4"), ("nosuch.yaml",), ("configs/1b.yaml#none",), ("mini", "seeds=x")],
)
def test_user_errors_end_with_code_2_and_no_traceback(arguments: tuple[str, ...]) -> None:
    done = run("-m", "configs.cost", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_only_rank_0_speaks_and_a_full_disk_is_the_machines_fault() -> None:
    script = "from configs.errors import user_errors\n@user_errors\ndef main():\n    raise {}\nmain()\n"
    error = "__import__('configs.errors').errors.DataError('no rows')"
    loud = run("-c", script.format(error))
    assert (loud.returncode, loud.stderr) == (2, "error: no rows\n")
    # Another rank leaves rank 0 the time to speak: torchrun would end it otherwise.
    with pytest.raises(subprocess.TimeoutExpired) as quiet:
        run("-c", script.format(error), RANK="1", timeout=3)
    assert not quiet.value.stderr
    full = run("-c", script.format("OSError(28, 'No space left on device', 'x.bin')"))
    assert full.returncode == 2 and "x.bin: no space left" in full.stderr and "Traceback" not in full.stderr
    for code in (errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR):
        path = run("-c", script.format(f"OSError({code}, 'as the system says', 'x/y')"))
        assert path.returncode == 2 and path.stderr.startswith("error: x/y: ") and "Traceback" not in path.stderr
    for ours in ("FileNotFoundError(2, 'No such file', 'x')", "OSError(20, 'no path is named')"):
        assert "Traceback" in run("-c", script.format(ours)).stderr
    bug = run("-c", script.format("KeyError('a bug of ours')"))
    assert bug.returncode == 1 and "Traceback" in bug.stderr


def test_loading_a_config_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "ray", "transformers", "datasets", "pyarrow", "pandas", "megatron"]
    script = f"import configs.cost.__main__, sys; print(sorted(set(sys.modules) & set({heavy!r})))"
    assert run("-c", script).stdout == "[]\n"


def test_the_plan_is_printed() -> None:
    done = run("-m", "configs.cost", "configs/studies/paper.yaml", "--mfu", "0.5")
    assert done.returncode == 0, done.stderr
    assert "72 checkpoints, 1,440 evaluations" in done.stdout and "50% of 989.5 TFLOP/s" in done.stdout
    assert "examples:" in run("-m", "configs.cost", "--help").stdout
