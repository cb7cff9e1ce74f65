"""Prompt sets beside `lm_eval`, and benchmarks of a user's own: by hand, against OLMES's published examples, and
against lm-evaluation-harness's MMLU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_rows import ROWS

from configs.errors import ConfigError, DataError
from configs.layout import PROJECT_ROOT
from configs.load import BENCHMARKS, load, load_benchmark, load_benchmarks
from configs.schema import BenchmarkConfig, PromptSet, StudyScoring
from ray_eval.benchmarks import Example, load_examples
from ray_eval.benchmarks.templates import Question, Template

OLMES = {
    *("hellaswag", "piqa", "siqa", "commonsense_qa", "winogrande", "boolq"),
    *("arc_challenge", "arc_easy", "openbookqa"),
}
SETS = [(slug, name) for slug in BENCHMARKS for name in load_benchmark(slug).prompts]


def ask(slug: str, prompt: str, row: dict[str, Any]) -> Question:
    return Template(load_benchmark(slug), prompt)(row, "row")


def test_every_benchmark_has_its_sets() -> None:
    for slug in BENCHMARKS:
        names = list(load_benchmark(slug).prompts)
        assert names == ["lm_eval", "lettered", *(["olmes", "olmes_mc"] if slug in OLMES else [])], slug


LETTERED: dict[str, tuple[int, str, str, int]] = {
    # slug: (number of the row in ROWS, context, candidates, gold)
    "hellaswag": (
        1,
        "Home and garden: How to dig. Find a spade. Hold it\nChoose the best continuation:\n"
        "A. firmly.\nB. up high and let go.\nC. for a day.\nD. in water.\nAnswer:",
        "ABCD",
        3,
    ),
    "piqa": (0, "Question: open a stuck jar\nA. warm the lid \nB. cool the  lid\nAnswer:", "AB", 0),
    "copa": (
        0,
        "Question: The lamp went out. What was the cause?\nA. The oil was gone.\nB. Birds sang.\nAnswer:",
        "AB",
        0,
    ),
    "siqa": (
        0,
        "Question: Mara lent Tom a rope. How does Tom feel?\nA. grateful\nB. cold\nC. as before\nAnswer:",
        "ABC",
        0,
    ),
    "commonsense_qa": (
        1,
        "Question: What cuts?\nA. fog\nB. milk\nC. wool\nD. sand\nE. a knife\nAnswer:",
        "ABCDE",
        4,
    ),
    "winogrande": (1, "Fill in the blank: ___ thanked Bea , since she had helped.\nA. Ada\nB. Bea\nAnswer:", "AB", 1),
    "boolq": (
        0,
        "Tin is a metal. It melts at 232 °C.\nQuestion: is tin a metal?\nA. no\nB. yes\nAnswer:",
        "AB",
        1,
    ),
    "arc_challenge": (1, "Question: How many moons?\nA. one\nB. two, or three\nC. none\nAnswer:", "ABC", 2),
    "arc_easy": (3, "Question: Which of these melts first?\nA. ice\nB. iron\nC. salt\nD. glass\nAnswer:", "ABCD", 0),
    "sciq": (  # sorted: otherwise the answer would always be D
        0,
        "Leaves take in carbon dioxide.\nQuestion: What gas do leaves take in?\n"
        "A. carbon dioxide\nB. helium\nC. neon\nD. oxygen\nAnswer:",
        "ABCD",
        0,
    ),
    "openbookqa": (1, "Question: The sun rises in the \nA. west\nB. night\nC. east\nD. sea\nAnswer:", "ABCD", 2),
    "mnli": (
        1,
        "It rained all day \nQuestion: The road was wet. True, False or Neither?\n"
        "A. True\nB. Neither\nC. False\nAnswer:",
        "ABC",
        1,
    ),
    "qnli": (
        0,
        "The mill stopped.\nA wheel broke.\nQuestion: Does this response answer the question?\nA. yes\nB. no\nAnswer:",
        "AB",
        0,
    ),
    "rte": (
        1,
        "It rained all day \nQuestion:   The road was wet True or False?\nA. True\nB. False\nAnswer:",
        "AB",
        1,
    ),
    "cb": (
        2,
        "Ünlü!\nQuestion: é — ß?. True, False, or Neither?\nA. True\nB. False\nC. Neither\nAnswer:",
        "ABC",
        2,
    ),
    "qqp": (
        0,
        "Question 1: The mill stopped.\nQuestion 2: A wheel broke.\n"
        "Question: Do both questions ask the same thing?\nA. no\nB. yes\nAnswer:",
        "AB",
        0,
    ),
    "mrpc": (
        0,
        "Sentence 1: The mill stopped.\nSentence 2: A wheel broke.\n"
        "Question: Do both sentences mean the same thing?\nA. no\nB. yes\nAnswer:",
        "AB",
        0,
    ),
    "wic": (
        0,
        "Sentence 1: The banks were steep.\nSentence 2: A bank lends.\n"
        "Question: Is the word 'banks' used in the same way in the two sentences above?\nA. no\nB. yes\nAnswer:",
        "AB",
        0,
    ),
    "wsc": (
        0,
        'Passage: Ida told Eva that"*she* didn\'t win (again)", and left.\n'
        'Question: In the passage above, does the pronoun "*she*" refer to "*Ida*"?\nA. no\nB. yes\nAnswer:',
        "AB",
        1,
    ),
    "multirc": (
        0,
        "Two boats left. One came back.\nQuestion: How many left?\nProposed answer: Two\n"
        "Is the proposed answer correct?\nA. yes\nB. no\nAnswer:",
        "AB",
        0,
    ),
}


@pytest.mark.parametrize("slug", BENCHMARKS)
def test_lettered_by_hand(slug: str) -> None:
    number, context, letters, gold = LETTERED[slug]
    assert ask(slug, "lettered", ROWS[slug][number]) == Question((context,), tuple(letters), gold)


# The examples that OLMES v0.1 prints beside its templates (its olmes_v0_1/*_std.py, and appendix of arXiv 2406.08446),
# long answers shortened: benchmark, row, cloze form with its answer, lettered form with its answer.
PERSIAN = {"passage": "Persian language -- Persian (/ˈpɜːrʒən, -ʃən/), also known", "answer": True}
ICE = ["take a sponge and soak it in oil.", "take a sponge and soak it in water."]
PLACES = ["race track", "populated areas", "the desert", "apartment", "roadblock"]
DIGEST = [
    "the mind needs time to digest",
    "take a second to digest what I said",
    "nutrients are being deconstructed",
    "reader's digest is a body of works",
]
SWITCH = [
    "cause the charge to build.",
    "increase and decrease the voltage.",
    "cause the current to change direction.",
    "stop and start the flow of current.",
]
FLOSS = ["If you have small gaps.", "Choosing a thicker floss.", "However, since.", "You can pick."]
PUBLISHED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "arc_easy",
        {
            "question": "When a switch is used in an electrical circuit, the switch can",
            "choices": {"text": SWITCH, "label": list("1234")},
            "answerKey": "4",
        },
        "Question: When a switch is used in an electrical circuit, the switch can\n"
        "Answer: stop and start the flow of current.",
        "Question: When a switch is used in an electrical circuit, the switch can\n A. cause the charge to build.\n"
        " B. increase and decrease the voltage.\n C. cause the current to change direction.\n"
        " D. stop and start the flow of current.\nAnswer: D",
    ),
    (
        "boolq",
        PERSIAN | {"question": "do iran and afghanistan speak the same language"},
        "Persian language -- Persian (/ˈpɜːrʒən, -ʃən/), also known\n"
        "Question: do iran and afghanistan speak the same language?\nAnswer: yes",
        "Persian language -- Persian (/ˈpɜːrʒən, -ʃən/), also known\n"
        "Question: do iran and afghanistan speak the same language?\n A. yes\n B. no\nAnswer: A",
    ),
    (
        "commonsense_qa",
        {
            "question": "Sammy wanted to go to where the people were.  Where might he go?",
            "choices": {"text": PLACES, "label": list("ABCDE")},
            "answerKey": "B",
        },
        "Question: Sammy wanted to go to where the people were.  Where might he go?\nAnswer: populated areas",
        "Question: Sammy wanted to go to where the people were.  Where might he go?\n A. race track\n"
        " B. populated areas\n C. the desert\n D. apartment\n E. roadblock\nAnswer: B",
    ),
    (
        "hellaswag",
        {
            "activity_label": "Health",
            "ctx_a": "[header] How to choose dental floss [title] Choose a thick floss. [step] Some options",
            "ctx_b": "",
            "endings": FLOSS,
            "label": "1",
        },
        "Health: How to choose dental floss. Choose a thick floss. Some options Choosing a thicker floss.",
        "Health: How to choose dental floss. Choose a thick floss. Some options \nChoose the best continuation:\n"
        " A. If you have small gaps.\n B. Choosing a thicker floss.\n C. However, since.\n D. You can pick.\nAnswer: B",
    ),
    (
        "openbookqa",
        {
            "question_stem": "When food is reduced in the stomach",
            "choices": {"text": DIGEST, "label": list("ABCD")},
            "answerKey": "C",
        },
        "Question: When food is reduced in the stomach\nAnswer: nutrients are being deconstructed",
        "Question: When food is reduced in the stomach\n A. the mind needs time to digest\n"
        " B. take a second to digest what I said\n C. nutrients are being deconstructed\n"
        " D. reader's digest is a body of works\nAnswer: C",
    ),
    (
        "piqa",
        {"goal": "To create a makeshift ice pack,", "sol1": ICE[0], "sol2": ICE[1], "label": 1},
        "Goal: To create a makeshift ice pack,\nAnswer: take a sponge and soak it in water.",
        "Goal: To create a makeshift ice pack,\n A. take a sponge and soak it in oil.\n"
        " B. take a sponge and soak it in water.\nAnswer: B",
    ),
    (
        "siqa",
        {
            "context": "Quinn wanted to help me clean my room up because it was so messy.",
            "question": "What will Quinn want to do next?",
            "answerA": "Eat messy snacks",
            "answerB": "help out a friend",
            "answerC": "Pick up the dirty clothes",
            "label": "3",
        },
        "Question: Quinn wanted to help me clean my room up because it was so messy. What will Quinn want to do next?\n"
        "Answer: Pick up the dirty clothes",
        "Question: Quinn wanted to help me clean my room up because it was so messy. What will Quinn want to do next?\n"
        " A. Eat messy snacks\n B. help out a friend\n C. Pick up the dirty clothes\nAnswer: C",
    ),
    (
        "winogrande",
        {
            "sentence": "Felicia unexpectedly made fried eggs for breakfast in the morning for Katrina and now _ owes "
            "a favor.",
            "option1": "Felicia",
            "option2": "Katrina",
            "answer": "2",
        },
        "Felicia unexpectedly made fried eggs for breakfast in the morning for Katrina and now Katrina owes a favor.",
        "Fill in the blank: Felicia unexpectedly made fried eggs for breakfast in the morning for Katrina and now ___ "
        "owes a favor.\n A. Felicia\n B. Katrina\nAnswer: B",
    ),
]


@pytest.mark.parametrize(("slug", "row", "cloze", "lettered"), PUBLISHED, ids=[case[0] for case in PUBLISHED])
def test_olmes_as_it_was_published(slug: str, row: dict[str, Any], cloze: str, lettered: str) -> None:
    for prompt, expected in (("olmes", cloze), ("olmes_mc", lettered)):
        question = ask(slug, prompt, row)
        context = question.context(question.gold)
        assert (context + " " + question.candidates[question.gold]).replace("  C", " C") == expected.replace(
            "  C", " C"
        )


def test_olmes_does_not_double_the_full_stop_before_a_title() -> None:
    row = ROWS["hellaswag"][0] | {"ctx_a": "Dig here. [title] Find a spade.", "ctx_b": ""}
    assert ask("hellaswag", "lm_eval", row).contexts == ("Baking bread: Dig here.. Find a spade.",)
    assert ask("hellaswag", "olmes", row).contexts == ("Baking bread: Dig here. Find a spade.",)
    assert ask("hellaswag", "olmes_mc", row).contexts[0].startswith("Baking bread: Dig here. Find a spade. \nChoose")


@pytest.mark.shared_data
@pytest.mark.parametrize(("slug", "prompt"), SETS)
def test_every_real_row_of_every_set_is_sound(slug: str, prompt: str, shared_data: Path) -> None:
    spec = load_benchmark(slug)
    examples = load_examples(spec, shared_data, StudyScoring(prompt=prompt))
    assert len(examples) == spec.examples
    assert {example.variant for example in examples} == {f"{prompt}/0shot"}
    lettered = spec.prompts[prompt].options is not None
    for example in examples:
        assert 0 <= example.gold < len(example.candidates) and len(example.candidates) >= 2
        assert len(example.contexts) in (1, len(example.candidates))
        assert all(text.strip() for text in (*example.candidates, *map(str, example.contexts)))
        if lettered:
            shown = re.findall(r"(?m)^ ?([A-Z])\. ", str(example.context(0)))
            assert list(example.candidates) == shown[-len(example.candidates) :]


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", ["piqa", "siqa", "boolq", "arc_challenge", "sciq", "openbookqa", "mnli", "cb", "qqp"])
def test_the_right_letter_stands_before_the_right_answer(slug: str, shared_data: Path) -> None:
    """The text beside the gold letter is the gold candidate of lm-evaluation-harness's form."""
    spec = load_benchmark(slug)
    texts = load_examples(spec, shared_data, StudyScoring(sample=200))
    for prompt in [name for name, prompt in spec.prompts.items() if prompt.options is not None]:
        for plain, example in zip(
            texts, load_examples(spec, shared_data, StudyScoring(sample=200, prompt=prompt)), strict=True
        ):
            option = f"{example.candidates[example.gold]}. {plain.candidates[plain.gold]}"
            assert re.search(rf"\n ?{re.escape(option)}\n", str(example.context(0)))


