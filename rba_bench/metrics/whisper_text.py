"""Whisper's text normaliser and its table of spellings, read from openai-whisper's files without importing it.

`import whisper` brings torch and numba, which takes seconds and fails where one of them is broken; scores of finished
runs can be computed again without either. The normalisers themselves are plain Python.
"""

import json
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import package

DISTRIBUTION = "openai-whisper"
_NAME = "rba_bench_whisper_normalizers"  # the name in sys.modules, which is not that of the whole package


@lru_cache(maxsize=1)
def english_normalizer() -> Callable[[str], str]:
    """Whisper's `EnglishTextNormalizer`: numbers, contractions, spelling.

    Raises:
        MissingPrerequisite: openai-whisper is not installed.
    """
    folder = _folder()
    spec = spec_from_file_location(_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise MissingPrerequisite(_missing())
    module = module_from_spec(spec)
    sys.modules[_NAME] = module  # before it runs, for its relative imports
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
    listed: dict[str, str] = json.loads((_folder() / "english.json").read_text(encoding="utf-8"))
    return listed


def _folder() -> Path:
    try:
        folder = Path(str(distribution(DISTRIBUTION).locate_file("whisper/normalizers")))
    except PackageNotFoundError as error:
        raise MissingPrerequisite(_missing()) from error
    if not (folder / "english.json").is_file():
        raise MissingPrerequisite(_missing())
    return folder


def _missing() -> str:
    return f"English text is normalised by {DISTRIBUTION}, which is not installed: {package(DISTRIBUTION)}"
