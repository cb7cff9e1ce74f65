"""Score a study: find its exports, compile the plan, skip what is up to date, score the rest.

`score_study` is what ray_eval/score.py and study.py call.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.artifacts import fingerprint
from configs.errors import ArtifactError, ConfigError, MagicError
from configs.layout import data_root
from configs.load import load_benchmarks
from configs.runtime.cluster import cluster
from configs.runtime.versions import code_sha256
from configs.schema import StudyScoring
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.models.counts import NOTHING, Counts
from ray_eval.workers.engine import Step, Work, gpus_to_share, score_here, score_on_ray
from ray_eval.workers.parts import remove_parts
from ray_eval.workers.worker import Job, Worker

if TYPE_CHECKING:
    from ray_eval.plans.plan import Plan

PLANNING_CODE = (
    *("ray_eval/benchmarks", "ray_eval/plans", "ray_eval/checkpoints/hf_tokenizer.py"),
    *("mixtures/sources/benchmark_rows.py", "mixtures/tokens/bpe.py", "mixtures/tokens/tokenizer.py"),
)
"""Code that decides what is in a plan."""
ENCODING_PACKAGES = ("tokenizers", "transformers", "tiktoken", "sentencepiece")
"""Packages whose versions may change the ids of a text. A plan is compiled again with another version; if its ids are
the same, so is its hash, and scores stay up to date."""


@dataclass(frozen=True)
class Progress:
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
    """Of this call's work."""
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
    counts: Counts = NOTHING
    """Of the checkpoints that were scored; of those continued, also what was done before."""
    least_tokens: int = 0
    """What they take if each document is fed once and shares nothing with others (`Plan.least_tokens`)."""


def score_study(
    runs: Path,
    study: str,
    *,
    documents_root: Path | None,
    benchmarks: Sequence[str] = (),
    scoring: StudyScoring | None = None,
    checkpoints: Sequence[Checkpoint] | None = None,
    out: Path | None = None,
    num_workers: int | None = None,
    gpus_per_worker: float = 1.0,
    use_ray: bool = True,
    limit: int | None = None,
    replace: bool = True,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = print,
    unit_work: float | None = None,
    data: Path | None = None,
) -> Summary:
    """Score every complete export of a study (or the given ones) that has no up-to-date score file.

    checkpoints: with this study in their columns.   out: folder of the studies that gets plans and scores (None: runs).
    documents_root: folder that holds benchmarks/; None: the Hub, at the commits that `data` (None: MAGIC_DATA, else
    ./data) has recorded or records now.   benchmarks: slugs or one's own files; empty: all 20.
    limit: at most so many checkpoints.   replace: overwrite scores of the same checkpoint made with other settings
    (scores of a checkpoint that has since changed are always replaced).   say: gets lines for the user's attention.
    unit_work: floating-point operations of what is kept if everything dies; None: about a second's.
    Raises ArtifactError where there is nothing to score or a score file is corrupt, before anything is scored; and
    for checkpoints that cannot be scored, each named with its reason, once all others are done. Raises ResourceError
    where the cluster has no room or a disk is full; what was scored is kept.
    """
    out = out or runs
    found: list[Checkpoint] = list(checkpoints or ())
    unusable: list[ArtifactError] = []
    if checkpoints is None:
        exports, unusable = inspect_exports(runs, study, out)
        found.extend(exports)
    if not found and not unusable:
        raise ArtifactError(
            "no complete export",
            where=runs / study,
            hint=f"train first: python study.py run configs/studies/{study}.yaml",
        )
    scoring = scoring or StudyScoring()
    groups: dict[tuple[str, int, bool], list[Checkpoint]] = {}
    for checkpoint in found:
        chat = scoring.chat and checkpoint.columns["stage"] == "SFT"
        groups.setdefault((checkpoint.encoding_sha256, checkpoint.context_tokens, chat), []).append(checkpoint)
    work = []
    for (_, _, chat), group in groups.items():
        asking = scoring.model_copy(update={"chat": chat})
        plan = study_plan(out, study, group[0], documents_root, benchmarks, asking, data, say)
        work.append((plan, _pending(plan, group, scoring.precision, replace)))
    skipped = len(found) - sum(len(jobs) for _, jobs in work)
    engine = Work(_first(work, len(found) if limit is None else limit))
    total = len(engine.jobs)
    if not total:
        if unusable:
            raise _failed(unusable, len(unusable))
        return Summary(0, skipped, 0.0)

    begin = time.perf_counter()
    steps: list[Step] = []
    stands = Progress(study, 0, total, max(len(plan.info["benchmarks"]) for plan in engine.plans), 0.0, 0, 0.0, 0.0)
    if progress:
        progress(stands)
    with cluster(num_workers) if use_ray else nullcontext():
        for step in _steps(engine, say, use_ray, num_workers, gpus_per_worker, unit_work):
            if step.finished or step.error:
                steps.append(step)
            stands = dataclasses.replace(
                stands,
                done=len(steps),
                num_examples=stands.num_examples + step.num_examples,
                num_tokens=stands.num_tokens + step.counts.tokens,
                share=step.units_done / (step.units_done + step.units_left) if step.units_done else 0.0,
                seconds=time.perf_counter() - begin,
                step=step,
            )
            if progress:
                progress(stands)
    errors = [*unusable, *(step.error for step in steps if step.error)]
    if errors:
        raise _failed(errors, total + len(unusable))
    counts = sum((step.whole for step in steps), NOTHING)
    return Summary(total, skipped, stands.seconds, counts, sum(step.least_tokens for step in steps))