@pytest.mark.shared_data
def test_no_letter_is_right_too_often(shared_data: Path) -> None:
    """A model that always says one letter must not score far above chance where the texts differ from row to row."""
    for slug in ("hellaswag", "piqa", "copa", "siqa", "winogrande", "arc_easy", "sciq", "openbookqa"):
        examples = load_examples(load_benchmark(slug), shared_data, StudyScoring(prompt="lettered"))
        share = [sum(e.gold == i for e in examples) / len(examples) for i in range(4)]
        assert max(share) < 1.2 / len(examples[0].candidates), slug


def test_unknown_sets_name_those_that_have_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_examples(load_benchmark("rte"), tmp_path, StudyScoring(prompt="olmes"))
    message = str(error.value)
    assert "benchmark rte: no prompt set 'olmes'" in message and "valid: lm_eval, lettered" in message
    assert "olmes is there for hellaswag, piqa, siqa" in message and "rte," not in message
    with pytest.raises(ConfigError, match="no prompt set 'elsewhere'"):
        load_examples(load_benchmark("rte"), tmp_path, StudyScoring(prompt="elsewhere"))


def test_which_candidates_are_fixed() -> None:
    assert load_benchmark("boolq").fixed_in("lm_eval") and load_benchmark("boolq").fixed_in("of another harness")
    assert not load_benchmark("piqa").fixed_in("lm_eval") and load_benchmark("piqa").fixed_in("lettered")
    assert load_benchmark("commonsense_qa").fixed_in("lm_eval")
    assert not load_benchmark("commonsense_qa").fixed_in("olmes")


