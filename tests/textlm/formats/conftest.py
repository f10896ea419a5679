"""Each kind of file is written and converted once; tests read the folders."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rba_bench.textlm.formats.conversion import converted_folder
from tests.textlm.formats.gguf_files import tiny_llm, write_gguf


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(_cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for what these tests convert, the same for all of them."""
    monkeypatch.setenv("RBA_CACHE", str(_cache_folder))
    return _cache_folder


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(scope="session")
def llama(tokenizer: Any) -> Any:
    return tiny_llm("llama", tokenizer)


@pytest.fixture(scope="session")
def llama_file(tmp_path_factory: pytest.TempPathFactory, llama: Any, tokenizer: Any) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-llama.gguf", llama, tokenizer)


@pytest.fixture
def llama_folder(llama_file: Path, own_cache: Path) -> Path:
    return converted_folder(llama_file)
