"""Score a study: find its exports, compile the plan, skip what is up to date, score the rest.

`score_study` is what ray_eval/score.py and study.py call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.artifacts import fingerprint, sha256_files
from configs.cluster import cluster
from configs.errors import ArtifactError, ConfigError, MagicError
from configs.layout import PROJECT_ROOT
from configs.load import load_benchmarks
from configs.schema import StudyScoring
from ray_eval.actors import Outcome, Unit, score_here, score_on_ray
from ray_eval.exports import Export, inspect_exports

if TYPE_CHECKING:
    from ray_eval.plan import Plan


@dataclass(frozen=True)
class Progress:
    """Where the scoring of a study stands."""

    study: str
    done: int
    total: int
    num_tokens: int
    """Scored so far in this call."""
    seconds: float
    """Since this call began to score."""
    outcome: Outcome | None = None
    """The checkpoint just finished; None at the start."""

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.seconds if self.num_tokens else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go; None before the first checkpoint is done."""
        return (self.total - self.done) * self.seconds / self.done if self.done else None


@dataclass(frozen=True)
class Summary:
    """What one call did."""

    scored: int
    skipped: int
    """Already there, unchanged."""
    num_tokens: int
    seconds: float


def score_study(
    runs: Path,
    study: str,
    *,
    documents_root: Path | None,
    benchmarks: Sequence[str] = (),
    scoring: StudyScoring | None = None,
    exports: Sequence[Export] | None = None,
    num_workers: int | None = None,
    use_ray: bool = True,
    limit: int | None = None,
    replace: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Score every complete export of a study (or the given ones) that has no up-to-date score file.

    documents_root: folder that holds benchmarks/; None: the Hub.   benchmarks: slugs or one's own files; empty: all 20.
    limit: at most so many checkpoints.   replace: overwrite scores of the same checkpoint made with other settings
    (scores of a checkpoint that has since changed are always replaced).
    Raises ArtifactError where there is nothing to score or a score file is corrupt, before anything is scored; and
    for checkpoints that cannot be scored, each named with its reason, once all others are done.
    """
    found, unusable = (list(exports), []) if exports is not None else inspect_exports(runs, study)
    if not found and not unusable:
        raise ArtifactError(
            "no complete export",
            where=runs / study,
            hint=f"train first: python study.py run configs/studies/{study}.yaml",
        )
    scoring = scoring or StudyScoring()
    groups: dict[tuple[str, int, bool], list[Export]] = {}
    for export in found:
        chat = scoring.chat and export.stage == "SFT"
        groups.setdefault((export.tokenizer_sha256, export.context_tokens, chat), []).append(export)
    work = []
    for (_, _, chat), group in groups.items():
        asking = scoring.model_copy(update={"chat": chat})
        plan = study_plan(runs, study, group[0], documents_root, benchmarks, asking)
        work.append((plan, _pending(plan, group, scoring.precision, replace)))
    total = sum(len(units) for _, units in work)
    skipped = len(found) - total
    if limit is not None:
        total = min(total, limit)
    if not total:
        if unusable:
            raise _failed(unusable, len(unusable))
        return Summary(0, skipped, 0, 0.0)

    begin = time.perf_counter()
    outcomes: list[Outcome] = []
    num_tokens = 0
    if progress:
        progress(Progress(study, 0, total, 0, 0.0))
    with cluster(num_workers) if use_ray else nullcontext():
        for plan, units in work:
            units = units[: total - len(outcomes)]
            if not units:
                continue
            for outcome in score_on_ray(plan, units, num_workers) if use_ray else score_here(plan, units):
                outcomes.append(outcome)
                num_tokens += outcome.num_tokens
                if progress:
                    progress(Progress(study, len(outcomes), total, num_tokens, time.perf_counter() - begin, outcome))
    errors = [*unusable, *(outcome.error for outcome in outcomes if outcome.error)]
    if errors:
        raise _failed(errors, total + len(unusable))
    return Summary(len(outcomes), skipped, num_tokens, time.perf_counter() - begin)


def _failed(errors: Sequence[MagicError], total: int) -> ArtifactError:
    reasons = "\n".join(sorted(str(error) for error in errors))
    return ArtifactError(f"{len(errors)} of {total} checkpoints were not scored\n{reasons}")


def study_plan(
    runs: Path,
    study: str,
    export: Export,
    documents_root: Path | None,
    benchmarks: Sequence[str],
    scoring: StudyScoring,
) -> Plan:
    """The plan for exports with this tokenizer and context length, from <runs>/<study>/plans or compiled now."""
    from mixtures.benchmark_rows import source_identity
    from mixtures.tokenizer import Tokenizer
    from ray_eval.benchmarks import load_examples, variant
    from ray_eval.plan import compile_plan, load_plan, save_plan

    specs = load_benchmarks(benchmarks)
    here = Path(__file__).parent
    code = sorted([*here.glob("benchmarks/*.py"), here / "encoding.py", here / "layout.py", here / "plan.py"])
    code.append(PROJECT_ROOT / "mixtures" / "benchmark_rows.py")
    key = fingerprint(
        {
            "tokenizer": export.tokenizer_sha256,
            "context_tokens": export.context_tokens,
            "benchmarks": [(spec.model_dump(mode="json"), source_identity(documents_root, spec)) for spec in specs],
            "sample": (scoring.sample, scoring.seed, scoring.unconditional),
            "variants": [variant(spec, scoring.prompt, scoring.shots, scoring.chat) for spec in specs],
            "shots": [source_identity(documents_root, spec, train=True) for spec in specs if scoring.shots],
            "code": sha256_files(code),
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
    plan = compile_plan(zip(specs, examples, strict=True), Tokenizer.load(export.folder), export.context_tokens)
    save_plan(plan, path)
    return plan


def _pending(plan: Plan, exports: Sequence[Export], precision: str, replace: bool) -> list[Unit]:
    """Units whose score file is missing, of another checkpoint, or (with `replace`) made with other settings."""
    from ray_eval.results import metadata_of, read_scores, score_metadata

    units = []
    for export in exports:
        path = export.score_file
        if path.exists():
            have, want = metadata_of(read_scores(path)), score_metadata(plan, export.checkpoint, precision)
            differing = [key for key in want if key != "versions" and have.get(key) != want[key]]
            if not differing:
                continue
            if have.get("checkpoint") == export.checkpoint and not replace:
                raise ConfigError(
                    f"scores of this checkpoint exist, made with other settings ({', '.join(differing)} differ)",
                    where=path,
                    hint="--replace overwrites them",
                )
        units.append(Unit(export, precision))
    return units
