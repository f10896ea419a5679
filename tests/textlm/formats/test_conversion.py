"""A conversion is made once, whole or not at all, and by one process at a time."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_file
from rba_bench.textlm.formats.conversion import converted_folder, read_source, tensors_sha256
from tests.textlm.formats.gguf_files import tiny_llm, write_gguf

# A process that begins a conversion and stops in the middle of it
HANG = """
import sys, time
from pathlib import Path
from rba_bench.textlm.formats import conversion

def write(source, out):
    (out / "model.safetensors").write_bytes(b"half of the weights")
    print("there", flush=True)
    time.sleep(60)

conversion._write = write
conversion.converted_folder(Path(sys.argv[1]))
"""


def test_a_second_use_converts_nothing(
    llama_file: Path, llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (llama_folder / "model.safetensors").stat().st_mtime_ns
    assert converted_folder(llama_file) == llama_folder and capsys.readouterr().err == ""
    assert (llama_folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_folder_says_what_it_was_made_of(llama_file: Path, llama_folder: Path, tmp_path: Path) -> None:
    source = read_json(llama_folder / "source.json")
    assert source["sha256"] == sha256_file(llama_file) and source["file"] == "tiny-llama.gguf"
    assert source["tensors_sha256"] == tensors_sha256(llama_folder)
    assert set(source["versions"]) == {"rba-bench", "transformers", "torch", "gguf"}
    assert str(llama_file.parent) not in (llama_folder / "source.json").read_text()
    elsewhere = tmp_path / "copy"
    shutil.copytree(llama_folder, elsewhere)
    assert read_source(elsewhere) is None, "a folder that anybody may have changed"


def test_the_same_bytes_elsewhere_are_the_same_model(
    llama_file: Path, llama_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(llama_file, tmp_path / "other-name.gguf")
    assert converted_folder(tmp_path / "other-name.gguf") == llama_folder


def test_other_bytes_are_another_model(llama_folder: Path, tmp_path: Path, tokenizer: Any) -> None:
    model = tiny_llm("llama", tokenizer)
    model.model.norm.weight.data *= 2
    file = write_gguf(tmp_path / "tiny-llama.gguf", model, tokenizer)
    other = converted_folder(file)
    assert other != llama_folder and tensors_sha256(other) != tensors_sha256(llama_folder)


def test_what_a_killed_conversion_leaves_is_made_again_by_one_that_waited(
    llama_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    killed = subprocess.Popen(
        [sys.executable, "-c", HANG, str(llama_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None and killed.stdout.readline() == "there\n"
    [remains] = [folder for folder in (tmp_path / "converted").iterdir() if folder.is_dir()]
    assert (remains / "model.safetensors").is_file() and remains.name.endswith(".tmp")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(converted_folder, llama_file, "text LLM")
        time.sleep(0.3)
        assert not waiting.done()
        killed.kill()
        killed.communicate()
        folder = waiting.result(timeout=120)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tiny-llama.gguf: waiting for another process that converts it"
    assert second.startswith("converting the text LLM tiny-llama.gguf (GGUF")
    assert (folder / "source.json").is_file() and (folder / "config.json").is_file()
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_a_file_of_no_known_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match="is no GGUF file, no Whisper folder of CTranslate2"):
        converted_folder(tmp_path / "weights.onnx")
