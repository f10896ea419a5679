"""Which texts may become training data: language, refusals, safety, duplicates, items of test sets.

    text_rules         what is wrong with one text by itself: `TextRules`, for any number of processes
    exact_duplicates   the same words as an earlier text
    near_duplicates    nearly the same words as an earlier text
    decontamination    the words of an item of a test set

`tests/synthesis/labelled_texts.tsv` holds the labelled texts by which the rules are measured, and
`benchmarks/text_filters.py` prints the table.
"""
