"""Refuse to train a speech model that does not listen.

A wrong mask, a dead projector or a placeholder that is never filled leaves a model that trains happily on text alone.
Before the first step the teacher's answers are scored with the real clips and with silence of the same length; if the
log-probabilities do not move, the run stops.
"""

from collections.abc import Sequence

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.training.data.clips import Clip, ClipStore, ResponseTokens
from rba_bench.training.data.packing import Response
from rba_bench.training.losses import sequence_logprobs
from rba_bench.training.model.policy import SpeechPolicy

SMALLEST_CHANGE = 1e-4  # nats per answer; rounding differences are about 1e-6


@torch.no_grad()
def check_audio_is_used(
    policy: SpeechPolicy, store: ClipStore, responder: ResponseTokens, rows: Sequence[AlignmentRow]
) -> float:
    """Compare real clips with silence.

    Returns:
        Mean log-probability (nats per answer) that hearing the clip adds to the teacher's answer.

    Raises:
        RbaError: silence changes nothing: the audio is present but not used.
    """
    branches = [Response(index, responder(row.response)) for index, row in enumerate(rows)]

    def score(clips: Sequence[Clip]) -> torch.Tensor:
        scores = policy(clips, branches)
        return sequence_logprobs(scores.logprobs, scores.mask)

    training = policy.training
    policy.eval()
    change = score(store.get(rows)) - score(store.silence(rows))
    policy.train(training)
    if not float(change.abs().max()) > SMALLEST_CHANGE:
        raise RbaError(
            f"the model does not use its audio: replacing {len(rows)} clips by silence changes no answer's "
            f"log-probability by more than {SMALLEST_CHANGE} nats; check the base model's projector and audio token"
        )
    return float(change.mean())
