"""Whisper's English text normaliser and spelling table, loaded from openai-whisper without importing `whisper`.

`import whisper` imports torch and numba, which takes seconds and fails if one of them is broken. The normalisers need
neither, so that scores of finished runs can be recomputed without them.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import package

DISTRIBUTION = "openai-whisper"
_NAME = "rba_bench_whisper_normalizers"  # in sys.modules; not `whisper`, which may be imported too


@lru_cache(maxsize=1)
def english_normalizer() -> Callable[[str], str]:
    """Whisper's `EnglishTextNormalizer`: numbers, contractions, spelling.

    Raises:
        MissingPrerequisite: openai-whisper is not installed.
    """
    folder = _normalizers_folder()
    spec = spec_from_file_location(_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = module_from_spec(spec)
    sys.modules[_NAME] = module  # needed by the module's relative imports
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_NAME]
        raise
    normalizer: Callable[[str], str] = module.EnglishTextNormalizer()
    return normalizer


@lru_cache(maxsize=1)
def american_spelling() -> dict[str, str]:
    """British to American spellings, as Whisper's normaliser lists them.

    Raises:
        MissingPrerequisite: openai-whisper is not installed.
    """
    table: dict[str, str] = json.loads((_normalizers_folder() / "english.json").read_text(encoding="utf-8"))
    return table


def _normalizers_folder() -> Path:
    with suppress(PackageNotFoundError):
        folder = Path(str(distribution(DISTRIBUTION).locate_file("whisper/normalizers")))
        if (folder / "__init__.py").is_file() and (folder / "english.json").is_file():
            return folder
    raise MissingPrerequisite(
        f"English text is normalised by {DISTRIBUTION}, which is not installed: {package(DISTRIBUTION)}"
    )
