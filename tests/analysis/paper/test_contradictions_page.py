"""docs/contradictions.md: every number is recomputed, printed in a table of the paper, or a quotation listed here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import published_checks as checks
from published_checks import Reading

from analysis.paper import published as pub
from analysis.paper.numbers import CATEGORIES, FOLDER, SCALES, frame, in_text, numbers
from analysis.tables.published import span
from configs.layout import PROJECT_ROOT
from configs.load import load_mixture, load_sources, load_train

TEXT = " ".join((PROJECT_ROOT / "docs/contradictions.md").read_text(encoding="utf-8").split())
TAKEN, AS_NEAR = Reading(3, 8, 8), Reading(3, 4, 1)
EPOCHS = (("epochs_as_stated_in_text", "1B"), ("epochs", "240M"), ("epochs", "1B"))

# Numbers that stand in the paper's (or BETR's) running text, in a definition, or in a name.
QUOTED = {
    *("22", "8", "20", "4"),  # Appendix A: benchmarks and categories
    *("0.7", "95", "5", "1", "2", "0", "30"),  # bounds, levels, equation 6, an example
    "19",  # benchmarks without MultiRC
    *("3", "30", "1e22", "2.1x", "1.8-2.8x"),  # BETR
    "1e−32",  # Finding 3
}


def typeset(value: float, spec: str = ".2f") -> str:
    return f"{value:{spec}}".replace("-", "−")


def row(label: str, cells: Iterator[str] | list[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def power(p: float) -> str:
    """8.1e-33 as the page has it."""
    return typeset(p, ".0e")


def sizes() -> Iterator[str]:
    """Sizes and budgets."""

    def millions(number: int) -> str:
        return f"{number / 1e6:,.1f}"

    def off(number: float, scale: str) -> str:
        return typeset(100 * (number / checks.PARAMETERS[scale] - 1), "+.1f") + " %"

    for reading in checks.READINGS:
        mlp = f"{'gated' if reading.mlp_matrices == 3 else '2 matrices'}, {reading.expansion}d"
        cells = ["multi-head" if reading.key_heads == 8 else "multi-query"]
        for scale in SCALES:
            count = checks.count(scale, reading)
            cells += [f"{millions(count.tied)} ({millions(count.outside_embedding)})", millions(count.untied)]
        yield row(mlp, cells)
    small, large = (checks.count(scale, TAKEN) for scale in SCALES)
    yield (
        f"{off(small.tied, '240M')} at 240M; at 1B {off(large.tied, '1B')} in all, but "
        f"{off(large.outside_embedding, '1B')} outside the embedding"
    )
    assert abs(checks.count("240M", AS_NEAR).untied / 240e6 - 1) < abs(small.tied / 240e6 - 1)
    yield f"as near at 240M, and {off(checks.count('1B', AS_NEAR).untied, '1B')} at 1B"
    yield f"{millions(small.tied)}M and {millions(large.tied)}M parameters"
    yield f"untied {millions(small.untied)}M and {millions(large.untied)}M"
    shape = checks.model_shape("1B")
    yield f"{shape.heads} heads of {shape.head_dim} and an expand factor of 8, and states 240M and 1.0B parameters."
    yield f"gated MLP of {shape.ffn_hidden // shape.hidden}d, {shape.heads} heads × {shape.head_dim}, tied"
    yield f"taken is gated, {TAKEN.expansion}d, multi-head, tied"
    yield f"The heads are {shape.heads * shape.head_dim} wide"

    a, b = (checks.budget(scale) for scale in SCALES)
    yield f"{a.text_tokens // 10**9}B and {b.text_tokens // 10**9}B tokens: " + " and ".join(
        f"{made.text_tokens / made.parameters:.0f}" for made in (a, b)
    )
    yield (
        f"{a.table_steps:,} steps of 256 × 4,096 tokens at both scales: {b.table_tokens / 1e9:.1f}B, {a.ratio:.1f} and "
        f"{b.ratio:.2f} times as many, and {a.table_tokens / a.parameters:.0f} and "
        f"{b.table_tokens / b.parameters:.0f} a parameter"
    )
    yield (
        f"{a.text_steps:,} and {b.text_steps:,} steps of that batch; over {a.table_steps:,} steps they would make "
        f"batches of {checks.sequences_a_batch('240M'):.1f} and {checks.sequences_a_batch('1B'):.1f} sequences"
    )
    yield f"the text's {a.text_tokens // 10**9}B and {b.text_tokens // 10**9}B; steps are derived"
    yield f"{a.text_steps:,} and {b.text_steps:,} steps become {a.table_steps:,}"

    text, *table = (checks.printed("table2b", r, s) for r, s in EPOCHS)
    yield f"Section 3.1 says {text} for all; Table 2b says {table[0]} at 240M and {table[1]} at 1B"
    yield f"Under the text's {text} an epoch"
    epoch = checks.sft_steps_per_epoch("240M")
    assert epoch == checks.sft_steps_per_epoch("1B")
    published = load_sources().sft["sft"].published_examples or 0
    yield (
        f"6,365 / 5 = 12,730 / 10 = {epoch:,.0f} steps an epoch, or {epoch * 256:,.0f} examples, one to a row, about "
        f"the {published:,}"
    )
    yield f"would have {checks.sft_steps_per_epoch('1B', 'epochs_as_stated_in_text'):,.0f} steps"
    runs = [load_train(f"{name}_sft.yaml#table2b") for name in ("1b", "240m")]
    epochs, rates = [run.budget.epochs or 0 for run in runs], [run.optimizer.lr for run in runs]
    yield f"1B has {epochs[0] / epochs[1]:.0f} times the epochs and {rates[0] / rates[1]} times the learning rate"
    yield "12,730 steps at 1B become 6,365"
    yield f"{epoch:,.0f} steps an epoch |"

    errors = {name: f"{checks.standard_error_pp(name):.1f}" for name in frame("table4")["benchmark"]}
    assert errors["COPA"] == errors["OpenBookQA"]
    yield (
        f"{errors['CB']} percentage points for CB (56 examples), {errors['WSC']} for WSC, {errors['RTE']} for RTE, "
        f"{errors['MRPC']} for MRPC, {errors['COPA']} for COPA and OpenBookQA"
    )


def table_5() -> Iterator[str]:
    """Table 5 against the text."""
    rows = {
        "Table 5, Figure 2": [f"{numbers()['5', *key, 'mean']:.2f}" for key in pub.COLUMNS],
        "Findings 2 and 7": [f"{pub.means_in_text()[key]:.2f}" for key in pub.COLUMNS],
        "recomputed, all 20": [f"{pub.mean(*key):.4f}" for key in pub.COLUMNS],
        "recomputed without MultiRC": [f"{pub.mean(*key, without=('MultiRC',)):.3f}" for key in pub.COLUMNS],
        "p < 0.05": [str(sum((e.p or 0) < 0.05 for e in pub.estimates(*key).values())) for key in pub.COLUMNS],
        "q < 0.05 (Benjamini-Hochberg over the column)": [str(len(pub.significant(*key))) for key in pub.COLUMNS],
        "the same, within the rounding of r": [span(*pub.significant_range(*key)) for key in pub.COLUMNS],
    }
    yield from (row(label, cells) for label, cells in rows.items())
    assert pub.deletions_that_fit(1) == [("MultiRC",)] and not pub.deletions_that_fit(2)
    assert round(19 * checks.share_above_half(("MultiRC",))) == 15
    yield (
        f"{100 * checks.share_above_half(('MultiRC',)):.0f} % of benchmarks above 0.5 is 15 of 19 as well; of all 20 "
        f"it is {100 * checks.share_above_half():.0f} %"
    )

    mean = {key: {c: typeset(v, ".4f") for c, v in checks.category_means(*key).items()} for key in pub.COLUMNS}
    conf, conf_1b = mean["confidence", "240M"], mean["confidence", "1B"]
    yield (
        f"from {conf['Commonsense']} at 240M to {conf_1b['Commonsense']} at 1B for Commonsense and from "
        f"{conf['Science']} to {conf_1b['Science']} for Science; it is {conf['NLI']} for NLI at 240M"
    )
    for scale, words in (
        ("240M", "Commonsense {} against {}, Science {} against {};"),
        ("1B", "{} against {} and {} against {})"),
    ):
        pairs = [mean[metric, scale][c] for c in ("Commonsense", "Science") for metric in ("confidence", "accuracy")]
        yield words.format(*pairs)
    yield "in the mean of all ({2} against {0})".format(*(f"{pub.mean(*key):.2f}" for key in pub.COLUMNS))
    yield f"not for NLI ({conf['NLI']} against {mean['accuracy', '240M']['NLI']})"
    yield f"at 1B it is {mean['accuracy', '1B']['NLI']} against {mean['accuracy', '1B']['Science']}"

    def r(name: str) -> list[str]:
        return [typeset(pub.correlations(*key)[name]) for key in pub.COLUMNS]

    yield f"r > {pub.HIGH} at both scales, and lists {', '.join(pub.TIERS['highly reliable'])}"
    yield f"only {' and '.join(pub.above(pub.HIGH))} qualify"
    yield f"PIQA's confidence at 1B is {r('PIQA')[3]}; QQP has {r('QQP')[1]} and {r('QQP')[3]} at 1B"
    yield f"r < {pub.LOW} at either scale, and lists {', '.join(pub.TIERS['unreliable'])}"
    yield "WSC has {} and {} in accuracy, {} and {} in confidence".format(*r("WSC"))
    of_accuracy, of_confidence = (", ".join(pub.below(pub.LOW, columns=c)) for c in (pub.ACCURACY, pub.CONFIDENCE))
    yield f"for accuracy, {of_accuracy}; for confidence {of_confidence}"

    bounds = [f"{v} [{typeset(e.low or 0)}, {typeset(e.high or 0)}]" for v, e in intervals(0.49, 0.59, 0.70)]
    (first,) = (f"r = {v} is [{typeset(e.low or 0)}, {typeset(e.high or 0)}]" for v, e in intervals(0.41))
    yield f"{first}, of {', of '.join(bounds)}"
    yield f"beyond ±{pub.critical_r(pub.MIXTURES):.3f}"
    high, low = (sum(len(rule(bound, end, [key])) for key in pub.COLUMNS) for rule, bound, end in ENDS)
    yield f"80 correlations, {high} have an interval that lies above 0.6, and {low} one that lies below 0.3"
    assert pub.above(pub.HIGH, "low", pub.ACCURACY) == ["HellaSwag"] and not pub.above(pub.HIGH, "low")

    accuracy, confidence = (pub.scale_changes(metric) for metric in ("accuracy", "confidence"))
    name, change = max(accuracy.items(), key=lambda item: abs(item[1].z))
    assert all(change.p > 0.05 for change in accuracy.values())
    yield f"the largest |z| is {abs(change.z):.2f} ({name})"
    by_p, by_q = (", ".join(name for name, c in confidence.items() if getattr(c, field) < 0.05) for field in ("p", "q"))
    yield f"it changes for {by_p}, and after Benjamini-Hochberg over the 20 for {by_q}"
    yield f"PIQA's q of {confidence['PIQA'].q:.3f} hangs"

    finding = in_text(where="Finding 3")
    pairs = [math.comb(k, 2) for k in (20, 19)]
    p = [power(pub.p_of(finding, k)) for k in pairs]
    yield f"r = {finding} between"
    yield f"counts the {pairs[0]} pairs of 20 benchmarks as independent: {pairs[0]} pairs give {p[0]}"
    yield f"the {pairs[1]} pairs of 19 benchmarks {p[1]}"
    yield f"({pairs[0]} pairs are 20 benchmarks, where the means of the text are of 19.)"


ENDS = ((pub.above, pub.HIGH, "low"), (pub.below, pub.LOW, "high"))


def intervals(*values: float) -> list[tuple[str, pub.Estimate]]:
    return [(f"{value:.2f}", pub.published(value)) for value in values]


def alignment() -> Iterator[str]:
    """Definitions."""
    balance = checks.balance()
    for scale in SCALES:
        for stage in checks.STAGES:
            whole, web, code = balance[scale, stage, "NLI"]
            yield row(f"{scale} {stage}", [typeset(whole), typeset(web, ".3f"), typeset(code, ".3f")])
    assert not any(cell.agrees for (_, _, c), cell in balance.items() if c == "NLI")
    yield f"{sum(not cell.agrees for cell in balance.values())} of the {len(balance)} cells differ; for NLI all do"
    by_web, by_code = (sum(abs(cell[0] - cell[i]) <= checks.DIGIT for cell in balance.values()) for i in (1, 2))
    yield f"fits the means of Table 8 in {by_web} cells and those of Table 9 in {by_code}"
    seven, eight = (
        [typeset(numbers()["7", "alignment", "1B", c]) for c in CATEGORIES[:2]],
        [typeset(checks.education_effect("1B", "PT", c)) for c in CATEGORIES[:2]],
    )
    yield f"Commonsense {seven[0]} (from Table 8 {eight[0]}), Science {seven[1]} ({eight[1]})"
    yield f"Figure 7's {typeset(checks.education_effect('1B', 'SFT', 'Semantic'))} for Semantic at 1B after SFT agrees"


def claims() -> Iterator[str]:
    """Claims against each other."""
    yield f"Table 8 and Figure 12: {checks.lowest_alignment('Science')} (FineWeb-Edu, 240M, PT)"
    ten = {key: typeset(estimate.value or 0) for key, (estimate, _) in checks.persistence().items()}
    yield f"NLI {ten['240M', 'NLI']} and {ten['1B', 'NLI']}; at 1B"
    yield f"at 1B Science {ten['1B', 'Science']} and Semantic {ten['1B', 'Semantic']}"
    significant = {key: e for key, (e, _) in checks.persistence().items() if (e.p or 1) < 0.05}
    assert list(significant) == [("240M", "Commonsense")] and min(q for _, q in checks.persistence().values()) > 0.05
    estimate, q = checks.persistence()["240M", "Commonsense"]
    yield (
        f"only Commonsense at 240M ({ten['240M', 'Commonsense']}) is significant at n = {pub.MIXTURES}, with p = "
        f"{estimate.p:.3f}, and none after Benjamini-Hochberg (q = {q:.2f})"
    )
    yield f"the range {ten['1B', 'Commonsense']} to {ten['240M', 'Commonsense']}, which leaves out Science at 1B"

    eleven = [numbers()["11", web, "NLI"] for web in ("FineWeb-Edu", "RefinedWeb")]
    gain = checks.web_gaps()["NLI", "FineWeb-Edu", "RefinedWeb"]
    yield f"FineWeb-Edu {eleven[0]}, RefinedWeb {eleven[1]}, a gain of {gain:.1f} percentage points"
    gaps = [abs(gap) for gap in checks.web_gaps().values()]
    yield (
        f"{min(gaps):.1f} to {max(gaps):.1f} points, at most {checks.largest_web_gap_in_errors():.1f} standard errors"
    )

    code = {
        (where, scale): typeset(
            in_text(where=where, scale=scale, category_or_benchmark="HellaSwag", quantity="code proportion vs accuracy")
        )
        for where, scale in (("C.4.2", "1B"), ("Figure 15", "240M"), ("Figure 15", "1B"))
    }
    yield f"correlate with {code['C.4.2', '1B']} at 1B."
    yield f"Figure 15: {code['Figure 15', '240M']} at 240M, {code['Figure 15', '1B']} at 1B"
    nli = [typeset(numbers()["8", "1B", "PT", web, "NLI"]) for web in ("RefinedWeb", "FineWeb-Edu", "DCLM")]
    yield f"Table 8: {', '.join(nli)}."

    trained, crossed = checks.crossings()
    yield f"{crossed} mixtures. Table 3 has {trained}"
    yield f"{crossed} mixtures instead of {trained}"
    assert checks.share_directions() == 1
    yield ", ".join("/".join(f"{share:.0f}" for share in mixture) for mixture in checks.shares()[:3])
    size = dict(frame("table4")[["benchmark", "test_examples"]].to_numpy())
    yield f"{size['COPA']} examples for COPA"
    yield f"(CB {size['CB']}, RTE {size['RTE']}, WSC {size['WSC']})"
    parts = [f"{100 * load_mixture(f'V1P{p}').weights['books']:g}" for p in range(3)]
    yield f"{parts[0]}, {parts[1]} and {parts[2]} % of the tokens each"
    yield f"{load_train('1b.yaml').model.vocab:,} entries"

    yield (
        f"F = 4e−5 C^0.25. With compute C in FLOPs that is {checks.betr_percent(1e19):.2f} at 1e19 and "
        f"{checks.betr_percent(1e22):.1f} at 1e22"
    )
    yield f"ends at {checks.betr_flops(30):.0e} FLOPs".replace("e+", "e")


def test_every_recomputed_sentence_is_on_the_page() -> None:
    for part in (sizes, table_5, alignment, claims):
        for fragment in part():
            assert fragment in TEXT, f"{part.__doc__} The page does not say: {fragment}"


REFERENCE = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\b[ABC]\.\d(\.\d)?|\b(240M|1B|V[123]|RedPajama-1T|v2)\b|\b(Tulu 2|Stack-v2)"
    r"|\b(Tables?|Findings?|Figures?|[Ee]quations?|[Ss]ections?) [\d.]+[ab]?((, | and | to )\d+)*"
)


def test_no_other_number_is_on_the_page() -> None:
    """What no recomputed sentence holds is a cell of the paper's CSVs, or listed above."""
    cells = {cell for path in FOLDER.glob("*.csv") for cell in re.split(r"[,\n]", path.read_text())}
    rest = TEXT
    for fragment in sorted((f for part in (sizes, table_5, alignment, claims) for f in part()), key=len, reverse=True):
        rest = rest.replace(fragment, " ")
    rest = REFERENCE.sub(" ", rest)
    found = re.findall(r"[−±]?\d[\d,]*(?:\.\d+)?(?:e−?\d+)?(?:-\d+\.\d+)?x?", rest)
    plain = {text: text.rstrip(",").replace(",", "").replace("−", "-") for text in found}
    assert {text.rstrip(",") for text in found} >= QUOTED
    assert [text for text, bare in plain.items() if bare not in cells and text.rstrip(",") not in QUOTED] == []
