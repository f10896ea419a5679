from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer

from rba_bench.errors import UserError
from rba_bench.speechlm.composite import register
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor


def test_render_places_the_audio_behind_the_prompt(processor: CompositeProcessor) -> None:
    assert processor.render("") == "<|bos|><|user|><|audio|><|end|><|assistant|>"
    assert processor.render("say :") == "<|bos|><|user|>say : <|audio|><|end|><|assistant|>"
    assert processor.render("say :", "yes") == "<|bos|><|user|>say : <|audio|><|end|><|assistant|>yes<|end|>"


def test_render_is_what_a_template_with_audio_parts_gives(processor: CompositeProcessor) -> None:
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "say :"}, {"type": "audio"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": ""}]},
    ]
    expected = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert processor.render_messages(chat) == expected
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == expected


def test_a_template_that_knows_only_strings_will_do(tiny_tokenizer_dir: Path) -> None:
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    processor = CompositeProcessor(LogMelFeatureExtractor(), tokenizer, chat_template=template)
    assert processor.render("say :", "yes") == "[user]say : <|audio|>[assistant]yes"


def test_placeholders_are_counted_as_the_model_counts(
    processor: CompositeProcessor, model: CompositeForConditionalGeneration
) -> None:
    for samples in [0, 160, 480, 1_000, *range(8_000, 9_000, 79), 31_999]:
        batch = processor(processor.render(""), np.ones(samples, dtype=np.float32))
        states, lengths = model.encode_audio(batch["input_features"], batch["feature_lengths"])
        embeds, n_tokens = model.project(states, lengths)
        assert embeds.shape[1] == n_tokens.item() == processor.n_audio_tokens(samples)
        assert (batch["input_ids"] == processor.audio_token_id).sum().item() == n_tokens.item()


def test_text_beside_the_audio_is_kept(processor: CompositeProcessor, clips: list[np.ndarray]) -> None:
    texts = [processor.render("translate :"), processor.render("", "paris")]
    batch = processor(texts, clips[:2], padding_side="left")
    counts = [processor.n_audio_tokens(len(clip)) for clip in clips[:2]]
    assert counts == [5, 8]
    for text, count, ids, mask in zip(
        texts, counts, batch["input_ids"], batch["attention_mask"], strict=True
    ):
        assert processor.tokenizer.decode(ids[mask.bool()]) == text.replace("<|audio|>", "<|audio|>" * count)
    assert batch["attention_mask"][:, -1].all()
    right = processor(texts, clips[:2], padding_side="right")
    assert right["attention_mask"][:, 0].all()
    assert torch.equal(right["input_ids"].sort().values, batch["input_ids"].sort().values)


def test_text_without_audio(processor: CompositeProcessor) -> None:
    batch = processor(["hello", "what is the capital"])
    assert set(batch) == {"input_ids", "attention_mask"}


def test_clips_and_placeholders_must_match(processor: CompositeProcessor, clips: list[np.ndarray]) -> None:
    with pytest.raises(UserError, match="0 times <|audio|>, but 1 clips"):
        processor("hello", clips[0])
    with pytest.raises(UserError, match="2 times <|audio|>, but 1 clips"):
        processor([processor.render(""), processor.render("")], clips[:1])
    with pytest.raises(UserError, match="1 times <|audio|>, but 0 clips"):
        processor(processor.render(""))
    with pytest.raises(UserError, match="8000 Hz"):
        processor(processor.render(""), clips[0], sampling_rate=8_000)


@pytest.mark.parametrize("auto", [False, True])
def test_a_saved_processor_is_the_same(
    tmp_path: Path, tiny_tokenizer_dir: Path, clips: list[np.ndarray], auto: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    original = CompositeProcessor(LogMelFeatureExtractor(80, max_seconds=1.0), tokenizer, stack_factor=5)
    original.save_pretrained(tmp_path)
    register()
    loaded = (AutoProcessor if auto else CompositeProcessor).from_pretrained(tmp_path)
    assert isinstance(loaded, CompositeProcessor)
    text = original.render("say :")
    assert loaded.render("say :") == text
    assert loaded.n_audio_tokens(32_000) == original.n_audio_tokens(32_000) == 10
    before, after = (processor([text] * 5, clips) for processor in (original, loaded))
    assert set(before) == set(after) == set(original.model_input_names)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_tokenizer_without_the_placeholder_is_refused(tiny_tokenizer_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    with pytest.raises(UserError, match="does not know <speech>"):
        CompositeProcessor(LogMelFeatureExtractor(), tokenizer, audio_token="<speech>")