def _first(work: Sequence[tuple[Plan, list[Job]]], limit: int) -> list[tuple[Plan, list[Job]]]:
    """The first `limit` jobs, and the plans that these need."""
    cut = []
    for plan, jobs in work:
        if chosen := jobs[:limit]:
            cut.append((plan, chosen))
            limit -= len(chosen)
    return cut


def _steps(
    work: Work,
    say: Callable[[str], None],
    use_ray: bool,
    num_workers: int | None,
    gpus_per_worker: float,
    unit_work: float | None,
) -> Iterator[Step]:
    if not use_ray:
        return score_here(work, Worker(unit_work, gpus_to_share(gpus_per_worker)))
    return score_on_ray(work, say, num_workers=num_workers, gpus_per_worker=gpus_per_worker, unit_work=unit_work)


def _failed(errors: Sequence[MagicError], total: int) -> ArtifactError:
    reasons = "\n".join(sorted(str(error) for error in errors))
    return ArtifactError(f"{len(errors)} of {total} checkpoints were not scored\n{reasons}")


def study_plan(
    runs: Path,
    study: str,
    checkpoint: Checkpoint,
    documents_root: Path | None,
    benchmarks: Sequence[str],
    scoring: StudyScoring,
    data: Path | None = None,
    say: Callable[[str], None] = print,
) -> Plan:
    """The plan for checkpoints with this encoding and context length, from <runs>/<study>/plans or compiled now."""
    from mixtures.sources.benchmark_rows import on_hub, resolve_revision, source_identity
    from ray_eval.benchmarks import load_examples, variant
    from ray_eval.plans.plan import compile_plan, load_plan, save_plan
    from ray_eval.results import versions_of

    specs = [resolve_revision(spec, documents_root, data_root(data), say) for spec in load_benchmarks(benchmarks)]
    key = fingerprint(
        {
            "encoding": checkpoint.encoding_sha256,
            "versions": versions_of(ENCODING_PACKAGES),
            "context_tokens": checkpoint.context_tokens,
            "benchmarks": [(spec.model_dump(mode="json"), source_identity(documents_root, spec)) for spec in specs],
            "sample": (scoring.sample, scoring.seed, scoring.unconditional),
            "variants": [variant(spec, scoring.prompt, scoring.shots, scoring.chat) for spec in specs],
            "shots": [source_identity(documents_root, spec, train=True) for spec in specs if scoring.shots],
            "code": code_sha256(*PLANNING_CODE),
        }
    )
    path = runs / study / "plans" / f"plan-{key[:16]}.npz"
    if path.exists():
        return load_plan(path)
    examples = (
        load_examples(
            spec,
            documents_root,
            sample=scoring.sample,
            seed=scoring.seed,
            unconditional=scoring.unconditional,
            prompt=scoring.prompt,
            shots=scoring.shots,
            chat=scoring.chat,
        )
        for spec in specs
    )
    commits = {spec.slug: f"{spec.hub}@{spec.revision}" for spec in specs if on_hub(spec, documents_root)}
    plan = compile_plan(zip(specs, examples, strict=True), checkpoint.encoder(), checkpoint.context_tokens, commits)
    save_plan(plan, path)
    return plan


def _pending(plan: Plan, checkpoints: Sequence[Checkpoint], precision: str, replace: bool) -> list[Job]:
    """Jobs whose score file is missing, of another checkpoint, not finite, or (with `replace`) of other settings."""
    from ray_eval.results import DESCRIPTIVE, IDENTITY, count_not_finite, metadata_of, open_scores, score_metadata

    jobs = []
    for checkpoint in checkpoints:
        path = checkpoint.score_file
        chosen = checkpoint.precision or precision
        if path.exists():
            scores = open_scores(path)
            have, want = metadata_of(scores), score_metadata(plan, checkpoint, chosen)
            differing = [key for key in want if key not in DESCRIPTIVE and have.get(key) != want[key]]
            believed = not count_not_finite(scores)  # a file that earlier versions wrote may hold NaN
            if believed and not differing:
                remove_parts(path)  # a run that was killed as it finished may have left them
                continue
            same = believed and all(have.get(key) == want.get(key) for key in IDENTITY)
            if same and not replace:
                raise ConfigError(
                    f"scores of this checkpoint exist, made with other settings ({', '.join(differing)} differ)",
                    where=path,
                    hint="--replace overwrites them",
                )
            if not same and "model" in want and have.get("model") != want["model"] and not replace:
                raise ConfigError(
                    f"scores of another model of this name are there ({have.get('model')})",
                    where=path,
                    hint="--replace overwrites them, --out DIR puts these elsewhere",
                )
        jobs.append(Job(checkpoint, chosen))
    return jobs
