"""Score a study: find its exports, compile the plan, skip what is up to date, score the rest.

`score_study` is what ray_eval/score.py and study.py call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from configs.artifacts import fingerprint
from configs.errors import ArtifactError, ConfigError, MagicError
from configs.layout import StudyFolder, data_root
from configs.load import load_benchmarks
from configs.runtime.cluster import cluster
from configs.runtime.versions import code_sha256, versions
from configs.schema import StudyScoring
from mixtures.sources.benchmark_rows import on_hub, resolve_revision, source_identity
from ray_eval.benchmarks import load_examples, variant
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.models.forward_counts import NOTHING, ForwardCounts
from ray_eval.plans.plan import Plan, compile_plan, load_plan, save_plan
from ray_eval.results import (
    DESCRIPTIVE,
    IDENTITY,
    count_not_finite,
    metadata_of,
    open_scores,
    score_metadata,
)
from ray_eval.workers.engine import Step, Workload, gpus_to_share, score_here, score_on_ray
from ray_eval.workers.parts import remove_parts
from ray_eval.workers.worker import ScoreJob, Worker

PLANNING_CODE = (
    *("ray_eval/benchmarks", "ray_eval/plans", "ray_eval/checkpoints/hf_tokenizer.py"),
    *("mixtures/sources/benchmark_rows.py", "mixtures/tokens/bpe.py", "mixtures/tokens/tokenizer.py"),
)
"""Code that decides what is in a plan."""
ENCODING_PACKAGES = ("tokenizers", "transformers", "tiktoken", "sentencepiece")
"""Packages whose versions may change the ids of a text. A plan is compiled again with another version; if its ids are
the same, so is its hash, and scores stay up to date."""


@dataclass(frozen=True)
class ScoringProgress:
    """Where the scoring of a study stands."""

    study: str
    done: int
    """Checkpoints, those that failed included."""
    total: int
    num_benchmarks: int
    num_examples: float
    """Scored in this call."""
    num_tokens: int
    """Forwarded in this call."""
    share: float
    """Share of this call's work that is done."""
    seconds: float
    """Since this call began to score."""
    step: Step | None = None
    """What was just done; None at the start."""

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.seconds if self.num_tokens else 0.0

    @property
    def examples_per_s(self) -> float:
        return self.num_examples / self.seconds if self.num_examples else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go; None before anything was scored."""
        return self.seconds * (1 - self.share) / self.share if self.share else None


@dataclass(frozen=True)
class Summary:
    """What one call did."""

    scored: int
    skipped: int
    """Already there, unchanged."""
    seconds: float
    counts: ForwardCounts = NOTHING
    """What the scored checkpoints took; of those continued, also what was done before."""
    least_tokens: int = 0
    """What they take if each document is fed once and shares nothing with others (`Plan.least_tokens`)."""


@dataclass(frozen=True)
class ScoreOptions:
    """What `score_study` scores of a study, on which questions, with which workers."""

    documents_root: Path | None
    """Folder that holds benchmarks/; None: the Hub, at the commits that `data` has recorded or records now."""
    benchmarks: Sequence[str] = ()
    """Slugs or one's own files; empty: all 20."""
    scoring: StudyScoring = field(default_factory=StudyScoring)
    checkpoints: Sequence[Checkpoint] | None = None
    """With this study in their columns; None: every complete export of the study."""
    limit: int | None = None
    """Score at most so many checkpoints."""
    replace: bool = True
    """Overwrite scores of the same checkpoint made with other settings. Scores of a checkpoint that has since changed
    are always replaced."""
    out: Path | None = None
    """Folder of the studies that gets plans and scores; None: the one that holds the study."""
    data: Path | None = None
    """None: MAGIC_DATA, else ./data."""
    use_ray: bool = True
    num_workers: int | None = None
    gpus_per_worker: float = 1.0
    unit_work: float | None = None
    """Floating-point operations of what is kept if everything dies; None: about a second's."""
    progress: Callable[[ScoringProgress], None] | None = None
    say: Callable[[str], None] = print
    """Gets lines for the user's attention."""


