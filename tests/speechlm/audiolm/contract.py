"""What every adapter is held to; test modules run these over their own tiny checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.sampling import decode_tokens
from rba_bench.textlm.text_model import Decoding

GREEDY = Decoding(max_new_tokens=8)
PROMPTS = ("", "what is said here ?")


def stock_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """One turn as the processor itself prepares it, 30 s padding and all."""
    turn = [
        {"type": "audio", "audio": audio} if part["type"] == "audio" else part
        for part in family.user_turn(prompt)
    ]
    inputs = family.processor.apply_chat_template(
        [{"role": "user", "content": turn}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    return dict(inputs)


def voxtral_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """What `VoxtralProcessor.apply_chat_template` makes, for a tokenizer that is not that of mistral-common."""
    extractor = family.processor.feature_extractor
    options = {
        name: value for name, value in family.processor.audio_kwargs.items() if name != "max_source_positions"
    }
    features = family.processor._retrieve_input_features([audio], extractor.nb_max_frames, **options)
    text = family.render(prompt).replace("[AUDIO]", "[AUDIO]" * 375 * len(features))
    return {**family.tokenizer(text, return_tensors="pt"), "input_features": features}


def stock_answer(family: AudioFamily, inputs: dict[str, Any], decoding: Decoding = GREEDY) -> list[int]:
    """New tokens of the model's own greedy `generate` on a batch of one."""
    output = family.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=family.stops,
        pad_token_id=family.pad_id,
    )
    new = output[0, inputs["input_ids"].shape[1] :].tolist()
    return new[: next((i for i, token in enumerate(new) if token in family.stops), len(new))]


def requests_of(clips: Sequence[np.ndarray], prompts: Sequence[str] = PROMPTS) -> list[SpeechRequest]:
    return [SpeechRequest(clip, prompt=prompt) for clip in clips for prompt in prompts]


def answers_are_stock(folder: Path, clips: Sequence[np.ndarray], inputs_of: Any = stock_inputs) -> None:
    """Batched answers at true length = the model's own, one at a time at 30 s; and they hear the audio."""
    lm = TransformersSpeechLM.from_pretrained(folder, batch_size=3)
    requests = requests_of(clips)
    answers = lm.generate(requests, GREEDY)
    for request, answer in zip(requests, answers, strict=True):
        tokens = stock_answer(lm.family, inputs_of(lm.family, request.audio, request.prompt))
        assert answer.text == decode_tokens(lm.family.tokenizer, tokens)
        assert answer.n_tokens == len(tokens)
    for prompt in PROMPTS:  # the audio decides, not the text alone
        heard = {
            answer.text for request, answer in zip(requests, answers, strict=True) if request.prompt == prompt
        }
        assert len(heard) > 1


def batch_mates_do_not_matter(folder: Path, clips: Sequence[np.ndarray]) -> None:
    lm = TransformersSpeechLM.from_pretrained(folder, batch_size=8)
    requests = requests_of(clips[:3])
    together = lm.generate(requests, GREEDY)
    assert together == [lm.generate([request], GREEDY)[0] for request in requests]


def embeds_and_logits_are_stock(
    folder: Path, audio: np.ndarray, inputs_of: Any = stock_inputs, true_length: bool = True
) -> None:
    """Merged embeddings and decoder-direct logits = those inside the model's own forward."""
    lm = TransformersSpeechLM.from_pretrained(folder, true_length=true_length)
    family = lm.family
    inputs = inputs_of(family, audio, PROMPTS[1])
    seen: list[torch.Tensor] = []
    hook = family.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        expected = family.model(**inputs).logits
        hook.remove()
        states, lengths = family.encode_audio(family.features([audio]))
        embeds, n_tokens = family.project(states, lengths)
        ids, mask = family.collate([family.expand(family.prompt_ids(PROMPTS[1]), int(n_tokens[0]))])
        merged = family.merge(ids, embeds, n_tokens)
        logits = family.head(family.decode(merged, mask))
    assert int(n_tokens[0]) == family.n_tokens(len(audio))
    assert torch.equal(ids, inputs["input_ids"])
    assert float((merged - seen[0]).abs().max()) < 1e-5
    assert float((logits - expected).abs().max()) < 2e-4
    assert float(expected.std()) > 0.1


def padding_is_recorded_and_harmless(folder: Path, clips: Sequence[np.ndarray]) -> None:
    short = TransformersSpeechLM.from_pretrained(folder)
    padded = TransformersSpeechLM.from_pretrained(folder, true_length=False)
    assert (short.identity()["padding"], padded.identity()["padding"]) == ("true-length", "30s")
    requests = requests_of(clips[:2])
    assert short.generate(requests, GREEDY) == padded.generate(requests, GREEDY)
    features = short.family.features(clips)
    with torch.no_grad():
        ours, lengths = short.family.encode_audio(features)
        theirs, padded_lengths = padded.family.encode_audio(padded.family.features(clips))
    assert features["input_features"].numel() < 0.2 * padded.family.features(clips)["input_features"].numel()
    assert torch.equal(lengths, padded_lengths)
    for row, other, length in zip(ours, theirs, lengths.tolist(), strict=True):
        assert float((row[:length] - other[:length]).abs().max()) < 1e-5


def cached_clips_are_not_encoded_again(folder: Path, clips: Sequence[np.ndarray]) -> None:
    lm = TransformersSpeechLM.from_pretrained(folder)
    requests = [
        SpeechRequest(clip, prompt=prompt, key=f"clip {i}")
        for i, clip in enumerate(clips[:2])
        for prompt in PROMPTS
    ]
    calls: list[int] = []
    encode = lm.family.encode_audio
    lm.family.encode_audio = lambda features: calls.append(1) or encode(features)  # type: ignore
    first = lm.generate(requests, GREEDY)
    made = len(calls)
    assert made >= 1
    assert lm.generate(requests, GREEDY) == first
    assert len(calls) == made
