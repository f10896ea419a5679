"""GGUF files of llama.cpp, read by transformers and written as a checkpoint.

transformers dequantises the weights and builds the tokenizer from the file's metadata. It leaves out how many
tokenizers divide text before merging (`tokenizer.ggml.pre`). What it leaves out is added here; a rule that is known to
neither is refused, because text would be divided in a way that the model never saw. The rules are those of
`llama-vocab.cpp` of llama.cpp.
"""

import io
import struct
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import link_or_copy

# What reading a damaged or foreign file raises in transformers and gguf
DAMAGED = (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError, OverflowError, struct.error)
DIGITS_ALONE = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
AS_GPT2 = frozenset(
    {"default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"}
)
FLOATS = {
    30: torch.bfloat16,
    1: torch.float16,
    0: torch.float32,
}  # number types of GGUF that are not quantised


def convert_gguf(file: Path, out: Path) -> None:
    """Write a text LLM of a GGUF file as a checkpoint of transformers.

    Weights keep their number type; quantised ones become float32, which holds them exactly.

    Args:
        file: the file.
        out: a folder that exists.

    Raises:
        UserError: it is damaged, a part of a model, or of an architecture that transformers does not read.
        MissingPrerequisite: a package that transformers reads it with is not installed.
    """
    _need_packages()
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # its bar runs once for each tensor
        link_or_copy(file.resolve(), Path(folder) / "model.gguf")  # nothing else of the file's folder is read
        try:
            metadata = _metadata(Path(folder) / "model.gguf")
            _refuse_parts(file, metadata)
            model = _load_model(Path(folder), metadata)
            tokenizer = _load_tokenizer(Path(folder), metadata)
        except DAMAGED as error:
            raise UserError(f"{file} cannot be read as a text LLM in GGUF: {first_line(error)}") from error
    model.generation_config._from_model_config = False  # it is the file's own
    model.generation_config.eos_token_id = _ends(metadata, model.generation_config.eos_token_id)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _need_packages() -> None:
    from importlib.util import find_spec

    from rba_bench.installing import package

    for name in ("gguf", "accelerate"):
        if find_spec(name) is None:
            raise MissingPrerequisite(f"GGUF files need the package {name}: `{package(name)}`")


def _metadata(file: Path) -> dict[str, Any]:
    """Metadata of a file; of each list of texts its length alone."""
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(file))
    return dict(metadata)


def _refuse_parts(file: Path, metadata: dict[str, Any]) -> None:
    parts = int(metadata.get("split.count", 1))
    if parts > 1:
        raise UserError(
            f"{file} is one of {parts} parts of a model: join them with `llama-gguf-split --merge` and give the result"
        )
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise UserError(f"{file} holds a GGUF of type {kind!r}; a text LLM is needed")
    rule = metadata.get("tokenizer.ggml.pre", "default")
    if (
        metadata.get("tokenizer.ggml.model") == "gpt2"
        and rule not in DIGITS_ALONE | AS_GPT2 | _rules_of_transformers()
    ):
        raise UserError(
            f"{file}: its tokenizer divides text by the rule {rule!r}, which is not known here: give the safetensors "
            "checkpoint of this model"
        )


def _rules_of_transformers() -> frozenset[str]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return frozenset(GGUF_PRE_TOKENIZER_SPLITS)


def _load_model(folder: Path, metadata: dict[str, Any]) -> Any:
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM

    types = {int(tensor.tensor_type) for tensor in GGUFReader(folder / "model.gguf").tensors}
    dtype = torch.float32
    if types <= FLOATS.keys():  # norms are float32 in all files
        dtype = next(FLOATS[number] for number in FLOATS if number in types)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=dtype, output_loading_info=True
    )
    missing = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]}))
    if missing:
        raise ValueError(f"it lacks {len(missing)} weights (first: {missing[0]})")
    # `save_pretrained` refuses quantised models, which this one is no longer
    model.hf_quantizer = None
    del model.config.quantization_config
    return model


def _load_tokenizer(folder: Path, metadata: dict[str, Any]) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    if metadata.get("tokenizer.ggml.pre") in DIGITS_ALONE and metadata.get("tokenizer.ggml.model") == "gpt2":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def _ends(metadata: dict[str, Any], end: Any) -> Any:
    """The tokens that end an answer: the file may name the end of a turn beside the end of a text."""
    ends = end if isinstance(end, list) else [] if end is None else [end]
    for key in ("eot_token_id", "eom_token_id"):
        if (token := metadata.get(f"tokenizer.ggml.{key}")) is not None and token not in ends:
            ends = [*ends, int(token)]
    return ends if len(ends) > 1 else end
