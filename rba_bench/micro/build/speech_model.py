"""The base SpeechLM of the micro world: an encoder trained from nothing with CTC, a projector, and a small LM.

Speech for the build is made in memory: the world's instructions spoken by a bank of voices, as log-mel features. The
encoder is a small one of Whisper's type, trained on characters; the base learns to answer clean speech in four voices.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rba_bench import progress
from rba_bench.audio import espeak, perturbations
from rba_bench.audio.espeak import Voice
from rba_bench.micro import world
from rba_bench.micro.build.text_models import WordEncoder, bucketed, optimise, pad
from rba_bench.seeding import stable_seed

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyzßáâàäçèéêëíîïñóôöùúûü"
WIDTH, LAYERS, HEADS, FEED_FORWARD = 176, 4, 4, 704
MEL_STRIDE = 2  # states of 40 ms: half the cost of Whisper's 20 ms
MAX_POSITIONS = 400  # states: 16 s
STACK = 2  # encoder states in one audio token: 80 ms
IGNORED = -100


@dataclass(frozen=True)
class Conditions:
    """How utterances are made: who speaks, how loud the noise is, how often there is noise at all."""

    voices: tuple[Voice, ...]
    snr_db: tuple[float, float]
    noisy_share: float
    speed: tuple[float, float] = (0.92, 1.1)
    colours: tuple[str, ...] = ("white",)


@dataclass(frozen=True)
class SpokenItem:
    """An item as spoken: log-mel float16 [80, T]."""

    item: world.WorldItem
    voice: str
    mel: torch.Tensor


def log_mel(wave: np.ndarray) -> torch.Tensor:
    """openai-whisper log-mel, float16 [80, T]."""
    from whisper.audio import log_mel_spectrogram

    return log_mel_spectrogram(wave, n_mels=80).half()


def speak_items(
    items: Sequence[world.WorldItem], conditions: Conditions, seed: int, label: str
) -> list[SpokenItem]:
    """Speak each item once, in a voice, at a speed and with a noise (if any) drawn from the conditions."""
    pick = random.Random(stable_seed("voices", seed))
    spoken = []
    with progress.bar(label, len(items), unit="clips") as advance:
        for index, item in enumerate(items):
            voice = pick.choice(conditions.voices)
            rng = np.random.default_rng(stable_seed("noise", seed, index))
            wave = espeak.speak(item.instruction, item.source_lang, voice)
            wave = perturbations.change_speed(wave, float(np.round(rng.uniform(*conditions.speed), 2)))
            if rng.random() < conditions.noisy_share:
                snr_db = rng.uniform(*conditions.snr_db)
                wave = perturbations.add_noise(wave, snr_db, rng, str(rng.choice(conditions.colours)))
            spoken.append(SpokenItem(item, voice.name, log_mel(wave)))
            advance(1)
    return spoken


def draw_items(n: int, seed: int) -> list[world.WorldItem]:
    """`n` items of the training split."""
    rng = random.Random(stable_seed("items", seed))
    return [world.sample_item(rng) for _ in range(n)]


def pad_features(mels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-padded float32 features [B, 80, T] and their lengths [B]."""
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    features = torch.zeros(len(mels), mels[0].shape[0], int(lengths.max()))
    for row, mel in zip(features, mels, strict=True):
        row[:, : mel.shape[1]] = mel.float()
    return features, lengths


