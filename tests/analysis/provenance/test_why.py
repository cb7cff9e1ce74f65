"""From a number of a table back to where it comes from, on a study whose every file is known."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from finished_study import COMMAND, COMMIT, HOST, Finished, write_finished

from analysis.panel.load import load_panel
from analysis.provenance.lookup import find_table
from analysis.provenance.why import format_trace, trace_number
from analysis.rendering.writers import as_csv
from analysis.tables.catalogue import build_tables
from configs.artifacts import read_json, write_json
from configs.errors import ConfigError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import PAPER_MIXTURES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return write_finished(tmp_path_factory.mktemp("why"), mixtures=list(PAPER_MIXTURES))


def test_a_number_of_table_5_leads_to_its_files_runs_and_units(made: Finished) -> None:
    facts = trace_number(StudyFolder(made.runs, "tiny"), "5", ["RTE", "accuracy"])
    (table,) = build_tables(load_panel(StudyFolder(made.runs, "tiny")), ["table5"])
    (printed,) = [
        r for r in csv.DictReader(io.StringIO(as_csv(table))) if r["benchmark"] == "RTE" and "acc" in r["metric"]
    ]
    (row,) = facts["rows"]
    assert row["value"] == float(printed["value"]) and row["shown"]["this run"] == f"{row['value']:+.2f}".replace(
        "-", "−"
    )
    assert facts["scores"]["fingerprint"] == printed["scores"]

    paths = {file["path"]: file for file in facts["scores"]["files"]}
    wanted = [
        f"scores/tiny/{m}/seed0/{end}"
        for m in PAPER_MIXTURES
        for end in ("pt/step-0000012.parquet", "sft-tiny/step-0000010.parquet")
    ]  # not those of step 10 on the way
    assert sorted(paths) == sorted(wanted)
    for name, file in paths.items():
        assert file["sha256"] == hashlib.sha256((made.folder / name).read_bytes()).hexdigest()
    assert len(facts["runs"]) == 18 and len(facts["units"]) == 1 + 9 + 9 + 18 + 1
    run = facts["runs"]["tiny/V2P1/seed0/sft-tiny"]
    assert (run["command"], run["git_commit"], run["hardware"]) == (COMMAND, COMMIT, "1 x NVIDIA H100")
    assert run["parent"]["is_export_of_pt"] is True and run["manifests"] and run["config"]["sha256"]
    unit = facts["units"]["score/tiny/V2P1/seed0/sft-tiny/last"]
    assert unit["host"] == HOST and unit["kept"] == () and unit["identity"]["scoring"]["sample"] == 8
    assert facts["doubts"] == [] and facts["synthetic"]
    json.dumps(facts)

    text = format_trace(facts)
    for once in (COMMAND, COMMIT, HOST, "SYNTHETIC", "9 of 9 fine-tunings began with an export", "18 in 0:27"):
        assert once in text
    assert text.count(COMMAND) == 1  # what all share is said once


def test_one_cell_leads_to_one_file_and_the_pretraining_before_it(made: Finished) -> None:
    facts = trace_number(
        StudyFolder(made.runs, "tiny"), "metrics", ["v1p2", "sft", "arc_easy", "accuracy", "sum", "value"]
    )
    assert [file["path"] for file in facts["scores"]["files"]] == [
        "scores/tiny/V1P2/seed0/sft-tiny/step-0000010.parquet"
    ]
    assert sorted(facts["runs"]) == ["tiny/V1P2/seed0/pt", "tiny/V1P2/seed0/sft-tiny"]
    assert facts["column"] == "value" and facts["rows"][0]["keys"]["benchmark"] == "ARC-Easy"


def test_a_checkpoint_on_the_way_is_behind_the_number_that_it_gave(made: Finished) -> None:
    facts = trace_number(StudyFolder(made.runs, "tiny"), "early", ["2,560"])
    steps = [file["path"].rpartition("/")[2] for file in facts["scores"]["files"] if "/pt/" in file["path"]]
    assert sorted(set(steps)) == ["step-0000010.parquet", "step-0000012.parquet"]
    (last,) = trace_number(StudyFolder(made.runs, "tiny"), "early", ["3,072"])["rows"]
    assert last["keys"]["tokens"] == "3,072"
    assert (
        facts["scores"]["fingerprint"]
        != trace_number(StudyFolder(made.runs, "tiny"), "early", ["3,072"])["scores"]["fingerprint"]
    )


def test_settings_and_figures_have_an_origin_too(made: Finished) -> None:
    facts = trace_number(StudyFolder(made.runs, "tiny"), "table1", ["number of layers"])
    assert facts["rows"][0]["shown"]["this study"] == "1" and len(facts["runs"]) == 18
    assert (
        trace_number(StudyFolder(made.runs, "tiny"), "figure13", ["accuracy", "pt", "nli"])["table"]["name"]
        == "web_differences"
    )


def test_exceptions_are_named_and_what_nobody_recorded_is_said(tmp_path: Path) -> None:
    made = write_finished(tmp_path)
    odd = made.folder / "tiny/V2P2/seed0/pt/provenance.json"
    record = read_json(odd)
    del record["manifests"]
    write_json(odd, record | {"git_commit": "2" * 40 + "-dirty", "hardware": "8 x NVIDIA H200"})
    (made.folder / "units/pretrain/tiny/V2P2/seed0.json").unlink()
    done = made.folder / "tiny/V1P0/seed0/pt/DONE"
    write_json(done, read_json(done) | {"export": {"10": "0" * 64, "12": "0" * 64}})
    unit = read_json(made.folder / "units/finetune/tiny/V1P0/seed0/tiny.json")
    write_json(made.folder / "units/finetune/tiny/V1P0/seed0/tiny.json", unit | {"kept": ["optimizer.lr 1 -> 2"]})
    scores = made.folder / "scores/tiny/V2P2/seed0/pt/step-0000012.parquet"
    pq.write_table(pq.read_table(scores), scores, compression="gzip")
    text = format_trace(trace_number(StudyFolder(made.runs, "tiny"), "table5", ["RTE"]))
    assert "scores/tiny/V2P2/seed0/pt/step-0000012.parquet: altered since it was scored" in text
    assert f"but tiny/V2P2/seed0/pt: {'2' * 40}-dirty" in text and "but tiny/V2P2/seed0/pt: 8 x NVIDIA H200" in text
    assert "1 of 2 fine-tunings began with an export" in text and "are no export of its run" in text
    assert "of 1 not recorded" in text and "kept although changed: finetune/tiny/V1P0/seed0/tiny: optimizer.lr" in text
    assert f"git checkout {COMMIT}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table55"], "no table 'table55'"),
        (["table5", "hellaswag"], "no row of table5 has 'hellaswag'"),
        (["table6", "nli"], "rows of table6 fit; add words of these\n  valid: stage PT, SFT"),
        (["metrics", "accuracy", "arc_easy"], "valid: stage PT, SFT; recipe empty, tiny; mixture V1P0, V1P1"),
        (["metrics", "arc_easy", "step"], "no row of metrics has 'step' beside arc_easy\n  valid: stage PT, SFT"),
    ],
)
def test_words_that_name_no_single_number_are_refused_with_what_would(
    words: list[str], message: str, made: Finished
) -> None:
    with pytest.raises(ConfigError) as refused:
        trace_number(StudyFolder(made.runs, "tiny"), words[0], words[1:])
    assert message in str(refused.value)


def test_a_table_has_several_spellings_and_none_is_guessed() -> None:
    assert find_table("Table 5") == find_table("5") == "table5" and find_table("figure6") == "table6"
    assert find_table("Figure 12") == "web_means" and find_table("figure13_dclm_refinedweb") == "web_differences"
    with pytest.raises(ConfigError, match=r"valid: .*decisions"):
        find_table("deci")


def test_keys_may_come_in_any_order_and_case(made: Finished) -> None:
    study = StudyFolder(made.runs, "tiny")
    first, second = (trace_number(study, "table5", words)["rows"] for words in (["rte", "TINY"], ["Tiny", "RTE"]))
    assert first == second and {row["keys"]["benchmark"] for row in first} == {"RTE"}


def test_the_command(made: Finished) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "study.py"), "why", str(made.folder), "table5", "rte", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout)["runs"]["tiny/V1P0/seed0/pt"]["git_commit"] == COMMIT
    done = subprocess.run([*command, "zzz"], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "valid: metric accuracy" in done.stderr
