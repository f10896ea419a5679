"""Which decoders compute answers in a shared row exactly; the others must say so, as most err silently."""

from typing import Any

import pytest
import torch

from rba_bench.speechlm.audiolm.families.shared_rows import attends_by_document, continues_cache, shares_rows
from rba_bench.textlm.engine_support import has_window

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"vocab_size": 50, "max_position_embeddings": 64, "initializer_range": 0.3, **SIZES}


def decoder(name: str, **changes: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModel.from_config(config).eval()


@pytest.mark.parametrize(
    ("name", "options", "shares"),
    [
        ("Llama", TEXT, True),
        ("GPTNeoX", TEXT, True),
        ("GPT2", {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, True),
        ("Mistral", {**TEXT, "num_key_value_heads": 2, "sliding_window": None}, True),
        ("Mistral", {**TEXT, "num_key_value_heads": 2, "sliding_window": 64}, True),  # wider than the context
        ("Mistral", {**TEXT, "num_key_value_heads": 2, "sliding_window": 32}, False),
        ("Bloom", {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4}, False),  # ALiBi
        ("Mamba", {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, False),
    ],
)
def test_decoders(name: str, options: dict[str, Any], shares: bool) -> None:
    model = decoder(name, **options).train()
    assert shares_rows(model) is shares
    assert model.training


@pytest.mark.parametrize("asked", [shares_rows, attends_by_document, continues_cache])
def test_out_of_memory_says_nothing_of_a_decoder(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder("Llama", **TEXT).train()

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", full)
        with pytest.raises(torch.OutOfMemoryError):
            asked(model)
    assert model.training and model.config._attn_implementation == "sdpa"
    assert asked(model)  # nothing was remembered


def test_flash_attention_takes_no_masks_of_ours() -> None:
    model = decoder("Llama", **TEXT)
    model.config._attn_implementation = "flash_attention_2"
    assert not shares_rows(model)


def test_windows_that_no_layer_uses_do_not_count() -> None:
    from transformers import Gemma2Config, Qwen2Config

    assert not has_window(Qwen2Config(sliding_window=8, use_sliding_window=False))
    assert has_window(Gemma2Config(sliding_window=8, max_position_embeddings=64))
    assert not has_window(Gemma2Config(sliding_window=64, max_position_embeddings=64))
