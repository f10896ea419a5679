"""What all public functions share: a silent stdout, errors that name the fix, settings as `key=value` texts."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rba_bench.errors import RbaError
from rba_bench.faults import explain_fault
from rba_bench.progress import silenced, stdout_reserved

Settings = Mapping[str, Any] | Sequence[str]


@contextmanager
def call_context(progress: bool) -> Iterator[None]:
    """Surround a public function: it writes nothing to stdout, and without `progress` nothing to stderr.

    Raises:
        RbaError: instead of an error of the operating system or of SQLite, such as a full disk or a locked file.
    """
    with stdout_reserved(), nullcontext() if progress else _no_progress():
        try:
            yield
        except RbaError:
            raise
        except Exception as error:
            explanation = explain_fault(error)
            if explanation is None:
                raise  # a bug keeps its traceback
            raise explanation from error


@contextmanager
def _no_progress() -> Iterator[None]:
    """Silence our progress lines and bars, and the Hub client's bars of downloads and uploads."""
    from huggingface_hub import utils

    were_enabled = not utils.are_progress_bars_disabled()
    if were_enabled:
        utils.disable_progress_bars()
    try:
        with silenced():
            yield
    finally:
        if were_enabled:
            utils.enable_progress_bars()


def setting_texts(settings: Settings | None, **named: Any) -> list[str]:
    """Settings as the `key=value` texts that change a recipe, with the value in JSON, which is YAML too.

    Args:
        settings: Keys (dots lead into nested keys) and values, or such texts.
        **named: More keys and values; those that are None are left out.

    Raises:
        TypeError: a value that is neither text, number, list, mapping nor path.
    """
    values = dict(settings) if isinstance(settings, Mapping) else {}
    values.update({key: value for key, value in named.items() if value is not None})
    if isinstance(settings, str):
        settings = [settings]
    texts = [] if settings is None or isinstance(settings, Mapping) else list(settings)
    return texts + [
        f"{key}={json.dumps(value, ensure_ascii=False, default=_path_text)}" for key, value in values.items()
    ]


def _path_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    kind = type(value).__name__
    raise TypeError(f"a setting cannot be of type {kind}: give text, numbers, lists or mappings")


def optional_path(value: str | os.PathLike[str] | None) -> Path | None:
    """`value` as a path; None stays None."""
    return None if value is None else Path(value)
