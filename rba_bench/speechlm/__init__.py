"""The models under test: speech and text in, text out."""
