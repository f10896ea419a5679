"""Methods that learn from given answers, or from a text LLM that gets the transcript.

Cross entropy on given answers: TTS-SFT; BLSP and AudioChatLlama, whose answers the model's own LLM has written.
Distillation from a text teacher: its distributions token by token (kd), the same on own samples (gkd), its hidden
states (diva).
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.seeding import stable_seed
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.pairs import (
    AnswerTokens,
    Outcome,
    Sample,
    SampleRequest,
    ScoredSample,
    Tokens,
    answer_tokens,
)
from rba_bench.training.losses import distillation
from rba_bench.training.losses.likelihood import token_mean
from rba_bench.training.methods.method import (
    FrozenModels,
    Method,
    Step,
    StepTargets,
    TeacherDivergence,
    Terms,
)


class Likelihood(Method):
    """L = -log pi(y|x), mean over tokens or (RBA Eq. (1)) over answers; the data decide whose answers y are."""

    always_supervised = True

    def loss(self, step: Step) -> Terms:
        """See the class."""
        loss = self.supervision(step)
        return Terms(loss, {"sft": float(loss.detach())})


class TokenDistillation(Method):
    """Divergence from the teacher's next-token distributions on the teacher's answers, mean over tokens (or answers).

    Ultravox's and BLSP-KD's response loss where `teacher.model` is `self`: temperature 2, no T^2 factor, and
    `teacher.end_weight` more on the end of the turn.
    """

    always_supervised = True

    def targets(self, batch: StepBatch, frozen_models: FrozenModels) -> StepTargets:
        """The teacher's distributions along the same answers, given the transcript."""
        options, places = self.recipe.teacher, self.places(batch)
        texts = [row.user_text for row, _ in batch.prompts]
        targets = frozen_models.teacher.targets(texts, batch.responses, places).to(frozen_models.device)
        return StepTargets(
            targets, TeacherDivergence(options.divergence, options.temperature, options.jsd_weight)
        )

    def loss(self, step: Step) -> Terms:
        """See the class."""
        places, reduction = self.places(step.batch), self.recipe.distillation_reduction
        mask = step.pick(step.scores.mask, places)
        # own samples may be cut off, without an end token
        ended = [step.batch.responses[place].tokens[-1] in self.end_ids for place in places]
        weights = distillation.end_weights(
            mask,
            self.recipe.teacher.end_weight,
            ended=torch.tensor(ended, device=mask.device),
            count=step.counts["tokens" if reduction == "token" else "answers"],
            ends=step.counts["ends"],
            reduction=reduction,
        )
        divergence = (step.pick(step.scores.divergence, places) * weights).sum()
        return self.combine(step, divergence, {"divergence": float(divergence.detach())})

    def counts(self, batch: StepBatch, frozen_models: FrozenModels) -> dict[str, int]:
        """Also answers, their tokens, and ends of turns."""
        places = self.places(batch)
        ends = sum(batch.responses[place].tokens[-1] in self.end_ids for place in places)
        return {
            **super().counts(batch, frozen_models),
            "tokens": batch.length(places),
            "answers": len(places),
            "ends": ends,
        }

    def places(self, batch: StepBatch) -> list[int]:
        """Responses that are compared with the teacher; one that occurs several times is listed as often."""
        return batch.teacher


class OnPolicyDistillation(TokenDistillation):
    """GKD (Agarwal et al. 2023): the same on the student's own samples, in `student_fraction` of the steps.

    Algorithm 1 of the paper draws u ~ U(0, 1) once a step: if u <= lambda, the batch holds the student's samples, else
    the given answers. The draw depends on seed and step alone.
    """

    always_supervised = False  # the given answers of groups that are not sampled come as samples

    def samples_in_step(self, step: int) -> bool:
        """Whether the student answers in this step."""
        draw = stable_seed("gkd", self.recipe.seed, step) % 10**6
        return draw < 10**6 * self.recipe.student_fraction

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """One sample a clip."""
        return self.group_requests(rows, full=False)

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """The samples as they are."""
        rated = [ScoredSample(answer_tokens(sample), 0.0, 0.0) for sample in samples]
        stats = {"on_policy": float(bool(rated))}
        return Outcome(len(samples), rated=[rated] if rated else [], stats=stats)

    def batch(
        self, rows: Sequence[AlignmentRow], outcomes: Sequence[Outcome], responder: ResponseTokens
    ) -> StepBatch:
        """Own samples, and the teacher's answers to the groups that were not sampled."""
        sampled = {group[0].answer.row.group_id for outcome in outcomes for group in outcome.rated}
        teachers = [
            [ScoredSample(AnswerTokens(row, responder(row.response)), 0.0, 0.0)]
            for row in rows
            if row.group_id not in sampled
        ]
        extra = Outcome(len(teachers), rated=teachers)
        return super().batch(rows, [*outcomes, extra], responder)

    def places(self, batch: StepBatch) -> list[int]:
        """The student's samples, and the given answers among them."""
        return batch.rated


class Diva(Method):
    """DiVA (Held et al. 2024): L2 to the own LLM's hidden states on the transcript, and from audio tokens to words."""

    extra_outputs = ("hidden", "sound")

    always_supervised = True

    def targets(self, batch: StepBatch, frozen_models: FrozenModels) -> StepTargets:
        """The LLM's states on the same answers, and the embeddings of the words."""
        answers = [batch.responses[place].tokens for place in batch.teacher]
        texts = [batch.prompts[batch.responses[place].clip][0].user_text for place in batch.teacher]
        words = frozen_models.teacher.words(_spoken(batch))
        return StepTargets(states=torch.cat(frozen_models.teacher.states(texts, answers)), words=words)

    def counts(self, batch: StepBatch, frozen_models: FrozenModels) -> dict[str, int]:
        """Also states and words to be compared."""
        every = self.recipe.hidden_positions == "all"
        states = batch.length(batch.teacher) if every else len(batch.teacher)
        words = sum(map(len, frozen_models.teacher.word_ids(_spoken(batch))))
        return {**super().counts(batch, frozen_models), "states": states, "words": words}

    def loss(self, step: Step) -> Terms:
        """See the class."""
        batch, options, scores = step.batch, self.recipe.teacher, step.scores
        assert step.targets.states is not None  # `targets` has put them there
        mask = step.pick(scores.mask, batch.teacher)
        hidden = step.pick(scores.hidden, batch.teacher)
        theirs = torch.zeros_like(hidden)
        theirs[mask] = step.targets.states.to(hidden)
        compared = mask if self.recipe.hidden_positions == "all" else distillation.first_positions(mask)
        distance = token_mean(
            distillation.hidden_l2(hidden, theirs, compared), compared, step.counts["states"]
        )
        counts = torch.tensor([len(words) for words in step.targets.words], device=hidden.device)
        clips = [batch.responses[place].clip for place in batch.teacher]
        aligned = distillation.token_alignment(
            step.pick(scores.sound, clips),
            step.pick(scores.n_sound.to(hidden.device), clips),
            pad_sequence(step.targets.words, True).to(hidden),
            counts,
        )
        alignment = token_mean(*aligned, step.counts["words"])
        loss = options.hidden_weight * distance + options.words_weight * alignment
        notes = {"divergence": float(distance.detach()), "alignment": float(alignment.detach())}
        return self.combine(step, loss, notes)


def _spoken(batch: StepBatch) -> list[str]:
    """The transcript behind each of the teacher's answers."""
    return [batch.prompts[batch.responses[place].clip][0].instruction for place in batch.teacher]