# ---------------------------------------------------------------------------------------------- a user's own

MMLU = """
slug: anatomy
display: Anatomy
category: medicine
files: {test: rows/test.jsonl, dev: rows/dev.jsonl}
split: test
train_split: dev
columns: [question, choices, answer]
label: answer
labels: [0, 1, 2, 3]
prompts:
  mmlu:
    context: |-
      {{ question.strip() }}
      {{ lettered | join("\\n") }}
      Answer:
    options: choices
"""
MMLU_ROWS = [
    {"question": " Which bone is in the leg? ", "choices": ["ulna", "tibia", "rib", "atlas"], "answer": 1},
    {"question": "How many\nhearts?", "choices": ["one", "two", "\"three\"", "ünf"], "answer": 0},
    {"question": "Which is a gland?", "choices": ["liver", "femur", "iris", "molar"], "answer": 0},
]  # fmt: skip


def own(tmp_path: Path, text: str = MMLU, rows: list[dict[str, Any]] | None = None) -> BenchmarkConfig:
    (tmp_path / "rows").mkdir(exist_ok=True)
    for split in ("test", "dev"):
        lines = [json.dumps(row) for row in (MMLU_ROWS if rows is None else rows)]
        (tmp_path / "rows" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "anatomy.yaml").write_text(text)
    return load_benchmark(str(tmp_path / "anatomy.yaml"))


