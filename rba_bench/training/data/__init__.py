"""What a step is made of: groups in order, their clips, pairs of answers, rows of a batch."""
