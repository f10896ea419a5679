"""Conversion of weights to a folder of safetensors, made once and kept in the cache.

    MODEL.gguf, or a folder with one such file        a text LLM of llama.cpp
    folder with model.bin, or model.bin itself        Whisper of CTranslate2 (faster-whisper)
    MODEL.pt                                          Whisper of openai-whisper
    folder with connector.json                        a trained connector; the models that it joins are named in it

The folder lies in `cache_dir()/converted` and is named by a hash of the source's bytes and of the converter's version.
Everything after the conversion sees an ordinary checkpoint of transformers. `source.json` names what it was made of.
"""

import os
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench import __version__
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import cache_dir, exclusive, open_up, read_json, sha256_json, sha256_once, write_json
from rba_bench.machine import package_versions
from rba_bench.progress import say

CONVERTER = 1  # raise it when the same source gives another folder
SOURCE = "source.json"
BINARY = "model.bin"  # the weights in a folder of CTranslate2
CONNECTOR_WEIGHTS, CONNECTOR_FACTS = "connector.safetensors", "connector.json"
GGUF, CTRANSLATE2, OPENAI_WHISPER, CONNECTOR = "GGUF", "CTranslate2", "openai-whisper", "connector"
PACKAGES = {
    GGUF: ("transformers", "torch", "gguf"),
    CTRANSLATE2: ("transformers", "torch", "openai-whisper"),
    OPENAI_WHISPER: ("transformers", "torch", "openai-whisper"),
    CONNECTOR: ("transformers", "torch"),
}
_IN_SOURCE = (
    "format",
    "file",
    "sha256",
    "converter",
    "tensors_sha256",
)  # what records repeat of `source.json`


@dataclass(frozen=True)
class Source:
    """Weights in another format.

    Attributes:
        format: one of the keys of PACKAGES.
        weights: the file of the weights.
        beside: files of the same folder that are read with it (configuration, vocabulary).
    """

    format: str
    weights: Path
    beside: tuple[Path, ...] = ()


def find_source(path: Path, what: str = "model") -> Source | None:
    """What a file or folder holds in another format; None where it is no such file, or holds safetensors already.

    Raises:
        UserError: a folder holds several GGUF files, so one of them must be named.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return Source(GGUF, path)
        if path.suffix == ".pt":
            return Source(OPENAI_WHISPER, path)
        return _ctranslate2(path.parent) if path.name == BINARY else None
    if path.is_dir() and (path / CONNECTOR_FACTS).is_file():
        return Source(CONNECTOR, path / CONNECTOR_WEIGHTS, (path / CONNECTOR_FACTS,))
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    if (path / BINARY).is_file():
        return _ctranslate2(path)
    files = sorted(file for file in path.glob("*.gguf") if not file.name.startswith("mmproj"))  # of pictures
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path} holds {len(files)} GGUF files: name the {what} that you mean ({names})")
    return Source(GGUF, files[0]) if files else None


def _ctranslate2(folder: Path) -> Source:
    names = ("config.json", "vocabulary.json", "vocabulary.txt")
    return Source(CTRANSLATE2, folder / BINARY, tuple(folder / n for n in names if (folder / n).is_file()))


def converted_folder(path: Path, what: str = "model") -> Path:
    """The folder of safetensors that a file or folder of another format becomes; converted on first use.

    A second process waits for the first. A killed conversion leaves nothing that would be taken for a result.

    Args:
        path: see the module.
        what: how messages name the model.

    Raises:
        UserError: it is none of these formats, damaged, or a model that cannot be converted.
    """
    source = find_source(path, what)
    if source is None:
        raise UserError(
            f"{path} is no GGUF file, no Whisper folder of CTranslate2, no .pt file of openai-whisper, and no connector"
        )
    if not source.weights.is_file():
        raise MissingPrerequisite(f"{path} lacks {source.weights.name}: copy it again")
    hashes = {file.name: sha256_once(file) for file in _files(source)}
    folder = cache_dir() / "converted" / sha256_json([CONVERTER, source.format, sorted(hashes.values())])[:32]
    if not (folder / SOURCE).is_file():
        with exclusive(folder, f"{path.name}: waiting for another process that converts it"):
            if not (folder / SOURCE).is_file():
                _convert(source, hashes, folder, what)
    return folder


def read_source(folder: Path) -> dict[str, Any] | None:
    """What a converted folder was made from, as records name it; None for any other folder."""
    if not (folder / SOURCE).is_file() or folder.parent != cache_dir() / "converted":
        return None
    source = read_json(folder / SOURCE)
    return {key: source[key] for key in _IN_SOURCE}


def tensors_sha256(folder: Path) -> str:
    """SHA-256 over the tensors of all safetensors files of a folder, in the order of their names.

    Of each tensor the line `NAME DTYPE SHAPE` counts, such as `lm_head.weight torch.float16 (854, 192)`, and then its
    bytes. How the tensors are shared out over files does not count.

    Raises:
        MissingPrerequisite: There are no such files.
        UserError: One is damaged.
    """
    import hashlib

    import torch
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingPrerequisite(f"{folder} holds no *.safetensors")
    digest = hashlib.sha256()
    places: dict[str, Path] = {}
    try:
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                places |= dict.fromkeys(tensors.keys(), file)
        for name, file in sorted(places.items()):
            with safe_open(file, framework="pt") as tensors:
                tensor = tensors.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    except SafetensorError as error:
        raise UserError(f"{folder} holds a damaged safetensors file ({first_line(error)})") from error
    return digest.hexdigest()


def _files(source: Source) -> tuple[Path, ...]:
    return (source.weights, *source.beside)


def _convert(source: Source, hashes: dict[str, str], folder: Path, what: str) -> None:
    """Write the folder under another name, which is changed when all is there."""
    megabytes = source.weights.stat().st_size / 1e6
    if source.format == CONNECTOR:
        say(f"joining the models of the connector in {source.weights.parent} to a {what}, once")
    else:
        kind = f"{source.format}, {megabytes:,.0f} MB"
        say(f"converting the {what} {source.weights.name} ({kind}) to safetensors, once")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for remains in (
        folder,
        *folder.parent.glob(f".{folder.name}.*.tmp"),
    ):  # of killed processes: the lock is ours
        shutil.rmtree(remains, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(source, temporary)
        open_up(temporary)
        facts = {
            "schema_version": 1,
            "format": source.format,
            "file": source.weights.name,
            "sha256": hashes[source.weights.name],
            "beside": {file.name: hashes[file.name] for file in source.beside},
            "converter": CONVERTER,
            "versions": {"rba-bench": __version__, **package_versions(PACKAGES[source.format])},
            "tensors_sha256": tensors_sha256(temporary),
        }
        write_json(temporary / SOURCE, facts)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: Source, out: Path) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # one line was printed already
    if source.format == GGUF:
        from rba_bench.textlm.formats.gguf import convert_gguf

        convert_gguf(source.weights, out)
    elif source.format == CTRANSLATE2:
        from rba_bench.textlm.formats.ctranslate2 import convert_ctranslate2

        convert_ctranslate2(source.weights, out)
    elif source.format == CONNECTOR:
        # composites are above text models: by name, so that no module here imports one there
        import_module("rba_bench.speechlm.compose").compose_connector(source.weights.parent, out)
    else:
        from rba_bench.textlm.formats.openai_whisper import convert_openai_whisper

        convert_openai_whisper(source.weights, out)
