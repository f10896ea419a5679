"""rba-bench: a benchmark harness for speech language models with an alignment trainer built in."""

__version__ = "0.1.0"
