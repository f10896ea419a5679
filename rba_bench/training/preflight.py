"""Checks before the first step: clips that the model cannot take, and a model that does not use its audio.

`ModelLimits` leaves out the clips that are too long, too short, or do not fit into the LLM's context, and counts them.
The index of a set is enough for nearly all of it: durations, and bytes of text, of which no tokenizer makes more
tokens. Only rows that might be too long by their bytes are tokenised. Durations are checked again when a clip is
decoded, see `ClipStore`.

`check_audio_is_used` refuses a speech model that ignores its audio. A wrong mask, a dead projector or a placeholder
that is never filled leaves a model that trains on text alone without any sign of it. The teacher's answers are scored
with the real clips and with silence of the same length; if the log-probabilities do not change, the run stops.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rba_bench.audio.alignment_index import TURN_TOKENS, IndexedSet
from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.turns import Turn
from rba_bench.errors import RbaError, UserError
from rba_bench.progress import say
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.speech_model import SAMPLING_RATE
from rba_bench.training.data.clips import SLACK_S, ClipInput, ClipStore, ResponseTokens
from rba_bench.training.data.groups import TrainingData
from rba_bench.training.data.packing import Response
from rba_bench.training.losses.likelihood import sequence_logprobs
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.training_recipe import TrainingRecipe

NOT_ENCODABLE = "cannot be encoded by the model (too short, or too long for its encoder)"


@dataclass
class ModelLimits:
    """The clips of a set that a model can take.

    Attributes:
        family: the model.
        recipe: `long_clips`, `max_answer_tokens`, and how long answers may get.
        counts: clips left out by reason, and `cut`, for the record.
    """

    family: AudioFamily
    recipe: TrainingRecipe
    counts: dict[str, int] = field(default_factory=dict)

    def apply(self, data: TrainingData, tell: bool = True) -> None:
        """Leave out what cannot be trained on, in place, and say how much that is.

        Args:
            data: the sets of a run.
            tell: whether this process prints it.

        Raises:
            UserError: `long_clips: error` and there is such a clip, or nothing would remain.
        """
        reasons_by_set = [self._of(data, number) for number in range(len(data.sources))]
        reasons = list(reasons_by_set[0])
        self.counts = {
            reason: int(sum(by_reason[reason].sum() for by_reason in reasons_by_set)) for reason in reasons
        }
        self.counts["unanswered"] = sum(source.index.unanswered for source in data.sources)
        total = sum(int(data.all.parts[number].voices.sum()) for number in range(len(data.sources)))
        lines = list(self._lines(total))
        if self.recipe.long_clips == "error" and any(self.counts[reason] for reason in reasons):
            raise UserError(f"{'; '.join(lines)}. Remove them, or set long_clips to drop or cut")
        for line in lines if tell else ():
            say(line)
        if self.recipe.long_clips == "cut":
            reasons.remove("long")
            self.counts["cut"] = self.counts.pop("long")
        if any(self.counts[reason] for reason in reasons):
            against = [[by_reason[reason] for reason in reasons] for by_reason in reasons_by_set]
            data.leave_out([np.logical_or.reduce(masks) for masks in against])

    def _lines(self, total: int) -> Iterator[str]:
        limit, counts, recipe = self.family.max_seconds, self.counts, self.recipe
        if counts["unanswered"]:
            yield f"{counts['unanswered']:,} clips have no answer and are left out"
        if counts["long"]:
            done = {
                "drop": "left out (`long_clips: cut` trains on their first part)",
                "cut": "cut, but their answers are not (`long_clips: drop` leaves them out)",
                "error": "refused by `long_clips: error`",
            }[recipe.long_clips]
            longer = f"{counts['long']:,} of {total:,} clips are longer than the {limit:g} s that the model can encode"
            yield f"{longer}: {done}"
        out = "" if recipe.long_clips == "error" else " are left out: they"
        if counts["unheard"]:
            yield f"{counts['unheard']:,} of {total:,} clips{out} {NOT_ENCODABLE}"
        if counts["context"]:
            room = (
                f"do not fit into the LLM's context of {self.family.context:,} tokens with prompt and answer"
            )
            shorter = "lower max_new_tokens" if recipe.uses_rollout else "shorten their answers"
            yield f"{counts['context']:,} of {total:,} clips{out} {room} ({shorter} to use them)"
        if counts["answer"]:
            longer = f"have answers of more than max_answer_tokens {recipe.max_answer_tokens}"
            yield f"{counts['answer']:,} of {total:,} clips{out} {longer}"

    def _of(self, data: TrainingData, number: int) -> dict[str, np.ndarray]:
        """Clips of a set by the first reason against them, [C] bool each."""
        source, limit = data.sources[number], self.family.max_seconds
        chosen = np.zeros(len(source.index.starts) - 1, dtype=bool)
        chosen[data.all.parts[number].numbers] = True
        used = np.repeat(chosen, np.diff(source.index.starts))  # clips of the groups that the run may use
        seconds = np.asarray(source.index.seconds)
        long = used & (seconds > (np.inf if limit is None else limit + SLACK_S))
        audible = np.minimum(np.nan_to_num(seconds, nan=1.0), limit or np.inf)
        # computed once per hundredth of a second
        hundredths, places = np.unique(np.round(audible * 100).astype(np.int64), return_inverse=True)
        samples = [int(hundredth) * SAMPLING_RATE // 100 for hundredth in hundredths]
        counts = [0 if self.family.refusal(n) else self.family.n_tokens(n) for n in samples]
        tokens = np.asarray(counts, dtype=np.int64)[places]
        unheard = used & ~np.isnan(seconds) & (tokens < 1)
        context, answer = self._texts(source, used & ~unheard, tokens)
        return {
            "long": long,
            "unheard": unheard,
            "context": context & ~long,
            "answer": answer & ~long & ~context,
        }

    def _texts(
        self, source: IndexedSet, used: np.ndarray, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clips whose prompt and answer do not fit, and those whose answer alone is longer than wanted."""
        index, recipe, own = source.index, self.recipe, self.recipe.teacher.answers
        least = own.max_new_tokens if recipe.writes_answers else 0
        least = max(least, recipe.max_new_tokens if recipe.uses_rollout else 0)
        template = len(self.family.prompt_ids("")) + (len(own.prompt) if recipe.writes_answers else 0)
        most, longest = self.family.context or np.inf, recipe.max_answer_tokens or np.inf
        text = np.asarray(index.text).astype(np.int64)
        has_turns = source.data.has_turns  # then `text` holds a history that stands before any answer
        at_most = text + least if has_turns else np.maximum(text, least)
        suspects = used & ((template + tokens + at_most + 1 > most) | (text + 1 > longest))
        if has_turns and self._turn_tokens() > TURN_TOKENS:
            suspects = used
        context, answer = np.zeros_like(used), np.zeros_like(used)
        groups = np.unique(np.searchsorted(index.starts, np.flatnonzero(suspects), side="right") - 1)
        for group in groups.tolist():
            start = int(index.starts[group])
            for offset, row in enumerate(source.rows(group)):
                clip, prompt = start + offset, own.prompt if recipe.method == "blsp" else row.prompt
                try:
                    # one of them stands for the audio
                    size = len(self.family.prompt_ids(prompt, row.turns)) - 1
                    length = 0 if recipe.writes_answers else len(self.family.answer_ids(row.response))
                except UserError:  # told with the row's name where it is read
                    size, length = -1, 0
                size += int(tokens[clip]) + max(length, least)
                context[clip] = suspects[clip] and size > most
                answer[clip] = suspects[clip] and length > longest
        return context, answer

    def _turn_tokens(self) -> int:
        """Tokens that the chat template writes around an earlier turn.

        Raises:
            UserError: the template takes no earlier turns.
        """
        words = Turn("a", "a")
        one, two = (len(self.family.prompt_ids("", (words,) * number)) for number in (1, 2))
        return two - one


SMALLEST_CHANGE = 1e-4  # nats per answer; rounding differences are about 1e-6


@torch.no_grad()
def check_audio_is_used(
    policy: SpeechPolicy, store: ClipStore, responder: ResponseTokens, rows: Sequence[AlignmentRow]
) -> float:
    """Compare real clips with silence.

    Returns:
        Mean log-probability (nats per answer) that the audio adds to the teacher's answer.

    Raises:
        RbaError: silence changes nothing: the model ignores its audio.
    """
    responses = [Response(index, responder(row.response)) for index, row in enumerate(rows)]

    def score(clips: Sequence[ClipInput]) -> torch.Tensor:
        scores = policy(clips, responses)
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
