"""Scores in the formats of others: the Hub, Every Eval Ever, model cards, papers."""
