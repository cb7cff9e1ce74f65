"""The SFT set: short conversations about the microworld in tulu's `messages` form.

They practise the form of answering. Facts are asked for a quarter of the subjects only (the first of each relation),
so that fine-tuning does not hand every mixture the facts it lacks.
"""

from __future__ import annotations

import random
from typing import Any

from mixtures.microworld.registers import Voice, cap
from mixtures.microworld.world import RELATIONS, SUBJECTS_PER_RELATION

FACT_SUBJECTS = SUBJECTS_PER_RELATION // 4


def conversation(rng: random.Random, i: int) -> dict[str, Any]:
    """One row: dataset, id, messages."""
    relation = RELATIONS[rng.choice(list(RELATIONS))]
    voice = Voice(relation, rng.choice(list(relation.facts)[:FACT_SUBJECTS]), rng)
    kind = rng.choice(("ask", "tell", "repeat", "check"))
    if kind == "ask":
        turns = [(f"{cap(voice.question())}?", f"{cap(voice.reply())}.")]
    elif kind == "tell":
        turns = [(f"Tell me about the {voice.subject}.", f"{cap(voice.clause())}. {cap(voice.clause())}.")]
    elif kind == "repeat":
        sentence = cap(voice.filler()) + "."
        turns = [(f"Repeat this: {sentence}", sentence)]
    else:
        statement = voice.filler()
        other = statement if rng.random() < 0.5 else voice.filler()
        verdict = "Yes." if statement == other else "No."
        turns = [(f"{cap(statement)}. Is it right that {other}?", verdict), ("Thank you.", "You are welcome.")]
    messages = []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"dataset": f"microworld_{kind}", "id": f"micro-{i}", "messages": messages}


def conversations(count: int) -> list[dict[str, Any]]:
    rng = random.Random("microworld/sft")
    return [conversation(rng, i) for i in range(count)]