def score_study(study: StudyFolder, options: ScoreOptions) -> Summary:
    """Score every complete export of a study (or the given checkpoints) that has no up-to-date score file.

    Raises ArtifactError where there is nothing to score or a score file is corrupt, before anything is scored; and
    for checkpoints that cannot be scored, each named with its reason, once all others are done. Raises ResourceError
    where the cluster has no room or a disk is full; what was scored is kept.
    """
    checkpoints, unusable = _find_checkpoints(study, options)
    pending = _plan_jobs(study, checkpoints, options)
    skipped = len(checkpoints) - sum(len(jobs) for _, jobs in pending)
    workload = Workload(_first(pending, len(checkpoints) if options.limit is None else options.limit))
    ended: list[Step] = []
    seconds = 0.0
    if workload.jobs:
        ended, seconds = _run(study, workload, options)
    # Failures are told last, so that one bad checkpoint does not keep the others from being scored.
    if errors := [*unusable, *(step.error for step in ended if step.error)]:
        raise _failed(errors, len(workload.jobs) + len(unusable))
    counts = sum((step.whole for step in ended), NOTHING)
    return Summary(len(workload.jobs), skipped, seconds, counts, sum(step.least_tokens for step in ended))


def _find_checkpoints(study: StudyFolder, options: ScoreOptions) -> tuple[list[Checkpoint], list[ArtifactError]]:
    """Checkpoints to look at, and why exports of the study cannot be scored."""
    found: list[Checkpoint] = list(options.checkpoints or ())
    unusable: list[ArtifactError] = []
    if options.checkpoints is None:
        exports, unusable = inspect_exports(study, options.out)
        found.extend(exports)
    if not found and not unusable:
        hint = f"train first: python study.py run configs/studies/{study.name}.yaml"
        raise ArtifactError("no complete export", where=study.path, hint=hint)
    return found, unusable


