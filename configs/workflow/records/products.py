"""What a unit leaves behind, and whether it is still there: looked at before a record that says "done" is believed.

In: a unit, its record, and the folders of a study. Out: its product (one fingerprint), and `intact`. Sizes are always
compared; every byte where that is cheap, or where a file was written to after the manifest or record that names it. A
bit that flips without the file system noticing is found by who reads the file, and by mixtures.verify.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.artifacts import MANIFEST, fingerprint, read_json, sha256_file, verify_untouched
from configs.errors import ArtifactError
from configs.exports import EXPORT_JSON
from configs.layout import StudyFolder, tokenized_dirs
from configs.workflow.records.records import record_file
from configs.workflow.units import TRAININGS, Unit


def step_of(unit: Unit) -> int:
    """The step of the checkpoint that a unit scores."""
    assert unit.folder is not None
    return unit.step if unit.step is not None else int(read_json(unit.folder.done)["step"])


@dataclass(frozen=True)
class Products:
    """The products of one study's units."""

    study: StudyFolder
    data: Path
    generated: Path | None = None
    """Folder of the documents, where tokenizing makes them too."""

    def product(self, unit: Unit) -> str:
        """Fingerprint of what came out of a unit that is done."""
        return fingerprint([sha256_file(path) for path in self._stands_for(unit)])

    def intact(self, unit: Unit, product: str, waiting: Sequence[Unit]) -> bool:
        """Whether the files of a unit that was done are there, with all that the waiting units need of it.

        product: as its record has it. Raises ArtifactError naming a file that is truncated or altered.
        """
        stands_for = self._stands_for(unit)
        if not all(path.is_file() for path in stands_for):
            return False
        if self.product(unit) != product:
            recorded = record_file(self.study.path, unit.name).stat().st_mtime_ns
            altered = [path for path in stands_for if path.stat().st_mtime_ns > recorded] or stands_for
            hint = "delete it and rerun: it is made again"
            raise ArtifactError(f"altered since {unit.name} was done", where=altered[0], hint=hint)
        for folder, manifest in self._folders(unit, waiting):
            if not manifest.is_file():
                return False
            facts = read_json(manifest)
            verify_untouched(folder, manifest, facts["files"])
            if "validation" in facts:
                verify_untouched(folder / "validation", manifest, facts["validation"]["files"])
        return True

    def score_file(self, unit: Unit) -> Path:
        assert unit.folder is not None
        return unit.folder.score_file(unit.folder.export(step_of(unit)))

    def _stands_for(self, unit: Unit) -> list[Path]:
        """The files from which `product` follows."""
        if unit.kind == "tokenize":
            return [folder / MANIFEST for folder in self._tokenized(unit)]
        if unit.kind in TRAININGS:
            assert unit.folder is not None
            return [unit.folder.done]
        if unit.kind == "score":
            return [self.score_file(unit)]
        page = self.study.report / "index.html"
        return [self.study.metrics, self.study.answers, page]

    def _folders(self, unit: Unit, waiting: Sequence[Unit]) -> list[tuple[Path, Path]]:
        """(folder, its manifest) of what a unit has made; of exports those there, waited for, or soon made again."""
        if unit.kind == "tokenize":
            generated = [self.generated] if self.generated is not None else []
            return [(folder, folder / MANIFEST) for folder in [*self._tokenized(unit), *generated]]
        if unit.kind not in TRAININGS or unit.folder is None or not unit.folder.done.is_file():
            return []
        done = read_json(unit.folder.done)
        exports = {unit.folder.export(done["step"] if other.step is None else other.step) for other in waiting}
        for step in map(int, done["export"]):
            kept = unit.folder.checkpoints / unit.folder.export(step).name / MANIFEST
            exports |= {unit.folder.export(step)} if kept.is_file() else set()
        exports |= set(unit.folder.path.glob("export/step-*"))
        return [(path, path / EXPORT_JSON) for path in sorted(exports)]

    def _tokenized(self, unit: Unit) -> list[Path]:
        """Tokenizer, shards of each source, SFT sets."""
        names = unit.identity["tokenizer"]["name"], unit.identity["sources"], unit.identity["sft"]
        return list(tokenized_dirs(self.data, *names).values())
