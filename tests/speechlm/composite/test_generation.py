from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor

PROMPTS = ("", "translate german to english :", "say :", "", "give me a plan :")
GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture
def texts(processor: CompositeProcessor) -> list[str]:
    return [processor.render(prompt) for prompt in PROMPTS]


def new_tokens(
    model: CompositeForConditionalGeneration, inputs: Any, trim_end: bool = False, **options: Any
) -> list[list[int]]:
    """What is generated behind the prompt; with `trim_end` up to the first end token only."""
    rows = model.generate(**inputs, **{**GREEDY, **options})[:, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    return [row[: row.index(end)] if trim_end and end in row else row for row in rows]


@pytest.mark.parametrize("use_cache", [True, False])
def test_batched_answers_are_those_of_single_clips(
    model_of_attention: CompositeForConditionalGeneration,
    processor: CompositeProcessor,
    clips: list[np.ndarray],
    texts: list[str],
    use_cache: bool,
) -> None:
    model = model_of_attention
    together = new_tokens(
        model, processor(texts, clips, padding_side="left"), trim_end=True, use_cache=use_cache
    )
    assert together == [
        new_tokens(model, processor(text, clip), trim_end=True)[0]
        for text, clip in zip(texts, clips, strict=True)
    ]
    assert len({tuple(row) for row in together}) == len(clips)  # the answers depend on what is heard


def test_features_states_and_embeddings_give_the_same_answers(
    model: CompositeForConditionalGeneration,
    processor: CompositeProcessor,
    clips: list[np.ndarray],
    texts: list[str],
) -> None:
    batch = processor(texts, clips, padding_side="left")
    prompt = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = new_tokens(model, batch)
    states, lengths = model.encode_audio(batch["input_features"], batch["feature_lengths"])
    assert new_tokens(model, {**prompt, "audio_states": states, "audio_lengths": lengths}) == expected
    embeds = model.merge(batch["input_ids"], *model.project(states, lengths))
    assert new_tokens(model, {**prompt, "inputs_embeds": embeds}) == expected
    for use_cache in (True, False):
        alone = {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"], "use_cache": use_cache}
        assert model.generate(**alone, **GREEDY).tolist() == expected
    assert (
        model.generate(batch["input_ids"], **{k: v for k, v in batch.items() if k != "input_ids"}, **GREEDY)[
            :, batch["input_ids"].shape[1] :
        ].tolist()
        == expected
    )


def test_answers_are_greedy_choices_of_the_forward_pass(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    inputs = processor(processor.render("say :"), clips[0])
    answer = new_tokens(model, inputs)[0]
    ids = inputs["input_ids"]
    audio = {key: inputs[key] for key in ("input_features", "feature_lengths")}
    for token in answer:
        logits = model(ids, **audio).logits[0, -1]
        logits[model.config.audio_token_id] = -torch.inf
        assert logits.argmax().item() == token
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_rows_with_several_clips_survive_repetition(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    texts = ["a <|audio|> b <|audio|>", "<|audio|> c <|audio|>"]
    batch = processor(texts, clips[:4], padding_side="left")
    once = new_tokens(model, batch)
    beams = new_tokens(model, batch, num_beams=2, num_return_sequences=2, length_penalty=0.0)
    assert len(beams) == 4
    for row, text in enumerate(texts):
        alone = processor(text, clips[2 * row : 2 * row + 2])
        assert new_tokens(model, alone)[0] == once[row]
        expected = new_tokens(model, alone, num_beams=2, num_return_sequences=2, length_penalty=0.0)
        assert beams[2 * row : 2 * row + 2] == expected


def test_text_alone_generates_as_the_language_model(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor
) -> None:
    batch = processor(["hello there", "what is the capital of france"], padding_side="left")
    assert len(new_tokens(model, batch)[0]) == 12


def test_the_placeholder_is_never_generated(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    audio = model.config.audio_token_id
    head = model.lm_head
    model.lm_head = torch.nn.Linear(
        head.in_features, head.out_features
    )  # untied, with a bias towards the placeholder
    model.lm_head.bias.data[audio] = 100.0
    inputs = processor(processor.render(""), clips[0])
    assert model(**inputs).logits[0, -1].argmax().item() == audio
    other = 9
    for options in ({}, {"do_sample": True}, {"suppress_tokens": [other]}):
        row = new_tokens(model, inputs, **options)[0]
        assert audio not in row
    assert other not in row
