"""The names that may stand in metrics.parquet (columns `metric` and `normalisation`)."""

from __future__ import annotations

VERSION = "5"
KEYS = ("scale", "stage", "recipe", "mixture", "seed", "step", "tokens", "benchmark", "variant")
"""Columns that identify one cell."""
COLUMNS = (*KEYS, "metric", "normalisation", "value", "n", "stderr", "fingerprint")

METRICS = {
    "accuracy": "share of examples whose highest-scoring candidate is the true one (ties: the lowest index)",
    "confidence": "softmax over the candidates' summed log-probabilities at the selected one, averaged (reading A)",
    "confidence_joint": "exp(summed log-probability) of the selected candidate, averaged (reading B)",
    "gold_probability": "softmax over the candidates' summed log-probabilities at the true one, averaged",
    "gold_logprob_per_byte": "log-probability of the true candidate / its UTF-8 bytes, averaged, nats",
    "margin": "log-probability of the true candidate less that of the best other one, averaged, nats",
    "f1_macro": "F1 of each class, averaged over the classes (benchmarks whose own metric is F1)",
    "nll": "-log of the true candidate's softmax probability, averaged, nats",
    "brier": "squared distance of the softmax probabilities from the truth, summed over candidates, averaged",
    "ece": "|accuracy - confidence|, averaged over 15 equally wide bins of confidence",
    "ece_mass": "|accuracy - confidence|, averaged over 15 bins of confidence with equally many examples",
    "auroc": "chance that a right answer has more confidence than a wrong one",
    "brier_calibration": "of being right, in 15 equally wide bins: (accuracy - confidence)^2, averaged (Murphy 1973)",
    "brier_resolution": "of being right: (accuracy of the bin - accuracy)^2, averaged",
    "brier_uncertainty": "of being right: accuracy (1 - accuracy)",
    "temperature": "by which log-probabilities are divided so that the true answers are likeliest (all examples)",
    "confidence_scaled": "`confidence` after a temperature that was fitted on other examples",
    "confidence_pt_scaled": "`confidence` after the temperature of the pretrained checkpoint (SFT only)",
    "nll_scaled": "`nll` after a temperature that was fitted on other examples",
    "nll_pt_scaled": "`nll` after the temperature of the pretrained checkpoint (SFT only)",
    "brier_scaled": "`brier` after a temperature that was fitted on other examples",
    "brier_pt_scaled": "`brier` after the temperature of the pretrained checkpoint (SFT only)",
    "ece_scaled": "`ece` after a temperature that was fitted on other examples",
    "ece_pt_scaled": "`ece` after the temperature of the pretrained checkpoint (SFT only)",
    "confidence_common_scaled": "`confidence` after one temperature for all benchmarks, fitted on other examples",
    "nll_common_scaled": "`nll` after one temperature for all benchmarks, fitted on other examples",
    "brier_common_scaled": "`brier` after one temperature for all benchmarks, fitted on other examples",
    "ece_common_scaled": "`ece` after one temperature for all benchmarks, fitted on other examples",
    "accuracy_prior_corrected": "`accuracy` less the label prior of other examples (fixed candidates only)",
    "confidence_prior_corrected": "`confidence` less the label prior of other examples (fixed candidates only)",
    "nll_prior_corrected": "`nll` less the label prior of other examples (fixed candidates only)",
    "brier_prior_corrected": "`brier` less the label prior of other examples (fixed candidates only)",
    "ece_prior_corrected": "`ece` less the label prior of other examples (fixed candidates only)",
    "ties": "examples in which two or more candidates share the highest score (a count)",
    "uniform": "accuracy of uniform guessing: 1 / candidates, averaged over the examples",
    "chance": "`uniform`, or a larger share of the majority class where all rows have the same candidates",
    "accuracy_lm_eval": "accuracy against lm-evaluation-harness's inverted MultiRC label (MultiRC only)",
}

NORMALISATIONS = {
    "": "does not apply",
    "sum": "summed log-probability (lm-evaluation-harness `acc`)",
    "char": "summed log-probability / characters of the candidate (`acc_norm`)",
    "token": "summed log-probability / tokens of the candidate",
    "byte": "summed log-probability / UTF-8 bytes of the candidate (`acc_bytes`)",
    "pmi": "summed log-probability - that of the candidate after the bare answer prefix (`acc_mutual_info`)",
}

F1_BENCHMARKS = ("cb", "qqp", "mrpc", "multirc")
"""Whose authors report F1 (GLUE, SuperGLUE); their candidates are the same classes in every row."""
