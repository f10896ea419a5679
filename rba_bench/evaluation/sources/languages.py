"""Languages by the codes of data sets, their English names, and the prompts that name them."""

from collections.abc import Mapping
from typing import Any

from rba_bench.metrics.language_names import FLEURS, TRANSLATE, english_name, short

__all__ = ["FLEURS", "TRANSCRIBE", "TRANSLATE", "english_name", "fleurs_config", "prompt", "short"]

TRANSCRIBE = "Transcribe the {language} speech. Write only the transcript."


def fleurs_config(code: str) -> str:
    """Configuration of FLEURS for a language code or a configuration. Raises UserError as `short` does."""
    return FLEURS[short(code)][0]


def prompt(template: str, code: str, options: Mapping[str, Any]) -> str:
    """The prompt of a task: `template`, or the task's own `prompt` option, with `{language}` filled in."""
    return str(options.get("prompt") or template).replace("{language}", english_name(code))
