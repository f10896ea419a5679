"""The base SpeechLM: encoder, projector and a small LM taught on clean speech in four voices."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from rba_bench.micro import world
from rba_bench.micro.build import speech
from rba_bench.micro.build.encoder import MEL_STRIDE
from rba_bench.micro.build.textlms import Encoder, bucketed, optimise, pad
from rba_bench.seeding import stable_seed

STACK = 2  # encoder states in one audio token: 80 ms
IGNORED = -100


def assemble(encoder: Any, student: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Composite and processor from the parts, with a new projector."""
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    model = CompositeForConditionalGeneration.from_parts(
        encoder, student, audio, STACK, projector_hidden_size=256
    )
    processor = CompositeProcessor(
        LogMelFeatureExtractor(80, max_seconds=15.0), tokenizer, stack_factor=STACK, mel_stride=MEL_STRIDE
    )
    return model, processor


class States:
    """Encoder states of utterances, computed once (the encoder is frozen), float16 in memory."""

    def __init__(self, model: Any, data: Sequence[speech.Utterance]) -> None:
        self.states: list[torch.Tensor] = []
        order = sorted(range(len(data)), key=lambda i: data[i].mel.shape[1])
        found: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                states, lengths = model.encode_audio(*speech.batch([data[i].mel for i in rows]))
                found.update(
                    {i: s[:n].half() for i, s, n in zip(rows, states, lengths.tolist(), strict=True)}
                )
        self.states = [found[i] for i in range(len(data))]

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero-padded states [B, T', D] float32 and their lengths [B]."""
        chosen = [self.states[i].float() for i in rows]
        lengths = torch.tensor([len(s) for s in chosen])
        return torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True), lengths


def _prompt(encode: Encoder, item: world.Item, n_states: int) -> list[int]:
    audio = [encode.audio] * -(-n_states // STACK)
    return [encode.bos, encode.user, *encode.words(item.prompt), *audio, encode.end, encode.assistant]


def tune(
    model: Any,
    tokenizer: Any,
    data: Sequence[speech.Utterance],
    states: States,
    steps: int,
    seed: int,
    peak: float = 2e-3,
) -> None:
    """Cross entropy on sampled teacher-style answers; projector and LM learn, the encoder stays frozen.

    Each utterance keeps a fixed set of four answer wordings, as a data set would.
    """
    model.requires_grad_(True)
    model.model.audio_tower.requires_grad_(False)
    encode, rng = Encoder(tokenizer), random.Random(stable_seed("tune", seed))
    answers = [[world.sample_answer(rng, u.item) for _ in range(4)] for u in data]

    def stream() -> Any:
        while True:
            yield rng.randrange(len(data))

    batches = bucketed(stream(), 32, key=lambda i: len(states.states[i]))

    def loss_of(_: int) -> torch.Tensor:
        rows = next(batches)
        prompts = [_prompt(encode, data[i].item, len(states.states[i])) for i in rows]
        targets = [[*encode.words(rng.choice(answers[i])), encode.end] for i in rows]
        ids = pad([p + t for p, t in zip(prompts, targets, strict=True)], tokenizer.pad_token_id)
        labels = pad([[IGNORED] * len(p) + t for p, t in zip(prompts, targets, strict=True)], IGNORED)
        features, lengths = states.batch(rows)
        attention = (ids != tokenizer.pad_token_id).long()
        return model(
            input_ids=ids,
            attention_mask=attention,
            audio_states=features,
            audio_lengths=lengths,
            labels=labels,
        ).loss

    optimise(model, steps, peak, "base SpeechLM", loss_of)
    model.eval()


@torch.no_grad()
def answer(
    model: Any, tokenizer: Any, data: Sequence[speech.Utterance], states: States, sample: bool = False
) -> list[str]:
    """Greedy (or T = 1) answers to the utterances."""
    encode = Encoder(tokenizer)
    out = [""] * len(data)
    order = sorted(range(len(data)), key=lambda i: len(states.states[i]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        prompts = [_prompt(encode, data[i].item, len(states.states[i])) for i in rows]
        width = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
        features, lengths = states.batch(rows)
        done = model.generate(
            input_ids=ids,
            attention_mask=(ids != tokenizer.pad_token_id).long(),
            audio_states=features,
            audio_lengths=lengths,
            max_new_tokens=32,
            do_sample=sample,
            pad_token_id=tokenizer.pad_token_id,
        )
        for row, text in zip(
            rows, tokenizer.batch_decode(done[:, width:], skip_special_tokens=True), strict=True
        ):
            out[row] = text
    return out


def validity(data: Sequence[speech.Utterance], answers: Sequence[str]) -> dict[str, float]:
    """Percentage of valid answers by kind and in all."""
    valid = [(u.item.kind, world.grade(u.item, a).valid) for u, a in zip(data, answers, strict=True)]
    kinds = {kind: [ok for k, ok in valid if k == kind] for kind in world.KINDS}
    return {
        "all": 100 * sum(ok for _, ok in valid) / len(valid),
        **{k: 100 * sum(v) / max(1, len(v)) for k, v in kinds.items()},
    }
