"""Invented benchmark rows in the columns of the Hub, with the awkward cases of each template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.load import load_benchmark


def _arc(identifier: str, question: str, texts: list[str], labels: list[str], answer: str) -> dict[str, Any]:
    return {"id": identifier, "question": question, "choices": {"text": texts, "label": labels}, "answerKey": answer}


ARC = [
    _arc("a", "Which of these melts first?", ["ice", "iron", "salt", "glass"], ["A", "B", "C", "D"], "A"),
    _arc("b", "How many moons?", ["one", "two, or three", "none"], ["1", "2", "3"], "3"),
    _arc("c", 'Pick "the" odd one:', ["oak", "elm", "ash", "tin", "fir"], ["A", "B", "C", "D", "E"], "D"),
    _arc("d", "Ends with a space ", ["no", " yes"], ["A", "B"], "B"),
]
YES_NO_PAIRS = [
    ("The mill stopped.", "A wheel broke."),
    ("It rained all day ", "  The road was wet"),
    ("Ünlü!", "é — ß?"),
]

ROWS: dict[str, list[dict[str, Any]]] = {
    "hellaswag": [
        {
            "activity_label": "Baking bread",
            "ctx_a": "A baker kneads the dough.",
            "ctx_b": "the baker",
            "endings": ["sets it  aside to rise.", "[step] throws it. [title] Wait", "sings.", "goes [substeps] out."],
            "label": "0",
        },
        {
            "activity_label": " Home and garden",
            "ctx_a": "[header] How to dig [title] Find a spade. [step] Hold it",
            "ctx_b": "",
            "endings": ["firmly.", "up  high and  let go.", "for a day.", "in water."],
            "label": "3",
        },
    ],
    "piqa": [
        {"goal": "open a stuck jar", "sol1": "warm the lid ", "sol2": "cool the  lid", "label": 0},
        {"goal": "How do I dry boots?\n", "sol1": "in a freezer", "sol2": "by the stove", "label": 1},
    ],
    "copa": [
        {"premise": "The lamp went out.", "choice1": "The oil was gone.", "choice2": "Birds sang.", "question": "cause",
         "idx": 0, "label": 0},
        {"premise": "He ran home. ", "choice1": "He slept.", "choice2": "I was tired.", "question": "effect", "idx": 1,
         "label": 1},
    ],
    "siqa": [
        {"context": "Mara lent Tom a rope.", "question": "How does Tom feel?", "answerA": "grateful", "answerB": "cold",
         "answerC": "as before", "label": "1"},
        {"context": "Ola fell. ", "question": "Why?", "answerA": "ice", "answerB": "it's 'late'", "answerC": "wind",
         "label": "3"},
    ],
    "commonsense_qa": [
        {"id": "q", "question": " Where would you keep a boat? ", "question_concept": "boat",
         "choices": {"label": list("ABCDE"), "text": ["harbour", "oven", "tree", "cloud", "drawer"]}, "answerKey": "A"},
        {"id": "r", "question": "What cuts?", "question_concept": "cut",
         "choices": {"label": list("ABCDE"), "text": ["fog", "milk", "wool", "sand", "a knife"]}, "answerKey": "E"},
    ],
    "winogrande": [
        {"sentence": "The cup did not fit the shelf because the _ was too wide.", "option1": "cup", "option2": "shelf",
         "answer": "1"},
        {"sentence": "_ thanked Bea , since she had helped.", "option1": "Ada", "option2": "Bea", "answer": "2"},
    ],
    "boolq": [
        {"question": "is tin a metal", "answer": True, "passage": "Tin is a metal. It melts at 232 °C."},
        {"question": "do stones float", "answer": False, "passage": "Stones sink;\nwood floats. "},
    ],
    "arc_challenge": ARC,
    "arc_easy": ARC[::-1],
    "sciq": [
        {"question": "What gas do leaves take in?", "distractor3": "neon", "distractor1": "oxygen",
         "distractor2": "helium", "correct_answer": "carbon dioxide", "support": "  Leaves take in carbon dioxide."},
        {"question": "Which is a metal?", "distractor3": "gold", "distractor1": "sulfur", "distractor2": "iodine",
         "correct_answer": "gold", "support": ""},
    ],
    "openbookqa": [
        {"id": "7", "question_stem": "A dog pants to", "choices": {"text": ["cool down", "bark", "eat", "sleep"],
         "label": list("ABCD")}, "answerKey": "A"},
        {"id": "8", "question_stem": "The sun rises in the ", "choices": {"text": ["west", "night", "east", "sea"],
         "label": list("ABCD")}, "answerKey": "C"},
    ],
    "mnli": [
        {"premise": a, "hypothesis": b, "label": label, "idx": label} for label, (a, b) in enumerate(YES_NO_PAIRS)
    ],
    "qnli": [{"question": a, "sentence": b, "label": i % 2, "idx": i} for i, (a, b) in enumerate(YES_NO_PAIRS)],
    "rte": [{"sentence1": a, "sentence2": b, "label": i % 2, "idx": i} for i, (a, b) in enumerate(YES_NO_PAIRS)],
    "cb": [{"premise": a, "hypothesis": b, "idx": i, "label": i} for i, (a, b) in enumerate(YES_NO_PAIRS)],
    "qqp": [{"question1": a, "question2": b, "label": i % 2, "idx": i} for i, (a, b) in enumerate(YES_NO_PAIRS)],
    "mrpc": [{"sentence1": a, "sentence2": b, "label": i % 2, "idx": i} for i, (a, b) in enumerate(YES_NO_PAIRS)],
    "wic": [
        {"word": "bank", "sentence1": "The banks were steep.", "sentence2": "A bank lends.", "start1": 4, "start2": 2,
         "end1": 9, "end2": 6, "idx": 0, "label": 0},
        {"word": "run", "sentence1": "Runs end.", "sentence2": "A run.", "start1": 0, "start2": 2, "end1": 4, "end2": 5,
         "idx": 1, "label": 1},
    ],
    "wsc": [
        {"text": 'Ida told Eva that " she did n\'t win ( again ) " , and left .', "span1_index": 0, "span2_index": 5,
         "span1_text": "Ida", "span2_text": "she", "idx": 0, "label": 1},
        {"text": "The dog chased the cat  until it was tired.", "span1_index": 0, "span2_index": 6,
         "span1_text": "The dog", "span2_text": "it", "idx": 1, "label": 0},
    ],
    "multirc": [
        {"paragraph": "Two boats left. One came back.", "question": "How many left?", "answer": "Two", "label": 1,
         "idx": {"paragraph": 0, "question": 0, "answer": 0}},
        {"paragraph": "Two boats left. One came back.", "question": "How many left?", "answer": 'The "first" one\'s',
         "label": 0, "idx": {"paragraph": 0, "question": 0, "answer": 1}},
    ],
}  # fmt: skip


def write_benchmarks(root: Path, copies: int = 1) -> Path:
    """ROWS as a local data folder; returns `root`."""
    for slug, rows in ROWS.items():
        path = root / "benchmarks" / slug / f"{load_benchmark(slug).split_in(local=True)}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows * copies), path)
    return root


def words() -> list[str]:
    """Text to train a small tokenizer on."""
    return [json.dumps(rows, ensure_ascii=False) for rows in ROWS.values()]
