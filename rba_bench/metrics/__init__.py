"""Scores and their uncertainty as pure functions: BLEU, chrF++, QA match, win rates, bootstrap, rank bands.

Rewards in training and scorers in evaluation call the same functions. Import the sub-modules directly.
"""