def requests(examples: list[Example]) -> list[list[tuple[str, str]]]:
    return [[(str(e.context(i)), f" {text}") for i, text in enumerate(e.candidates)] for e in examples]


@pytest.mark.parametrize("shots", [0, 1])
def test_a_users_file_equals_the_harness_on_its_mmlu(tmp_path: Path, shots: int) -> None:
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    spec = own(tmp_path)
    assert (spec.category, list(spec.prompts)) == ("medicine", ["mmlu"])
    examples = load_examples(spec, None, StudyScoring(shots=shots))  # `files` is read wherever the study's data lie
    assert [e.gold for e in examples] == [1, 0, 0] and [e.example_id for e in examples][2] == "test/2"
    assert {e.variant for e in examples} == {f"mmlu/{shots}shot"}

    pq.write_table(pa.Table.from_pylist(MMLU_ROWS), tmp_path / "rows.parquet")
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / "mmlu/default/_default_template_yaml")
    files = {split: str(tmp_path / "rows.parquet") for split in ("test", "dev")}
    kwargs = {"data_files": files, "cache_dir": str(tmp_path / "cache")}
    task = ConfigurableTask(
        config=config | {"task": "anatomy", "dataset_path": "parquet", "dataset_kwargs": kwargs, "tag": None}
    )
    for doc, ours in zip(task.eval_docs, requests(examples), strict=True):
        if shots:  # the harness draws the first rows of dev; it is made to draw ours
            front = next(i for i, row in enumerate(MMLU_ROWS) if ours[0][0].startswith(row["question"].strip()))
            drawn = [task.eval_docs[front]]
            task.sampler.sample = lambda n, eval_doc=None, drawn=drawn: drawn
        theirs = task.construct_requests(doc, task.fewshot_context(doc, num_fewshot=shots), metadata=("", 0, 1))
        assert ours == [request.args for request in theirs]