def mask_features(features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): one band of up to 15 mels and two spans of up to 15 frames set to the mean."""
    out = features.clone()
    fill = float(out.mean())
    for row in out:
        low = int(rng.integers(0, 70))
        row[low : low + int(rng.integers(1, 16))] = fill
        for _ in range(2):
            start = int(rng.integers(0, max(1, row.shape[1] - 15)))
            row[:, start : start + int(rng.integers(1, 16))] = fill
    return out


def whisper_config() -> Any:
    """A WhisperConfig whose encoder half is used."""
    from transformers import WhisperConfig

    return WhisperConfig(
        num_mel_bins=80,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=FEED_FORWARD,
        max_source_positions=MAX_POSITIONS,
        decoder_layers=1,
        decoder_attention_heads=HEADS,
        decoder_ffn_dim=64,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        conv1_stride=MEL_STRIDE,
    )


def train_encoder(data: Sequence[SpokenItem], steps: int, seed: int) -> tuple[Any, Any]:
    """Encoder and CTC head from nothing; no masking in the first quarter, where alignment has to be found."""
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    torch.manual_seed(seed)
    encoder = TrueLengthWhisperEncoder(whisper_config())
    return continue_encoder(encoder, CTCRecognizer(WIDTH, CHARACTERS), data, steps, seed, 2e-3, steps // 4)


def continue_encoder(
    encoder: Any,
    head: Any,
    data: Sequence[SpokenItem],
    steps: int,
    seed: int,
    peak: float = 1.5e-3,
    unmasked_steps: int = 0,
) -> tuple[Any, Any]:
    """`steps` batches of 20 utterances of similar length; returns encoder and head."""
    pick = random.Random(stable_seed("ctc", seed))
    noise = np.random.default_rng(stable_seed("specaugment", seed))
    draws = iter(lambda: pick.choice(data), None)  # without end
    batches = bucketed(draws, 20, key=lambda utterance: utterance.mel.shape[1])

    def loss_of(step: int) -> torch.Tensor:
        utterances = next(batches)
        features, lengths = pad_features([u.mel for u in utterances])
        if step > unmasked_steps or not unmasked_steps:
            features = mask_features(features, noise)
        states, counts = encoder(features, lengths)
        return head.loss(states, counts, [u.item.instruction for u in utterances])

    optimise(torch.nn.ModuleList([encoder, head]), steps, peak, "encoder (CTC)", loss_of, warmup=200)
    return encoder.eval(), head.eval()


@torch.no_grad()
def error_rates(encoder: Any, head: Any, data: Sequence[SpokenItem]) -> dict[str, float]:
    """Word and character error rate (percent) of greedy CTC transcripts."""
    import jiwer

    references, transcripts = [], []
    for start in range(0, len(data), 32):
        chunk = data[start : start + 32]
        states, counts = encoder(*pad_features([u.mel for u in chunk]))
        transcripts += head.decode(states, counts)
        references += [u.item.instruction for u in chunk]
    return {"wer": 100 * jiwer.wer(references, transcripts), "cer": 100 * jiwer.cer(references, transcripts)}


def assemble_base(encoder: Any, student: Any, tokenizer: Any) -> tuple[Any, Any]:
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


class EncoderStates:
    """Encoder states of utterances, computed once (the encoder is frozen), float16 in memory."""

    def __init__(self, model: Any, data: Sequence[SpokenItem]) -> None:
        order = sorted(range(len(data)), key=lambda i: data[i].mel.shape[1])
        by_index: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                states, lengths = model.encode_audio(*pad_features([data[i].mel for i in rows]))
                for row, state, length in zip(rows, states, lengths.tolist(), strict=True):
                    by_index[row] = state[:length].half()
        self.states: list[torch.Tensor] = [by_index[i] for i in range(len(data))]

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero-padded states [B, T', D] float32 and their lengths [B]."""
        states = [self.states[i].float() for i in rows]
        lengths = torch.tensor([len(s) for s in states])
        return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), lengths


def _prompt(encode: WordEncoder, item: world.WorldItem, n_states: int) -> list[int]:
    audio = [encode.audio] * -(-n_states // STACK)
    return [encode.bos, encode.user, *encode.words(item.prompt), *audio, encode.end, encode.assistant]


def tune_base(
    model: Any,
    tokenizer: Any,
    data: Sequence[SpokenItem],
    states: EncoderStates,
    steps: int,
    seed: int,
    peak: float = 2e-3,
) -> None:
    """Cross entropy on sampled teacher-style answers; projector and LM learn, the encoder stays frozen.

    Each utterance keeps a fixed set of four answer wordings, as a data set would.
    """
    model.requires_grad_(True)
    model.model.audio_tower.requires_grad_(False)
    encode, rng = WordEncoder(tokenizer), random.Random(stable_seed("tune", seed))
    answers = [[world.sample_answer(rng, u.item) for _ in range(4)] for u in data]

    draws = iter(lambda: rng.randrange(len(data)), None)  # without end
    batches = bucketed(draws, 32, key=lambda i: len(states.states[i]))

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
def answer_speech(
    model: Any, tokenizer: Any, data: Sequence[SpokenItem], states: EncoderStates, sample: bool = False
) -> list[str]:
    """Greedy (or T = 1) answers to the utterances."""
    encode = WordEncoder(tokenizer)
    texts = [""] * len(data)
    order = sorted(range(len(data)), key=lambda i: len(states.states[i]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        prompts = [_prompt(encode, data[i].item, len(states.states[i])) for i in rows]
        width = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
        features, lengths = states.batch(rows)
        sequences = model.generate(
            input_ids=ids,
            attention_mask=(ids != tokenizer.pad_token_id).long(),
            audio_states=features,
            audio_lengths=lengths,
            max_new_tokens=32,
            do_sample=sample,
            pad_token_id=tokenizer.pad_token_id,
        )
        answers = tokenizer.batch_decode(sequences[:, width:], skip_special_tokens=True)
        for row, text in zip(rows, answers, strict=True):
            texts[row] = text
    return texts


def valid_percent(data: Sequence[SpokenItem], answers: Sequence[str]) -> dict[str, float]:
    """Percentage of valid answers by kind and in all."""
    valid = [(u.item.kind, world.grade(u.item, a).valid) for u, a in zip(data, answers, strict=True)]
    kinds = {kind: [ok for k, ok in valid if k == kind] for kind in world.KINDS}
    return {
        "all": 100 * sum(ok for _, ok in valid) / len(valid),
        **{k: 100 * sum(v) / max(1, len(v)) for k, v in kinds.items()},
    }
