"""Families with a Whisper-type encoder: log-mel windows of 30 s, convolutions, pooled states.

**True length.** A Whisper-type encoder was trained on 30 s windows and its processor pads every clip to one. Where
attention is masked at the clip's end, frames behind that end can be left out without changing any state of the
clip: state j of the two convolutions reads mel frames 2j-2 ... 2j+2, so two frames of the padding decide the last
state and the rest decides nothing. The log-mel of the shorter wave equals the padded one's frame by frame: a frame
reads 400 samples (what the STFT mirrors at the end is silence in both), and the floor, 8 below the clip's maximum,
comes from the clip, as silence has the lowest value there is.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily, Features, pad_states
from rba_bench.speechlm.audiolm.families.dialogue import Messages, Turns, history
from rba_bench.speechlm.composite.encoder import length_mask
from rba_bench.speechlm.speech_model import SAMPLING_RATE, wav_base64
from rba_bench.textlm.chat import render_chat

MARGIN = 2  # mel frames behind the clip's end that its last state reads


class WhisperType(AudioFamily):
    """Clips as windows of 30 s: one unless the model takes longer audio piece by piece.

    Features are `input_features` [W, M, T] of all windows, `frames` [W] (true mel frames) and `windows` [N] (windows
    of each clip).
    """

    takes_windows: ClassVar[bool] = False  # longer audio than one window, each encoded on its own

    @property
    def extractor(self) -> Any:
        """`WhisperFeatureExtractor`."""
        return self.processor.feature_extractor

    @property
    def max_seconds(self) -> float | None:
        """One window, or with `takes_windows` all whole windows within the processor's `max_audio_len`."""
        window = self.extractor.chunk_length
        return float(self.processor.max_audio_len // window * window if self.takes_windows else window)

    def n_frames(self, n_samples: int) -> int:
        """Mel frames that the processor's mask counts for a clip within one window."""
        return -(-min(n_samples, self.extractor.n_samples) // self.extractor.hop_length)

    def tokens_of(self, frames: Any) -> Any:
        """Audio tokens of a window with this many mel frames; ints or tensors.

        By default 25 a second: stride 2 in the convolutions, then pairs are averaged.
        """
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def n_tokens(self, n_samples: int) -> int:
        """See `AudioFamily.n_tokens`; summed over the windows."""
        limit = self.max_seconds
        if limit is not None:
            n_samples = min(n_samples, int(limit * SAMPLING_RATE))
        full, rest = divmod(n_samples, self.extractor.n_samples)
        tokens = full * self.tokens_of(self.n_frames(self.extractor.n_samples))
        return int(tokens + (self.tokens_of(self.n_frames(rest)) if rest else 0))

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """See `AudioFamily.features`; log-mel by the model's own feature extractor."""
        size = self.extractor.n_samples
        waves = [np.asarray(self.truncate(clip), dtype=np.float32) for clip in clips]
        pieces = [[wave[at : at + size] for at in range(0, max(len(wave), 1), size)] for wave in waves]
        windows = [piece for clip in pieces for piece in clip]
        frames = torch.tensor([self.n_frames(len(piece)) for piece in windows])
        longest = self.extractor.nb_max_frames
        if self.true_length:
            needed = int(frames.max()) + MARGIN
            longest = min(longest, needed + needed % 2)  # even: the second convolution has stride 2
        mels = self.extractor(
            windows,
            sampling_rate=SAMPLING_RATE,
            padding="max_length",
            max_length=longest * self.extractor.hop_length,
            return_attention_mask=False,
            return_tensors="pt",
        )["input_features"]
        counts = torch.tensor([len(clip) for clip in pieces])
        return {"input_features": mels, "frames": frames, "windows": counts}

    def gather(
        self, states: torch.Tensor, lengths: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of windows [W, S, D] to states of clips [N, S', D], true ones only, and their lengths [N]."""
        if len(windows) == len(states):  # every clip fits in one
            return states[:, : int(lengths.max())], lengths
        rows = [row[:length] for row, length in zip(states, lengths.tolist(), strict=True)]
        starts = [0, *windows.cumsum(0).tolist()]
        return pad_states([torch.cat(rows[a:b]) for a, b in zip(starts, starts[1:], strict=False)])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; by default one token for each state."""
        return self.model.model.multi_modal_projector(states), lengths

    def mels(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The log-mel in the encoder's number type and place."""
        weight = self.encoder.conv1.weight
        return features["input_features"].to(weight.device, weight.dtype)


class _Positions(nn.Module):
    """Stands in for `embed_positions` with fewer rows; a view, so gradients reach the table."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight


def at_length(tower: Any, n_states: int) -> Any:
    """The encoder for inputs of `n_states` states (20 ms) instead of `max_source_positions`.

    A shallow copy that shares all layers and parameters, so it runs the encoder's own `forward`: Whisper-type
    encoders add the whole position table and refuse any other input length.
    """
    if n_states == tower.config.max_source_positions:
        return tower
    view = copy.copy(tower)
    view.config = copy.copy(tower.config)
    view.config.max_source_positions = n_states
    view._modules = {**tower._modules, "embed_positions": _Positions(tower.embed_positions.weight[:n_states])}
    return view


class Qwen2Audio(WhisperType):
    """`Qwen2AudioForConditionalGeneration`.

    Whisper encoder pooled to 25 tokens a second, one linear layer, Qwen2.

    Stock behaviour that is kept: the turn reads `Audio 1: <|audio_bos|><|AUDIO|>...<|audio_eos|>` and then the text
    (the processor's template); at most 30 s of audio are used; attention in the encoder is masked at the clip's end.
    There is no `get_audio_features` (transformers 5.23), so `encode_audio` repeats the dozen lines of
    `Qwen2AudioModel.forward` around the encoder.
    """

    allows_true_length: ClassVar[bool] = True
    steady: ClassVar[bool] = True

    def frames_needed(self, n_samples: int) -> int:
        """See `AudioFamily.frames_needed`."""
        needed = self.n_frames(n_samples) + MARGIN
        return needed if self.true_length else max(needed, self.max_frames)

    @property
    def max_frames(self) -> int:
        """See `AudioFamily.max_frames`: one window."""
        return int(self.extractor.nb_max_frames)

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; states are pooled, one for each audio token."""
        mels = self.mels(features)
        n_states = mels.shape[-1] // 2
        frames = features["frames"].to(mels.device)
        mask = create_bidirectional_mask(
            config=self.encoder.config,
            inputs_embeds=mels.new_empty(len(mels), n_states, 1),
            attention_mask=length_mask((frames - 1) // 2 + 1, n_states).long(),
        )
        states = at_length(self.encoder, n_states)(mels, attention_mask=mask).last_hidden_state
        return self.gather(states, self.tokens_of(frames), features["windows"])


class AudioFlamingo3(WhisperType):
    """`AudioFlamingo3ForConditionalGeneration`.

    Qwen2-Audio's kind of encoder over windows of 30 s, a two-layer projector, Qwen2.

    Up to ten minutes are used (`max_audio_len` of the processor), each window on its own. Attention in the encoder is
    masked at the clip's end, so clips are encoded at their true length. The text stands before the audio, as in the
    processor's own requests. The class is registered for sequence-to-sequence only; `loading.auto_class` finds it
    there.
    """

    allows_true_length: ClassVar[bool] = True
    text_first: ClassVar[bool] = True
    takes_windows: ClassVar[bool] = True

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; states are pooled, one for each audio token."""
        mels = self.mels(features)
        frames = features["frames"].to(mels.device)
        tower = at_length(self.encoder, mels.shape[-1] // 2)
        mask = length_mask(frames, mels.shape[-1]).long()
        states = tower(mels, input_features_mask=mask).last_hidden_state
        return self.gather(states, self.tokens_of(frames), features["windows"])


class GlmAsr(WhisperType):
    """`GlmAsrForConditionalGeneration`.

    Rotary encoder over windows of 30 s, four states a token, a two-layer projector, Llama.

    The encoder attends to its padding: there is no mask, and a clip's states depend on the silence up to 30 s. Encoding
    at true length would be another model, so it is not done. Only what lies within the clip becomes audio tokens (12.5
    a second). The model transcribes: a turn without text gets the processor's `default_transcription_prompt`.
    """

    takes_windows: ClassVar[bool] = True

    def user_turn(self, prompt: str) -> list[dict[str, Any]]:
        """Audio, then `prompt` or the default request for a transcript."""
        return super().user_turn(prompt or self.processor.default_transcription_prompt)

    def tokens_of(self, frames: Any) -> Any:
        """12.5 a second: stride 2 in the convolutions, then groups of four."""
        return ((frames - 1) // 2 + 1) // 4

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; four encoder states side by side for each audio token."""
        states = self.encoder(self.mels(features)).last_hidden_state
        states = states.reshape(len(states), -1, self.model.config.audio_config.intermediate_size)
        lengths = self.tokens_of(features["frames"].to(states.device))
        return self.gather(states, lengths, features["windows"])


class Voxtral(WhisperType):
    """`VoxtralForConditionalGeneration`.

    Whisper encoder over windows of 30 s, four states a token, a two-layer projector, Llama.

    Every window counts 375 audio tokens whatever it holds, and nothing is masked: the decoder reads the silence behind
    a short clip. True length would be another prompt and another model, so it is not done. There is no limit to the
    number of windows but the decoder's context. Unlike the other families the log-mel of a long clip is made of the
    whole clip and then cut into windows.

    Checkpoints come with `tekken.json`, which the package `mistral-common` reads. Its tokenizer writes the turn from
    the messages themselves, audio included; here it is asked once per prompt with a moment of silence. The waves do not
    pass through it, so that they are not rounded to 16 bits as they are on the stock path.
    """

    @property
    def max_seconds(self) -> float | None:
        """No limit but the context."""
        return None

    @property
    def writes_turns(self) -> bool:
        """Whether the tokenizer is that of `mistral-common`, which takes messages instead of a template."""
        return "MistralCommon" in type(self.tokenizer).__name__

    def find_stops(self) -> list[int]:
        """The end token; `mistral-common` shows no template to look into."""
        if not self.writes_turns:
            return super().find_stops()
        return [int(self.tokenizer.eos_token_id)]

    def render(self, prompt: str, turns: Turns = ()) -> str:
        """See `AudioFamily.render`; the processor itself writes no templates."""
        if not self.tokenizer.chat_template:
            raise MissingPrerequisite(
                f"Voxtral's turns are written by mistral-common: {extra('voxtral')}, and keep tekken.json "
                "beside the weights"
            )
        return super().render(prompt, turns)

    def _by_template(self, messages: Messages) -> str:
        return render_chat(self.tokenizer, messages, add_generation_prompt=True, **self.template)

    def _prompt_ids(self, prompt: str, turns: Turns = ()) -> tuple[int, ...]:
        if not self.writes_turns:
            return super()._prompt_ids(prompt, turns)
        silence = {"type": "audio", "base64": wav_base64(np.zeros(SAMPLING_RATE // 10))}
        turn = [silence if part["type"] == "audio" else part for part in self.user_turn(prompt)]
        messages = [*history(turns), {"role": "user", "content": turn}]
        encoded = self.tokenizer.apply_chat_template(messages, return_dict=True)
        ids: list[int] = []
        for token, run in groupby(encoded["input_ids"]):  # the silence's tokens become one placeholder
            ids.extend([token] if token == self.audio_token_id else run)
        return tuple(ids)

    def answer_ids(self, answer: str) -> list[int]:
        """See `AudioFamily.answer_ids`."""
        return [*self.tokenizer.encode(answer, add_special_tokens=False), self.stops[0]]

    def n_windows(self, n_samples: int) -> int:
        """Windows of a clip."""
        return max(1, -(-n_samples // self.extractor.n_samples))

    def tokens_of(self, frames: Any) -> Any:
        """The same for every window, however many frames hold sound."""
        del frames
        return self.n_tokens(1)

    def n_tokens(self, n_samples: int) -> int:
        """375 a window."""
        audio = self.model.config.audio_config
        per_window = audio.max_source_positions * audio.hidden_size // audio.intermediate_size
        return int(self.n_windows(n_samples) * per_window)

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """See `AudioFamily.features`; `input_features` [W, M, 3000], `windows` [N]."""
        counts = [self.n_windows(len(clip)) for clip in clips]
        by_clip: dict[int, torch.Tensor] = {}
        for count in sorted(set(counts)):
            rows = [i for i, windows in enumerate(counts) if windows == count]
            mels = self.extractor(
                [np.asarray(clips[i], dtype=np.float32) for i in rows],
                sampling_rate=SAMPLING_RATE,
                padding="max_length",
                max_length=count * self.extractor.n_samples,
                truncation=False,
                return_tensors="pt",
            )["input_features"]
            windows = mels.reshape(len(rows), mels.shape[1], count, -1).transpose(1, 2)
            by_clip.update(zip(rows, windows, strict=True))
        mels = torch.cat([by_clip[i] for i in range(len(clips))])
        return {"input_features": mels, "windows": torch.tensor(counts)}

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; four encoder states side by side for each audio token."""
        states = self.encoder(self.mels(features)).last_hidden_state
        states = states.reshape(len(states), -1, self.model.config.audio_config.intermediate_size)
        lengths = torch.full((len(states),), states.shape[1], device=states.device)
        return self.gather(states, lengths, features["windows"])
