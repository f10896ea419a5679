"""GGUF files of llama.cpp: what transformers reads is the model that was written, with its tokenizer and template."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.formats.conversion import converted_folder, read_source
from rba_bench.textlm.text_model import Decoding, load_judge_model, load_textlm
from rba_bench.textlm.weights import local_folder
from tests.textlm.formats.gguf_files import tiny_llm, write_gguf

IDS = torch.arange(3, 40)[None]


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits.float()


def test_a_llama_is_the_model_that_was_written(llama: Any, llama_folder: Path) -> None:
    assert torch.allclose(logits(loaded(llama_folder)), logits(llama), atol=1e-5)
    config = loaded(llama_folder).config
    assert config.tie_word_embeddings and config.rope_parameters["rope_theta"] == 5000.0
    assert config.dtype == torch.float32 and not hasattr(config, "quantization_config")


def test_a_qwen2_keeps_its_biases_and_its_own_head(tmp_path: Path, own_cache: Path, tokenizer: Any) -> None:
    model = tiny_llm("qwen2", tokenizer)
    folder = converted_folder(write_gguf(tmp_path / "tiny-qwen2.gguf", model, tokenizer))
    assert torch.allclose(logits(loaded(folder)), logits(model), atol=1e-5)


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_1])
def test_quantised_weights_are_kept_exactly(
    tmp_path: Path, own_cache: Path, llama: Any, tokenizer: Any, kind: Type
) -> None:
    """In float32: bfloat16 changes answers, see the page on models."""
    folder = converted_folder(write_gguf(tmp_path / "q.gguf", llama, tokenizer, kind))
    name = "model.layers.1.mlp.down_proj.weight"
    values = llama.state_dict()[name].numpy()
    expected = gguf.dequantize(gguf.quantize(values, kind), kind)
    found = loaded(folder).state_dict()[name]
    assert found.dtype == torch.float32 and np.array_equal(found.numpy(), expected)
    assert not np.array_equal(expected, values)


@pytest.mark.parametrize(("kind", "dtype"), [(Type.F16, torch.float16), (Type.BF16, torch.bfloat16)])
def test_weights_that_are_not_quantised_keep_their_number_type(
    tmp_path: Path, own_cache: Path, llama: Any, tokenizer: Any, kind: Type, dtype: torch.dtype
) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        converted_folder(write_gguf(tmp_path / "half.gguf", llama, tokenizer, kind)), dtype="auto"
    )
    assert model.dtype == dtype
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], llama.state_dict()[name].to(dtype))


def test_the_tokenizer_divides_and_joins_as_the_original(llama_folder: Path, tokenizer: Any) -> None:
    made = AutoTokenizer.from_pretrained(llama_folder)
    for text in ("the capital of france is paris", "  two  spaces\n\nschläft 1999 !", "<|user|>hello<|end|>"):
        assert made(text)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert made.decode(made(text)["input_ids"]) == text
    assert made.chat_template == tokenizer.chat_template
    kept = ("bos_token_id", "eos_token_id", "pad_token_id")
    assert [getattr(made, name) for name in kept] == [getattr(tokenizer, name) for name in kept]
    settings = GenerationConfig.from_pretrained(llama_folder)
    assert [getattr(settings, name) for name in kept] == [getattr(tokenizer, name) for name in kept]


def test_a_rule_that_transformers_leaves_out_is_followed(
    tmp_path: Path, own_cache: Path, llama: Any, tokenizer: Any
) -> None:
    """SmolLM2 divides numbers into digits first, so that spaces before them stand alone."""
    made = AutoTokenizer.from_pretrained(
        converted_folder(write_gguf(tmp_path / "smol.gguf", llama, tokenizer, rule="smollm"))
    )
    divide = made.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    assert [piece for piece, _ in divide("in  2024")] == ["in", "ĠĠ", "2", "0", "2", "4"]


def test_the_end_of_a_turn_ends_answers_too(
    tmp_path: Path, own_cache: Path, llama: Any, tokenizer: Any
) -> None:
    turn = tokenizer.convert_tokens_to_ids("<|assistant|>")
    file = write_gguf(tmp_path / "eot.gguf", llama, tokenizer, tokenizer__ggml__eot_token_id=turn)
    assert GenerationConfig.from_pretrained(converted_folder(file)).eos_token_id == [
        tokenizer.eos_token_id,
        turn,
    ]


def test_a_file_is_a_text_llm_like_any_other(llama_file: Path, llama_folder: Path) -> None:
    by_file, by_folder = load_textlm(str(llama_file)), load_textlm(str(llama_folder))
    texts = ["give me a plan", "what is the largest river ?"]
    answers = [lm.chat(texts, Decoding(8), [0, 0]) for lm in (by_file, by_folder)]
    assert answers[0] == answers[1] and any(answer.text for answer in answers[0])
    identity = by_file.identity()
    assert identity["source"] == read_source(llama_folder) and identity["source"]["format"] == "GGUF"
    assert identity["weights_sha256"] == by_folder.identity()["weights_sha256"]
    judge = load_judge_model(str(llama_file)).identity()
    assert judge["weights_sha256"] == identity["weights_sha256"] and judge["path"] == str(llama_file)


def test_a_folder_with_one_file_is_that_file(tmp_path: Path, llama_file: Path, llama_folder: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(llama_file.read_bytes())
    (tmp_path / "mmproj-model.gguf").write_bytes(b"pictures")
    assert local_folder(tmp_path) == llama_folder
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 2 GGUF files: name the judge .*\(model.gguf, other.gguf\)"):
        local_folder(tmp_path, "judge")


def damaged(name: str, file: Path) -> bytes:
    data = bytearray(file.read_bytes())
    if name == "not gguf":
        return b"PK\3\4 something else"
    if name == "empty":
        return b""
    if name == "header":
        return bytes(data[:200])
    if name == "tensors":
        return bytes(data[:-4000])
    if name == "version":
        data[4] = 9
    if name == "endless string":
        data[24:32] = b"\xff" * 8
    return bytes(data)


@pytest.mark.parametrize("name", ["not gguf", "empty", "header", "tensors", "version", "endless string"])
def test_damaged_files_are_refused_in_one_line(
    tmp_path: Path, own_cache: Path, llama_file: Path, name: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damaged(name, llama_file))
    with pytest.raises(UserError, match=r"broken\.gguf cannot be read as a text LLM in GGUF") as caught:
        local_folder(broken)
    assert "\n" not in str(caught.value)
    assert not [folder for folder in (own_cache / "converted").glob(".*.tmp") if folder.is_dir()]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rule": "viking"}, "rule 'viking', which is not known here"),
        ({"split__count": 3}, "one of 3 parts of a model: join them"),
        ({"general__architecture": "rwkv6"}, "architecture rwkv6 is not supported"),
    ],
)
def test_what_cannot_be_converted_is_named(
    tmp_path: Path, own_cache: Path, llama: Any, tokenizer: Any, values: Any, reason: str
) -> None:
    architecture = values.pop("general__architecture", None)
    file = write_gguf(tmp_path / "odd.gguf", llama, tokenizer, **values)
    if architecture:
        file.write_bytes(
            file.read_bytes().replace(b"\x05" + bytes(7) + b"llama", b"\x05" + bytes(7) + b"rwkv6", 1)
        )
    with pytest.raises(UserError, match=reason) as caught:
        local_folder(file)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(
        MissingPrerequisite, match=r"no text LLM at models/x\.gguf.*OWNER/REPOSITORY:FILE\.gguf"
    ):
        local_folder("models/x.gguf", "text LLM")
