"""What every call has in common: a silent stdout, progress on stderr, errors that name the fix, settings as texts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rba_bench.errors import RbaError
from rba_bench.faults import explain_fault
from rba_bench.progress import silenced, stdout_reserved

Settings = Mapping[str, Any] | Sequence[str]


@contextmanager
def called(progress: bool) -> Iterator[None]:
    """Surround a call: nothing comes on stdout, and with `progress` off no progress on stderr.

    Raises:
        RbaError: instead of errors of the system or of SQLite that tell of a full disk, a locked file and the like.
    """
    with stdout_reserved(), nullcontext() if progress else _quiet():
        try:
            yield
        except RbaError:
            raise
        except Exception as error:
            told = explain_fault(error)
            if told is None:
                raise  # a bug stays what it is
            raise told from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No lines and bars of ours, and no bars of the Hub's client for what it loads and uploads."""
    from huggingface_hub import utils

    shown = not utils.are_progress_bars_disabled()
    if shown:
        utils.disable_progress_bars()
    try:
        with silenced():
            yield
    finally:
        if shown:
            utils.enable_progress_bars()


def assignments(settings: Settings | None, **named: Any) -> list[str]:
    """Settings as the `key=value` texts that recipes are changed by; `named` ones that are None are left out.

    Args:
        settings: Keys (dots lead into nested ones) and values, or such texts.
        **named: More of them.
    """
    if settings is None:
        texts = []
    elif isinstance(settings, Mapping):
        texts = [f"{key}={_value(value)}" for key, value in settings.items()]
    else:
        texts = [settings] if isinstance(settings, str) else list(settings)
    return texts + [f"{key}={_value(value)}" for key, value in named.items() if value is not None]


def _value(value: Any) -> str:
    """JSON, which is YAML too."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"a setting cannot be of type {type(value).__name__}: give text, numbers, lists or mappings"
    )


def pushed(folder: Path, repo: str, public: bool, progress: bool) -> str:
    """Publish a finished checkpoint or alignment set; returns the address of the upload."""
    with called(progress):
        from rba_bench import hub

        return hub.push(folder, hub.reserve(repo, hub.kind_of(folder, verify=False), public))


def path_of(value: Any) -> Path | None:
    """A path from what has one; None stays None."""
    return None if value is None else Path(value)
