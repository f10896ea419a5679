"""`rba-bench judge transfer`: what changes on a board when one judge takes the place of another.

sections.py     which runs the first judge has judged, and how it was asked
pair_set.py     a fixed set of answers, the same items for every model, with a hash
judging.py      the verdicts of both judges on it: stored ones, or asked for by the task's own protocol
effects.py      agreement, consistency, biases, win rates and order of the models under both
sentences.py    what this means for the board, in words
report.py       the page
transfer.py     all of it, resumable, and the records and the board under the new judge
"""
