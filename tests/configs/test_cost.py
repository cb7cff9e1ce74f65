"""The planner against published arithmetic, transformers' own model and torch's own FLOP counter."""

from __future__ import annotations

import pytest
import yaml

from configs.cost.__main__ import main
from configs.cost.description import describe
from configs.cost.gpus import GPUS
from configs.cost.model import flops_per_token, memory, parameters
from configs.cost.plan import Hardware, plan_run, plan_study, training_steps
from configs.errors import ConfigError
from configs.layout import CONFIG_ROOT
from configs.load import load_study, load_train
from configs.schema import ModelShape


def llama(shape: ModelShape):  # type: ignore[no-untyped-def]
    """The same model in transformers, without memory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.ffn_hidden,
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context_tokens,
        tie_word_embeddings=shape.tied_embeddings,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


# Total tied, outside the embedding, total untied (in millions); GFLOPs a token with full and with causal attention.
PAPER = {"240m": (241.1, 163.6, 318.5, 2.252, 1.849), "1b": (1147.5, 978.0, 1316.9, 8.093, 7.489)}


@pytest.mark.parametrize("scale", PAPER)
def test_counts_of_the_papers_models(scale: str) -> None:
    tied, outside, untied, full, causal = PAPER[scale]
    model = load_train(f"{scale}.yaml").model
    count, flops = parameters(model), flops_per_token(model)
    assert round(count.total / 1e6, 1) == round(count.total_tied / 1e6, 1) == tied
    assert round(count.outside_embedding / 1e6, 1) == outside
    assert count.total_untied / 1e6 == pytest.approx(untied, abs=0.1)
    assert round(flops.full / 1e9, 3) == full
    assert flops.causal / 1e9 == pytest.approx(causal, abs=6e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["240m", "1b", "mini_s", "mini_m"])
def test_parameters_equal_transformers(name: str, tied: bool) -> None:
    shape = load_train(f"{name}.yaml", {"model.tied_embeddings": tied}).model
    assert parameters(shape).total == sum(p.numel() for p in llama(shape).parameters())


@pytest.mark.parametrize("name", ["240m", "mini_m"])
def test_flops_equal_a_count_of_every_product(name: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape = load_train(f"{name}.yaml").model
    tokens = torch.zeros((1, shape.context_tokens), dtype=torch.long, device="meta")
    model = llama(shape)
    with FlopCounterMode(display=False) as counter:
        model(tokens).logits.sum().backward()
    # The counter also sees the table of rotary angles, and not that the input needs no gradient.
    assert counter.get_total_flops() / shape.context_tokens == pytest.approx(flops_per_token(shape).full, rel=1e-3)


def test_steps_and_tokens() -> None:
    small, large = plan_run(load_train("240m.yaml")), plan_run(load_train("1b.yaml"))
    assert (small.steps, large.steps) == (11_444, 49_591)
    assert 12e9 - small.config.tokens_per_step < small.tokens <= 12e9
    assert plan_run(load_train("240m.yaml#table2a_steps")).tokens == 200_000 * 256 * 4096
    # Table 2b prints 6,365 and 12,730 steps: 1,273 an epoch, which is 325,888 examples.
    for scale, steps in (("240m", 6_365), ("1b", 12_730)):
        config = load_train(f"{scale}_sft.yaml")
        assert training_steps(config, 325_888) == steps
        assert training_steps(config, 325_889) == steps + 1
        assert plan_run(config).steps == pytest.approx(steps, rel=1e-3)
    with pytest.raises(ConfigError, match="number of examples"):
        training_steps(load_train("1b_sft.yaml"))
    assert training_steps(load_train("mini_s_sft.yaml")) == 100


def test_passes_over_the_sources() -> None:
    plan = plan_run(load_train("240m.yaml"), source_tokens={"refinedweb": 7_800_000_000, "starcoder": 10**9})
    assert plan.epochs["refinedweb"] == pytest.approx(1.0, rel=1e-3)
    assert plan.epochs["starcoder"] == pytest.approx(3.0, rel=1e-3)
    assert plan.epochs["books"] is None  # unknown is not zero
    assert "books unknown" in describe(plan)
    assert plan_run(load_train("1b_sft.yaml"), sft_examples=2560).epochs == {"sft": 10}


def test_memory_and_disk() -> None:
    config = load_train("1b.yaml")
    count = parameters(config.model)
    one, two = memory(config), memory(load_train("1b.yaml", {"parallel.tensor": 2}))
    assert one.weights + one.gradients + one.moments == 18 * count.total  # 2 + 4 + 4 + 8 bytes
    assert two.moments == 8 * ((count.total - count.norms) // 2 + count.norms)
    assert two.activations_estimate < one.activations_estimate
    # megatron's distributed optimizer: eight copies of the model share masters and moments.
    eight = memory(config, data_parallel=8)
    assert eight.weights + eight.gradients + eight.moments == 2 * count.total + 4 * count.total + 12 * count.total // 8
    assert plan_run(config, hardware=Hardware(count=8)).memory == eight
    full = memory(load_train("1b.yaml", {"precision": "fp32"}))
    assert full.weights + full.gradients + full.moments == 16 * count.total
    half = memory(load_train("1b.yaml", {"batch.micro_sequences": 2}))
    # All but the loss, which works in pieces of a fixed size, halves with the micro-batch.
    assert one.activations_estimate / 2 < half.activations_estimate < one.activations_estimate

    plan = plan_run(load_train("1b.yaml", {"checkpoint_tokens": [10**9, 10**9 + 1, 2 * 10**9]}))
    assert plan.exports == 3  # two milestones fall on the same step; the last step comes besides
    assert plan.disk_bytes == 3 * (12 + 2) * count.total + 3 * 12 * count.total  # two are kept while one is written
    assert plan_run(load_train("1b.yaml", {"checkpoint_every_steps": 0})).disk_bytes == 14 * count.total


def test_token_shards_hold_what_the_mixtures_need_and_no_more() -> None:
    """Table 3 by hand: the largest share of each source in any mixture, of the 52B tokens of the large scale."""
    table = [
        yaml.safe_load(path.read_text())["weights"] for path in (CONFIG_ROOT / "mixtures").glob("V[123]P[012].yaml")
    ]
    most = {source: max(weights.get(source, 0) for weights in table) for weights in table for source in weights}
    assert len(table) == 9 and sum(most.values()) == pytest.approx(3 * 0.65 + 2 * 0.45 + 4 * 0.075)
    plan = plan_study(load_study("paper"))
    assert plan.shard_tokens == {source: pytest.approx(52e9 * share, rel=1e-4) for source, share in most.items()}
    assert plan.id_bytes * sum(filter(None, plan.shard_tokens.values())) / 2**30 == pytest.approx(
        52e9 * 3.15 * 4 / 2**30, rel=1e-4
    )
    assert "token shards 610.2 GiB: 163.8B tokens of 4 bytes" in describe(plan)
    # A source that ends before that is taken whole.
    longer = plan_study(load_study("paper", {"recipes": [], "overrides": {"budget.tokens": 500_000_000_000}}))
    assert longer.shard_tokens["arxiv"] == 28_000_000_000 < 0.075 * 500e9 == pytest.approx(longer.shard_tokens["books"])

    whole = plan_study(load_study("paper", {"data.kind": "local"}))
    assert set(whole.shard_tokens.values()) == {None}
    assert "token shards all local documents, about 1 bytes for each byte of text" in describe(whole)
    part = plan_study(load_study("paper", {"data.kind": "local", "data.sample": True}))
    assert part.shard_tokens == plan.shard_tokens
    mini = plan_study(load_study("mini"))  # 2.5 MB of text for each of nine sources, two bytes for each 4 of them
    assert sum(filter(None, mini.shard_tokens.values())) * mini.id_bytes == 9 * 2.5e6 / 4 * 2


def test_gpu_hours_follow_the_stated_assumptions() -> None:
    config = load_train("240m.yaml")
    plan = plan_run(config, hardware=Hardware(mfu=0.5))
    assert plan.tokens_per_second == pytest.approx(220e3, rel=3e-3)
    assert plan.gpu_hours == pytest.approx(plan.tokens * 2.252e9 / (0.5 * 989.5e12) / 3600, rel=1e-3)
    assert plan_run(config).gpu_hours == pytest.approx(plan.gpu_hours * 0.5 / 0.4)
    assert plan_run(load_train("mini_s.yaml")).gpu_hours is None
    assert "40% of 989.5 TFLOP/s, both assumed" in describe(plan_run(config))
    eight = describe(plan_run(config, hardware=Hardware(GPUS["H100"], count=8, mfu=0.5)))
    assert "GPU-hours (H100) at 50%" in eight and f"; {plan.gpu_hours / 8:,.1f} h on 8" in eight


def test_a_plan_says_whether_a_gpu_holds_the_run() -> None:
    config = load_train("1b.yaml")
    need = memory(config).total_estimate
    assert "of 131.3 GiB (H200)" in describe(plan_run(config)) and need < GPUS["H200"].memory_bytes
    assert "TOO MUCH" not in describe(plan_run(config))
    small = GPUS["L40S"]._replace(memory_bytes=need - 1)
    assert "TOO MUCH, lower batch.micro_sequences" in describe(plan_run(config, hardware=Hardware(small)))
    assert "GiB (H200)" not in describe(plan_run(load_train("mini_s.yaml"))), "fp32 runs on CPUs"


def test_hardware_options(capsys: pytest.CaptureFixture[str]) -> None:
    main(["240m.yaml", "--gpu", "A100", "--gpus", "4", "--mfu", "0.5", "--peak-tflops", "300"])
    assert "(A100) at 50% of 300 TFLOP/s" in capsys.readouterr().out
    for options in (["--gpu", "TPU"], ["--mfu", "1.2"], ["--gpus", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(["240m.yaml", *options])
        assert stop.value.code == 2
    assert "unknown GPU 'TPU'" in capsys.readouterr().err


def test_study_is_the_sum_of_its_runs() -> None:
    plan = plan_study(load_study("paper"))
    runs = [(scale, stage) for scale in ("240m", "1b") for stage in ("", "_sft#table2b", "_sft#text", "_sft#equal")]
    assert len(plan.runs) == plan.exports == 72
    assert plan.evaluations == 72 * 20
    singles = [plan_run(load_train(f"{s}.yaml" if not t else s + t.replace("#", ".yaml#"))) for s, t in runs]
    assert plan.gpu_hours == pytest.approx(9 * sum(p.gpu_hours or 0 for p in singles))
    assert plan.tokens == 9 * sum(p.tokens for p in singles)
    text = describe(plan)
    assert "72 checkpoints, 1,440 evaluations" in text and "9 runs x 49,591 steps" in text

    mini = plan_study(load_study("mini"))
    assert len(mini.runs) == 2 * 2 * (9 + 2)
    assert mini.gpu_hours is None and "GPU-hours: the assumed peak" in describe(mini)
    milestones = sum(len(m) for m in load_study("mini").checkpoint_tokens.values())
    assert mini.exports == 2 * 2 * 11 + milestones * 11
