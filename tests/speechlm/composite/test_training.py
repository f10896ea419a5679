"""Gradients, LoRA and checkpointing, without any trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor

DECODER_LORA = r".*language_model.*\.(q_proj|v_proj|down_proj)"


@pytest.fixture
def example(processor: CompositeProcessor, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """A padded training batch: labels on the responses."""
    answers = ["paris", "the lake", "a river", "yes", "write a letter"]
    batch = processor([processor.render("say :", answer) for answer in answers], clips, padding_side="right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for row, answer in enumerate(answers):
        prompt = processor(processor.render("say :"), clips[row])["input_ids"].shape[1]
        labels[row, :prompt] = -100
        kept = labels[row][labels[row] != -100]
        assert processor.tokenizer.decode(kept) == f"{answer}<|end|>"
    return {**batch, "labels": labels}


def gradients(model: torch.nn.Module, example: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**example).loss.backward()
    return {
        name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None
    }


def test_every_part_learns(
    model: CompositeForConditionalGeneration, example: dict[str, torch.Tensor]
) -> None:
    grads = gradients(model.train(), example)
    assert grads.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    # a key bias moves all scores of a query alike, so its gradient is nothing but rounding; Whisper has none
    assert all(grad.abs().max() > 1e-8 for grad in grads.values())


def test_projector_and_decoder_learn_from_cached_states(
    model: CompositeForConditionalGeneration, example: dict[str, torch.Tensor]
) -> None:
    model.model.audio_tower.requires_grad_(False)
    expected = gradients(model.train(), example)
    features, lengths = example.pop("input_features"), example.pop("feature_lengths")
    states, state_lengths = model.encode_audio(features, lengths)
    assert not states.requires_grad
    cached = gradients(model, {**example, "audio_states": states, "audio_lengths": state_lengths})
    assert cached.keys() == expected.keys()
    assert "model.multi_modal_projector.linear_1.weight" in cached
    assert all(torch.equal(cached[name], expected[name]) for name in cached)


def test_training_fits_a_batch(
    model: CompositeForConditionalGeneration, example: dict[str, torch.Tensor], processor: CompositeProcessor
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model.train()(**example).loss.item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**example).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 4


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(
    model: CompositeForConditionalGeneration, example: dict[str, torch.Tensor], reentrant: bool
) -> None:
    expected = gradients(model.train(), example)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    assert (
        model.model.audio_tower.gradient_checkpointing and model.model.language_model.gradient_checkpointing
    )
    actual = gradients(model, example)
    assert actual.keys() == expected.keys()
    for name, grad in actual.items():
        torch.testing.assert_close(grad, expected[name], atol=1e-6, rtol=1e-5)


def with_lora(model: CompositeForConditionalGeneration, **options: Any) -> PeftModel:
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=DECODER_LORA, **options)
    return get_peft_model(model, config)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_on_the_decoder(
    tmp_path: Path,
    model: CompositeForConditionalGeneration,
    example: dict[str, torch.Tensor],
    tiny_composite_dir: Path,
    checkpointing: bool,
) -> None:
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(0)
    tuned = with_lora(model, modules_to_save=["multi_modal_projector"])
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # LoRA's B starts at zero, so A has no gradient on the first step
        grads = gradients(tuned.train(), example)
        optimizer.step()
    lora = {name for name in grads if "lora_" in name}
    assert len(lora) == 2 * 2 * 3 and all("language_model" in name for name in lora)
    rest = grads.keys() - lora
    assert len(rest) == 6 and all("multi_modal_projector" in name for name in rest)
    assert all(grad.abs().max() > 0 for grad in grads.values())

    tuned.eval()
    example.pop("labels")
    logits = tuned(**example).logits
    answer = tuned.generate(**example, max_new_tokens=4, do_sample=False)
    tuned.save_pretrained(tmp_path / "adapter")
    base = CompositeForConditionalGeneration.from_pretrained(tiny_composite_dir)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.equal(loaded(**example).logits, logits)
    assert torch.equal(loaded.generate(**example, max_new_tokens=4, do_sample=False), answer)

    merged = loaded.merge_and_unload()
    assert isinstance(merged, CompositeForConditionalGeneration)
    merged.save_pretrained(tmp_path / "merged")
    final = CompositeForConditionalGeneration.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(final(**example).logits, logits, atol=1e-4, rtol=0)
