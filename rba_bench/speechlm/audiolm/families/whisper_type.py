"""What the models with a Whisper-type encoder share: log-mel windows of 30 s, convolutions, pooled states.

**True length.** A Whisper-type encoder was trained on 30 s windows and its processor pads every clip to one. Where
attention is masked at the clip's end, frames behind that end can be left out without changing any state that is
kept: state j of the two convolutions reads mel frames 2j-2 ... 2j+2, so two frames of the padding decide the last
state and the rest decides nothing. The log-mel of the shorter wave equals the padded one's frame by frame: a frame
reads 400 samples (what the STFT mirrors at the end is silence in both), and the floor, 8 below the clip's maximum,
comes from the clip, as silence has the lowest value there is.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rba_bench.speechlm.audiolm.families.base import AudioFamily, Features, pad_states
from rba_bench.speechlm.base import SAMPLING_RATE

MARGIN = 2  # mel frames behind the clip's end that its last state reads


class WhisperType(AudioFamily):
    """Clips as windows of 30 s: one unless the model takes longer audio piece by piece.

    Features are `input_features` [W, M, T] of all windows, `frames` [W] (true mel frames) and `windows` [N] (windows
    of each clip).
    """

    @property
    def tower(self) -> Any:
        """The encoder."""
        return self.model.model.audio_tower

    @property
    def extractor(self) -> Any:
        """`WhisperFeatureExtractor`."""
        return self.processor.feature_extractor

    @property
    def max_seconds(self) -> float | None:
        """One window, unless the family says otherwise."""
        return float(self.extractor.chunk_length)

    def n_frames(self, n_samples: int) -> int:
        """Mel frames that the processor's mask counts for a clip within one window."""
        return -(-min(n_samples, self.extractor.n_samples) // self.extractor.hop_length)

    @abstractmethod
    def tokens_of(self, frames: Any) -> Any:
        """Audio tokens of a window with this many mel frames; ints or tensors."""

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
        heard = [np.asarray(self.heard(clip), dtype=np.float32) for clip in clips]
        pieces = [[clip[at : at + size] for at in range(0, max(len(clip), 1), size)] for clip in heard]
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

    def mels(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The log-mel in the encoder's number type and place."""
        weight = self.tower.conv1.weight
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
