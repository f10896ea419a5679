"""Text LLMs as judges, each a finisher: every vote is kept the moment it arrives and never asked for twice.

    pairwise  which of two answers is better, in both orders: `win_rate`, `lc_win_rate`
    rating    how good one answer is, 1 to 5, several votes: `rating`
    yesno     whether an answer agrees with the references: `judge_accuracy`
    base      what they share: options, cost, accounts       prompts   the questions, in words
    polling   asking, retrying, reading votes                votes     the cache of replies
    verdicts  where in a reply the verdict stands
    length    length control and instruction difficulties    pricing   dollars of hosted judges

Nothing is dropped. A failure of the *model* counts against it, without asking anybody: an item that it did not answer
(status `error`) loses, is rated 1, is wrong; so is an item with an empty answer where a single answer is judged. In a
comparison an empty answer is put before the judge like any other, as AlpacaEval does. A failure of the *judge* (reply
malformed, refused, timed out, after the retries) gives no score; the item becomes `judge_failed` and is counted.

Import the sub-modules directly; this package imports none of them.
"""
