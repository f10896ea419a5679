"""The models under test: anything that hears speech (or reads its transcript) and answers in text."""
