"""`rba-bench judge transfer`: what changes on a board when one judge takes the place of another.

kinds.py        what a judge can say of an answer: a preference, a rating, right or wrong, reasoning or none
sections.py     which runs the first judge has judged, and how it was asked
pair_set.py     a fixed set of answers, the same items for every model, with a hash
judging.py      the verdicts of both judges on it: stored ones, or asked for by the task's own protocol
judged_pairs.py the verdicts of both as arrays
effects.py      agreement, consistency, biases, scores and order of the models under both
sentences.py    what this means for the board, in words
report.py       the page
transfer.py     all of it, resumable, and the records and the board under the new judge
"""
