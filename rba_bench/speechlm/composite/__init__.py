"""Whisper-type encoder + projector + any causal language model, as one transformers model.

Importing this package imports neither torch nor transformers; `register()` makes the Auto classes know the composite.
"""

from rba_bench.speechlm.composite.auto import register

__all__ = ["register"]