def _plan_jobs(
    study: StudyFolder, checkpoints: Sequence[Checkpoint], options: ScoreOptions
) -> list[tuple[Plan, list[ScoreJob]]]:
    """One plan for all checkpoints that encode texts alike, with those of them that are still to be scored."""
    groups: dict[tuple[str, int, bool], list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        chat = options.scoring.chat and checkpoint.columns["stage"] == "SFT"
        groups.setdefault((checkpoint.encoding_sha256, checkpoint.context_tokens, chat), []).append(checkpoint)
    pending = []
    for (_, _, chat), group in groups.items():
        asking = replace(options, scoring=options.scoring.model_copy(update={"chat": chat}))
        plan = study_plan(study, group[0], asking)
        pending.append((plan, _pending(plan, group, options.scoring.precision, options.replace)))
    return pending


def _first(pending: Sequence[tuple[Plan, list[ScoreJob]]], limit: int) -> list[tuple[Plan, list[ScoreJob]]]:
    """The first `limit` jobs, and the plans that these need."""
    cut = []
    for plan, jobs in pending:  # plan by plan, so that a plan is not sent to workers that will not need it
        if chosen := jobs[:limit]:
            cut.append((plan, chosen))
            limit -= len(chosen)
    return cut


def _run(study: StudyFolder, workload: Workload, options: ScoreOptions) -> tuple[list[Step], float]:
    """Score all jobs; returns the steps that ended one (scored or failed), and the seconds it took."""
    begin = time.perf_counter()
    ended: list[Step] = []
    asked = max(len(plan.info["benchmarks"]) for plan in workload.plans)
    stands = ScoringProgress(study.name, 0, len(workload.jobs), asked, 0.0, 0, 0.0, 0.0)
    tell = options.progress or (lambda progress: None)
    tell(stands)
    with cluster(options.num_workers) if options.use_ray else nullcontext():
        for step in _steps(workload, options):
            if step.finished or step.error:
                ended.append(step)
            stands = replace(
                stands,
                done=len(ended),
                num_examples=stands.num_examples + step.num_examples,
                num_tokens=stands.num_tokens + step.counts.tokens,
                share=step.units_done / (step.units_done + step.units_left) if step.units_done else 0.0,
                seconds=time.perf_counter() - begin,
                step=step,
            )
            tell(stands)
    return ended, stands.seconds


def _steps(workload: Workload, options: ScoreOptions) -> Iterator[Step]:
    if not options.use_ray:
        return score_here(workload, Worker(options.unit_work, gpus_to_share(options.gpus_per_worker)))
    return score_on_ray(
        workload,
        options.say,
        num_workers=options.num_workers,
        gpus_per_worker=options.gpus_per_worker,
        unit_work=options.unit_work,
    )


def _failed(errors: Sequence[MagicError], total: int) -> ArtifactError:
    reasons = "\n".join(sorted(str(error) for error in errors))
    return ArtifactError(f"{len(errors)} of {total} checkpoints were not scored\n{reasons}")


def study_plan(study: StudyFolder, checkpoint: Checkpoint, options: ScoreOptions) -> Plan:
    """The plan for checkpoints with this encoding and context length, from <out>/<study>/plans or compiled now."""
    root, scoring, data = options.documents_root, options.scoring, data_root(options.data)
    specs = [resolve_revision(spec, root, data, options.say) for spec in load_benchmarks(options.benchmarks)]
    key = fingerprint(
        {
            "encoding": checkpoint.encoding_sha256,
            "versions": versions(ENCODING_PACKAGES),
            "context_tokens": checkpoint.context_tokens,
            "benchmarks": [(spec.model_dump(mode="json"), source_identity(root, spec)) for spec in specs],
            "sample": (scoring.sample, scoring.seed, scoring.unconditional),
            "variants": [variant(spec, scoring.prompt, scoring.shots, scoring.chat) for spec in specs],
            "shots": [source_identity(root, spec, train=True) for spec in specs if scoring.shots],
            "code": code_sha256(*PLANNING_CODE),
        }
    )
    path = (options.out or study.runs) / study.name / "plans" / f"plan-{key[:16]}.npz"
    if path.exists():
        return load_plan(path)
    examples = (load_examples(spec, root, scoring) for spec in specs)
    commits = {spec.slug: f"{spec.hub}@{spec.revision}" for spec in specs if on_hub(spec, root)}
    plan = compile_plan(zip(specs, examples, strict=True), checkpoint.encoder(), checkpoint.context_tokens, commits)
    save_plan(plan, path)
    return plan


def _pending(plan: Plan, checkpoints: Sequence[Checkpoint], precision: str, overwrite: bool) -> list[ScoreJob]:
    """Jobs whose score file is missing, of another checkpoint, not finite, or (with `overwrite`) of other settings."""
    jobs = []
    for checkpoint in checkpoints:
        job = ScoreJob(checkpoint, checkpoint.precision or precision)
        if _is_up_to_date(checkpoint.score_file, score_metadata(plan, checkpoint, job.precision), overwrite):
            remove_parts(checkpoint.score_file)  # a run that was killed as it finished may have left them
        else:
            jobs.append(job)
    return jobs


def _is_up_to_date(path: Path, wanted: Mapping[str, str], overwrite: bool) -> bool:
    """Does the score file hold what would be written into it?

    Raises ConfigError where it holds something else that only `overwrite` may remove.
    """
    if not path.exists():
        return False
    scores = open_scores(path)
    found = metadata_of(scores)
    differing = [key for key in wanted if key not in DESCRIPTIVE and found.get(key) != wanted[key]]
    believed = not count_not_finite(scores)  # a file that earlier versions wrote may hold NaN
    if overwrite or (believed and not differing):
        return believed and not differing
    if believed and all(found.get(key) == wanted.get(key) for key in IDENTITY):
        problem = f"scores of this checkpoint exist, made with other settings ({', '.join(differing)} differ)"
        raise ConfigError(problem, where=path, hint="--replace overwrites them")
    if "model" in wanted and found.get("model") != wanted["model"]:
        problem = f"scores of another model of this name are there ({found.get('model')})"
        raise ConfigError(problem, where=path, hint="--replace overwrites them, --out DIR puts these elsewhere")
    return False