@pytest.mark.parametrize("page", ["docs/cli.md", "docs/benchmarks.md"])
def test_the_example_of_the_page_works(page: str, tmp_path: Path) -> None:
    (block,) = [
        text
        for text in re.findall(r"```yaml\n(.*?)```", (PROJECT_ROOT / page).read_text(), flags=re.DOTALL)
        if text.startswith("slug:")
    ]
    (tmp_path / "riddles.yaml").write_text(block)
    row = {"riddle": "What has keys but no doors?", "options": ["a piano", "a house", "a car"], "answer": 0}
    (tmp_path / "riddles.jsonl").write_text(json.dumps(row))
    spec = load_benchmark(str(tmp_path / "riddles.yaml"))
    for prompt in spec.prompts:
        (example,) = load_examples(spec, None, StudyScoring(prompt=prompt))
        if prompt == "plain":
            assert example.contexts == ("Riddle: What has keys but no doors?\nAnswer:",)
            assert example.candidates == ("a piano", "a house", "a car") and example.gold == 0
        else:
            shown = "Riddle: What has keys but no doors?\nA. a piano\nB. a house\nC. a car\nAnswer:"
            assert example.contexts == (shown,) and example.candidates == ("A", "B", "C")


def test_users_files_come_last_and_once(tmp_path: Path) -> None:
    path = str(tmp_path / "anatomy.yaml")
    spec = own(tmp_path)
    assert [s.slug for s in load_benchmarks([path, "rte", "piqa"])] == ["piqa", "rte", "anatomy"]
    assert [s.slug for s in load_benchmarks()] == list(BENCHMARKS)
    assert spec.files["test"] == str(tmp_path / "rows" / "test.jsonl")
    with pytest.raises(ConfigError, match="'anatomy' is named twice"):
        load_benchmarks([path, path])
    with pytest.raises(ConfigError, match=r"unknown benchmark 'piqua'(.|\n)*piqa.*path of a YAML file"):
        load_benchmark("piqua")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_benchmark(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match="'piqa' is one of the paper's 20"):
        own(tmp_path, MMLU.replace("slug: anatomy", "slug: piqa"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{{ question.strip() }}", "{{ query }}"), r"prompts\.mmlu\.context: no column 'query'(.|\n)*valid: question"),
        (("options: choices", "options: choises"), r"prompts\.mmlu\.options: no column 'choises'"),
        (("options: choices", "options: '{{ choices }}'"), r"prompts\.mmlu\.options: a template(.|\n)*no braces"),
        (("{{ question.strip() }}", "{{ question"), r"prompts\.mmlu\.context: not a Jinja template"),
        (("{{ question.strip() }}", "{{ question | shout }}"), r"not a Jinja template: No filter named 'shout'"),
        (("{{ question.strip() }}", "{% if %}"), r"not a Jinja template"),
    ],
)
def test_wrong_templates_are_refused_before_a_row_is_read(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    spec = own(tmp_path, MMLU.replace(*change))
    for path in (tmp_path / "rows").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match=f"benchmark anatomy, {message}" if "prompts" in message else message):
        load_examples(spec, None)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ question.__class__.__mro__ }}",
        "{{ question.__init__.__globals__ }}",
        "{{ (question | attr('__class__')).mro() }}",
        "{{ '{0.__class__}'.format(question) }}",
        "{{ choices.append('x') }}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__ }}",
    ],
)
def test_templates_reach_nothing_but_the_row(tmp_path: Path, attack: str) -> None:
    spec = own(tmp_path, MMLU.replace("{{ question.strip() }}", attack))
    with pytest.raises((ConfigError, DataError), match=r"unsafe|no column 'cycler'|no loader|undefined"):
        load_examples(spec, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["one"]}, r"test\.jsonl, row 1: cannot be made into a Anatomy prompt: it has 1 candidates"),
        ({"choices": ["a", "b", " ", "d"]}, r"row 1: .*candidate 2 is ' ', valid: a text that is not empty"),
        ({"choices": ["a", "b", "c"]}, r"row 1: .*it has 3 candidates and 4 labels"),
        ({"choices": ["a", "b", "c", 4]}, r"row 1: .*candidate 3 is"),
        ({"answer": 4}, r"row 1: label answer=4 is out of range(.|\n)*valid: 0, 1, 2, 3"),
        ({"answer": None}, r"row 1: column 'answer' is null"),
        ({"choices": [str(i) for i in range(27)]}, r"row 1: .*27 candidates, valid: 2 to 26"),
    ],
)
def test_bad_rows_of_a_users_file_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [MMLU_ROWS[0], MMLU_ROWS[1] | change]
    if any(not isinstance(text, str) for text in rows[1]["choices"]):
        rows = [MMLU_ROWS[0] | {"choices": [1, 2, 3, 4]}] * 2
        message = message.replace("row 1", "row 0").replace("candidate 3", "candidate 0")
    with pytest.raises(DataError, match=message):
        load_examples(own(tmp_path, rows=rows), None)


