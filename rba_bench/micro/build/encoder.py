"""The ear of the micro world: a small Whisper-type encoder trained from nothing with CTC on characters."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rba_bench.micro.build import speech
from rba_bench.micro.build.textlms import bucketed, optimise
from rba_bench.seeding import stable_seed

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyzßáâàäçèéêëíîïñóôöùúûü"
WIDTH, LAYERS, HEADS, FEED_FORWARD = 176, 4, 4, 704
MEL_STRIDE = 2  # states of 40 ms: half the cost of Whisper's 20 ms
MAX_POSITIONS = 400  # states: 16 s


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


def train(data: Sequence[speech.Utterance], steps: int, seed: int) -> tuple[Any, Any]:
    """Encoder and CTC head from nothing; no masking in the first quarter, where alignment has to be found."""
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    torch.manual_seed(seed)
    encoder = TrueLengthWhisperEncoder(whisper_config())
    return continue_training(encoder, CTCRecognizer(WIDTH, CHARACTERS), data, steps, seed, 2e-3, steps // 4)


def continue_training(
    encoder: Any,
    head: Any,
    data: Sequence[speech.Utterance],
    steps: int,
    seed: int,
    peak: float = 1.5e-3,
    unmasked_steps: int = 0,
    size: int = 20,
) -> tuple[Any, Any]:
    """`steps` batches of `size` utterances of similar length; returns encoder and head."""
    pick = random.Random(stable_seed("ctc", seed))
    noise = np.random.default_rng(stable_seed("specaugment", seed))
    groups = _batches(data, size, pick)

    def loss_of(step: int) -> torch.Tensor:
        chosen = next(groups)
        features, lengths = speech.batch([u.mel for u in chosen])
        heard = speech.mask(features, noise) if step > unmasked_steps or not unmasked_steps else features
        states, counts = encoder(heard, lengths)
        return head.loss(states, counts, [u.item.instruction for u in chosen])

    optimise(torch.nn.ModuleList([encoder, head]), steps, peak, "encoder (CTC)", loss_of, warmup=200)
    return encoder.eval(), head.eval()


def _batches(data: Sequence[speech.Utterance], size: int, pick: random.Random) -> Any:
    def stream() -> Any:
        while True:
            yield pick.choice(data)

    return bucketed(stream(), size, key=lambda u: u.mel.shape[1])


@torch.no_grad()
def error_rates(encoder: Any, head: Any, data: Sequence[speech.Utterance]) -> dict[str, float]:
    """Word and character error rate (percent) of greedy CTC transcripts."""
    import jiwer

    said, heard = [], []
    for start in range(0, len(data), 32):
        chunk = data[start : start + 32]
        states, counts = encoder(*speech.batch([u.mel for u in chunk]))
        heard += head.decode(states, counts)
        said += [u.item.instruction for u in chunk]
    return {"wer": 100 * jiwer.wer(said, heard), "cer": 100 * jiwer.cer(said, heard)}
