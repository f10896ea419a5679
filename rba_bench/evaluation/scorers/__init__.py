"""Scorers that need more than one answer or another model: judges, agreement over voices, length control.

    scorer          what a scorer is                        registry       from a task's `metadata.finish` to scorers
    judge           what judges share: options, costs       judge_prompts  prompts of judges, reading verdicts
    pairwise        which of two answers is better, asked in both orders: `win_rate`, `lc_win_rate`
    rating          how good one answer is, 1 to 5, several votes: `rating`
    yesno           whether an answer agrees with the references: `judge_accuracy`
    agreement       agreement of the answers over voices    reasoning      the IF rate of Speech-IFEval
    length_control  length control and instruction difficulties

No item is dropped. A failure of the *model* counts against it without asking a judge: an item that it did not answer
(status `error`) loses, is rated 1, is wrong; so does an item with an empty answer where a single answer is judged. In a
comparison an empty answer is shown to the judge like any other, as AlpacaEval does. A failure of the *judge* (reply
malformed, refused, timed out, after the retries) gives no score; the item becomes `judge_failed` and is counted.

Import the sub-modules directly; this package imports none of them.
"""
