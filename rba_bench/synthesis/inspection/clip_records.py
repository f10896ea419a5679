"""What the page shows of a clip, as JSON values."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rba_bench.audio.spoken_form import spoken_form
from rba_bench.audio.turns import TURNS, read_turns
from rba_bench.errors import MissingPrerequisite
from rba_bench.metrics.word_differences import error_rate, word_differences
from rba_bench.progress import say
from rba_bench.untrusted import visible_text

TEXTS = ("id", "kind", "split", "topic", "difficulty", "voice", "prompt", "instruction", "response")
LONGEST = 20_000  # characters of a text: a page of novels is slow


def clip_record(row: Mapping[str, Any], number: int, spoken: Callable[[str, str], str]) -> dict[str, Any]:
    """A clip for the page.

    Args:
        row: Columns of `set_clips.SHOWN`, without the audio.
        number: Of the clip in the set, from 0.
        spoken: Gives the words that were spoken for a text in a language.
    """
    texts = {name: _text(row.get(name)) for name in TEXTS}
    language = row.get("source_lang") or "en"
    said = _text(spoken(texts["instruction"], language))
    record: dict[str, Any] = {
        **texts,
        "number": number + 1,
        "group": _text(row.get("group_id")),
        "said": said if said != texts["instruction"] else "",
        "seconds": _number(row, "duration"),
        "references": [_text(reference) for reference in _list(row.get("references"))],
        "turns": [(_text(turn.instruction), _text(turn.response)) for turn in read_turns(row.get(TURNS))],
        "sound": _sound(row),
        "wer": _number(row, "asr_wer"),
    }
    if row.get("asr_text") is not None:
        record["transcript"] = _text(row["asr_text"])
        record["differences"] = word_differences(said, record["transcript"], language)
        if record["wer"] is None:
            record["wer"] = error_rate(record["differences"])
    return record


def spoken_words(manifest: Mapping[str, Any]) -> Callable[[str, str], str]:
    """What says a set's texts: its spoken form, where its recipe asks for that and the package is installed."""
    recipe = manifest.get("recipe")
    if not isinstance(recipe, Mapping) or not recipe.get("spoken_form"):
        return lambda text, language: text
    try:
        spoken_form("$5", "en")
    except MissingPrerequisite as error:
        say(f"word differences are those from the written text, not from the spoken form: {error}")
        return lambda text, language: text
    return spoken_form


def _sound(row: Mapping[str, Any]) -> list[str]:
    """What was done to the clip, in words."""
    facts = []
    noise, speed = _number(row, "snr_db"), _number(row, "speed")
    if noise is not None:
        colour = f"{row['noise_colour']} " if row.get("noise_colour") else ""
        facts.append(f"{colour}noise, {noise:.1f} dB")
    if speed is not None and speed != 1:
        facts.append(f"speed {speed:.2f}")
    steps = row.get("augmentation")
    if isinstance(steps, str):
        with suppress(ValueError):
            steps = json.loads(steps)
    for name, value in (steps if isinstance(steps, dict) else {"augmentation": steps}).items():
        if value:
            facts.append(
                f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            )
    return [_text(fact) for fact in facts]


def _number(row: Mapping[str, Any], name: str) -> float | None:
    """A number of a row; None for null, and for what another tool wrote in its place."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _text(value: Any) -> str:
    text = visible_text(str(value or ""))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