def test_broken_files_of_a_user_are_named(tmp_path: Path) -> None:
    spec = own(tmp_path)
    path = tmp_path / "rows" / "test.jsonl"
    for text, message in (
        ('{"question": "?"\n', r"test\.jsonl: line 1 is not JSON"),
        ("[1]\n", r"line 1 is no object"),
        (json.dumps({"question": "?"}), r"column 'choices' is missing"),
        ("", r"column 'question' is missing|has no rows"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            load_examples(spec, None)
    path.unlink()
    with pytest.raises(DataError, match=r"test\.jsonl: the evaluation rows of Anatomy are missing"):
        load_examples(spec, None)
    spec = own(tmp_path, MMLU.replace(", dev: rows/dev.jsonl", ""))
    with pytest.raises(DataError, match=r"benchmark anatomy, split dev: the train rows of Anatomy are missing"):
        load_examples(spec, None, StudyScoring(shots=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MMLU.replace("options: choices", ""), "give candidates .* or options"),
        (
            MMLU.replace("labels: [0, 1, 2, 3]", ""),
            "no labels: give them to the benchmark, or to the prompt set 'mmlu'",
        ),
        (MMLU.replace("label: answer", "label: gold"), "label names 'gold', which is not among the columns"),
        (MMLU.replace("slug: anatomy", "slug: ../anatomy"), "slug: string should match pattern"),
        (MMLU.replace("mmlu:", "m/m:"), "prompts"),
        (MMLU.replace("options: choices", "candidates: [yes, no]"), "candidates"),  # YAML's booleans
    ],
)
def test_incomplete_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "anatomy.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"anatomy\.yaml: (.|\n)*{message}"):
        load(BenchmarkConfig, tmp_path / "anatomy.yaml")


def test_contexts_for_each_candidate_must_be_as_many(tmp_path: Path) -> None:
    spec = own(tmp_path)
    prompt = PromptSet(context=("{{ question }}", "{{ question }}"), candidates="choices")
    with pytest.raises(DataError, match="4 candidates and 2 contexts"):
        load_examples(spec.model_copy(update={"prompts": {"x": prompt}}), None)
