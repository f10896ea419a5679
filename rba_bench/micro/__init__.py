"""The miniature world that makes everything run offline: grammar, test sets, shipped weights, and how they are made."""
