"""Fine-tune a pretrained model on conversations; only the assistant's words carry loss.

In: a config (configs/<scale>_sft.yaml), a finished pretraining run or one of its exports, a tokenized SFT set under
<data>. Out: a run folder <runs>/<study>/<scale>/<mixture>/seed<k>/sft-<recipe>, named as the parent's, and beside it
unless --study says otherwise. One process, or torchrun.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# See pretrain.py.
ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from configs.artifacts import read_object  # noqa: E402
from configs.cost.options import hardware_of  # noqa: E402
from configs.cost.plan import Hardware, plan_run  # noqa: E402
from configs.errors import ArtifactError, ConfigError, user_errors  # noqa: E402
from configs.exports import EXPORT_JSON  # noqa: E402
from configs.layout import RunFolder, StudyFolder, sft_dir  # noqa: E402
from configs.load import load_train, parse_overrides  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from configs.untrusted.checks import understood  # noqa: E402
from megatron_train import cli  # noqa: E402
from megatron_train.job import Resume  # noqa: E402

if TYPE_CHECKING:
    from mixtures.tokens.sft import SftDataset

EXAMPLES = r"""examples:
  python megatron_train/sft.py --config configs/mini_s_sft.yaml --parent runs/by-hand/mini_s/V1P0/seed0/pt
  torchrun --nproc-per-node 8 megatron_train/sft.py --config configs/1b_sft.yaml#text \
      --parent runs/paper/1b/V1P0/seed0/pt
"""


def find_parent(path: Path) -> Path:
    """The export to start from: of a finished run folder the last, else `path` itself, ours or anybody's Llama.

    Raises ArtifactError where it is none of them, or the run is not finished.
    """
    path = path.resolve()
    if (path / "config.json").is_file() or (path / EXPORT_JSON).is_file():
        return path
    if not (path / "DONE").is_file():
        raise ArtifactError(
            "neither an export nor a finished pretraining run (no DONE)", where=path, hint="finish or choose the parent"
        )
    with understood(path / "DONE", hint="finish or choose the parent"):
        step = int(read_object(path / "DONE")["step"])
    return path / "export" / f"step-{step:07d}"


def run_of(export: Path) -> RunFolder | None:
    """The run that an export says it is of, in the study it lies in; None for somebody else's Llama.

    Raises ArtifactError where it lies in the folder of another: its scores are filed under that one's name.
    """
    path, hint = export / EXPORT_JSON, "choose another parent, or run its training again"
    here = RunFolder.at(export.parent.parent) if export.parent.name == "export" else None
    if here is None and not path.is_file():
        return None
    with understood(path, hint=hint):
        facts = read_object(path)
        recorded = RunFolder.at(Path("/") / facts["study"] / facts["run"])
        if recorded is None:
            raise ValueError(f"run {facts['run']!r}")
    if here is not None and here.name != recorded.name:
        raise ArtifactError(
            f"it says that it is of the run {recorded.name}, and lies in that of {here.name}",
            where=path,
            hint=f"name its folder {recorded.name} again, or copy the export out of the runs",
        )
    return here or recorded


def inherited(run: RunFolder | None) -> dict[str, Any]:
    """Overrides that say what a fine-tuning has from the run it starts from."""
    return {} if run is None else {"data.mixture": run.mixture, "seed": run.seed}


def check_run(config: TrainConfig, run: RunFolder) -> None:
    """Refuse what would be filed, and compared, with another pretraining than the one it starts from."""
    # Scores are filed by these names: a fine-tuning under another name would count as another pretraining's.
    asked = {"scale": config.scale, "data.mixture": config.data.mixture, "seed": config.seed}
    for key, of_parent in {"scale": run.scale, **inherited(run)}.items():
        if asked[key] != of_parent:
            raise ConfigError(
                f"{key} is {asked[key]!r}, the parent's is {of_parent!r}",
                where=f"{run.study.name}/{run.name}",
                valid=f"{key}={of_parent}",
                hint=None if key == "scale" else f"leave {key} out: it is taken from the parent",
            )


def run(
    config: TrainConfig,
    parent: Path,
    study: StudyFolder,
    data: Path,
    hardware: Hardware | None = None,
    resume: Resume = "auto",
) -> Path:
    """Print the plan and fine-tune (or resume, or skip) one run; returns its folder.

    `hardware` is what the plan's times are for. Raises ConfigError where the config is of another model than the
    parent; ResourceError, listing what is missing, where the data or the device is.
    """
    export = find_parent(parent)
    if (origin := run_of(export)) is not None:
        check_run(config, origin)
    dataset = show_plan(config, data, hardware)
    cli.check_can_start(config, data)
    if dataset is None:  # it has come while the plan was shown without it
        dataset = open_sft_set(config, data)
    # Here, so that --help needs no torch.
    from megatron_train.finetuning import build_job, show_examples, show_longer_context
    from megatron_train.training.loop import train

    job = build_job(config, export, dataset, study, data, resume)
    show_longer_context(config, export)
    show_examples(dataset, job.tokenizer)
    train(job)
    return job.folder.path


def open_sft_set(config: TrainConfig, data: Path) -> SftDataset:
    """The config's SFT set, cut to its context."""
    from mixtures.tokens.sft import SftDataset

    return SftDataset.open(sft_dir(data, config.data.tokenizer, config.data.sft_set), config.model.context_tokens)


def show_plan(config: TrainConfig, data: Path, hardware: Hardware | None = None) -> SftDataset | None:
    """Print the plan, with the examples counted where the SFT set exists; returns that set."""
    dataset = None if cli.missing_data(config, data) else open_sft_set(config, data)
    cli.show_plan(plan_run(config, sft_examples=None if dataset is None else len(dataset), hardware=hardware))
    return dataset


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.parser("Fine-tune a pretrained model on conversations.", EXAMPLES)
    parser.add_argument(
        "--parent", type=Path, metavar="DIR", help="finished pt run, an export, or another Llama (required)"
    )
    arguments = parser.parse(argv)
    if arguments.parent is None and not arguments.dry_run:
        parser.error("--parent is required: a finished pretraining run folder, or one of its exports")
    origin = None if arguments.dry_run else run_of(find_parent(arguments.parent))
    config = load_train(arguments.config, inherited(origin) | parse_overrides(arguments.overrides))
    cli.expect_stage(config, "sft", arguments.config)
    data, runs = cli.roots(arguments)
    study = StudyFolder(runs, arguments.study or (origin.study.name if origin else cli.DEFAULT_STUDY))
    hardware = hardware_of(arguments)
    cli.launch(
        arguments,
        lambda: show_plan(config, data, hardware),
        lambda: run(config, arguments.parent, study, data, hardware, arguments.resume),
    )


if __name__ == "__main__":
    main()
