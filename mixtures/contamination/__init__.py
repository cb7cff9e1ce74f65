"""Which benchmark items stand in the training text: n-gram overlap of every source and SFT set with every benchmark.

    words.py    text to words that compare equal whatever their case, punctuation and white space; their hashes
    items.py    benchmark rows to texts worth looking for
    index.py    the n-grams of those texts, and all places of a batch of documents where one stands
    search.py   every unit of every source against the index, in parallel and resumable
    report.py   what was found: by hit, by item, by source and benchmark
    study.py    what a study trains on and is scored on
    clean.py    documents without those that hold too much of an item, for the tokenizer

After GPT-3 (arXiv 2005.14165, appendix C), an item is touched where it shares a run of 13 words with a
document; a text of 8 to 12 words, where it stands there whole; a shorter one says nothing and is counted as not
assessable. The share of a text's 13-grams that are found is kept beside it, so that a stricter rule can be applied
afterwards (PaLM calls an item contaminated from a share of 70 % on, arXiv 2204.02311).
"""
