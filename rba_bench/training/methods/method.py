"""The base class of the methods: what a method samples, what it makes of the samples, and its loss.

    requests --sampled, rewarded--> outcome --batch--> counts --> targets (teacher, reference) --scored--> loss

An optimiser step may come in several batches, one after the other and in several processes. What a loss is divided by
is counted over all of them before the first one is scored, and `loss` gives a batch's *share* of the step's loss: the
sum of the shares is the loss, and the sum of their gradients its gradient, however the step is split.

The trainer knows no method. A new method is a preset in `options/presets.py`, a branch or a subclass of its kind's
class in one of the modules here, and, where its formula is new, a function in `losses`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StateTargets, StepBatch, Targets, assemble_batch
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.pairs import (
    AnswerTokens,
    Outcome,
    Sample,
    SampleRequest,
    Tokens,
    sample_requests,
)
from rba_bench.training.losses.distillation import DivergenceKind, divergence, topk_divergence
from rba_bench.training.losses.likelihood import sequence_logprobs, token_mean
from rba_bench.training.model.frozen_models import FrozenModels
from rba_bench.training.model.policy import Measure, Scores
from rba_bench.training.options.presets import Reduction
from rba_bench.training.training_recipe import TrainingRecipe


@dataclass(frozen=True)
class TeacherDivergence:
    """The divergence from a teacher whose distributions are full or a cached top k (a `policy.Measure`).

    See `losses.distillation` for kinds, temperature and weight. Where output matrices have padding rows behind the
    vocabulary, only the rows that both have are compared.
    """

    kind: DivergenceKind = "forward"
    temperature: float = 1.0
    weight: float = 0.5

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Student's logits [C, V] and as many targets to [C] nats."""
        options = {"weight": self.weight, "temperature": self.temperature}
        if isinstance(targets, StateTargets):
            teacher = targets.logits()
            size = min(logits.shape[-1], teacher.shape[-1])
            return divergence(logits[:, :size], teacher[:, :size], self.kind, **options)
        return topk_divergence(logits, targets.ids, targets.logits, targets.log_rest, self.kind, **options)


@dataclass
class StepTargets:
    """What the responses of a step are compared with.

    Attributes:
        distributions, measure: `targets` and `measure` of `SpeechPolicy.forward`.
        reference: [N, L] token log-probabilities under the reference, zeros for responses that need none.
        states: the teacher's hidden states at the positions that are compared.
        words: embeddings of the transcripts' tokens, one [T_i, H] for each clip that is compared.
    """

    distributions: Targets | None = None
    measure: Measure | None = None
    reference: Tensor | None = None
    states: Tensor | None = None
    words: list[Tensor] = field(default_factory=list)


@dataclass
class Step:
    """Everything a batch's share of a loss is computed from.

    Attributes:
        batch: clips and answers.
        scores: log-probabilities and other outputs of the policy for the answers.
        targets: what they are compared with.
        counts: the method's `counts`, summed over all batches of the optimiser step and all processes.
    """

    batch: StepBatch
    scores: Scores
    targets: StepTargets
    counts: Mapping[str, int]

    def mean(self, values: Tensor, over: str) -> Tensor:
        """This batch's share of the step's mean: the sum of `values` over `counts[over]`; 0 where there is nothing."""
        return values.sum() / max(self.counts[over], 1)

    def sequence(
        self,
        places: Sequence[int],
        reduction: Reduction = "sequence",
        mask: Tensor | None = None,
        logprobs: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of answers.

        Args:
            places: indices of the responses.
            reduction: sum over tokens (`sequence`) or their mean (`token`).
            mask: [len(places), L], tokens that count; by default all of an answer.
            logprobs: [N, L] of tokens; by default those of the policy.

        Returns:
            [len(places)] nats.
        """
        values = self.scores.logprobs if logprobs is None else logprobs
        used = self.pick(self.scores.mask, places) if mask is None else mask
        return sequence_logprobs(self.pick(values, places), used, reduction)

    def reference(
        self, places: Sequence[int], reduction: Reduction = "sequence", mask: Tensor | None = None
    ) -> Tensor:
        """`sequence` under the reference; zeros without one."""
        values = self.targets.reference
        logprobs = torch.zeros_like(self.scores.logprobs) if values is None else values
        return self.sequence(places, reduction, mask, logprobs)

    def pick(self, values: Tensor, places: Sequence[int]) -> Tensor:
        """Rows of `values` at `places`."""
        return values.index_select(0, torch.tensor(places, dtype=torch.long, device=values.device))


@dataclass(frozen=True)
class Terms:
    """A batch's share of a loss (scalar with gradient), and its shares of what to write into the step log.

    Shares are summed over the batches of a step, so a note is as much a share as the loss.
    """

    loss: Tensor
    notes: Mapping[str, float] = field(default_factory=dict)


class Method(ABC):
    """One objective with its loop.

    Attributes:
        extra_outputs: further outputs of the policy's forward pass that the loss needs.
        old_logprobs: whether samples carry their log-probabilities at sampling time.
        always_supervised: whether the teacher's answers are scored whatever `sft_weight` is.
        end_ids: tokens that end an answer.
    """

    extra_outputs: tuple[str, ...] = ()
    old_logprobs = False
    always_supervised = False

    def __init__(self, recipe: TrainingRecipe, end_ids: Collection[int] = ()) -> None:
        self.recipe = recipe
        self.end_ids = frozenset(end_ids)

    @property
    def supervised(self) -> bool:
        """Whether the teacher's answers are scored in every step."""
        return self.always_supervised or self.recipe.sft_weight > 0

    def samples_in_step(self, step: int) -> bool:
        """Whether the requests of the groups of optimiser step `step` (0, 1, ...) are sampled."""
        return True

    def teaches(self, outcome: Outcome) -> bool:
        """Whether a group gives a gradient; if not, the recipe may have another group sampled in its place."""
        return True

    def log_figures(self, sums: dict[str, float]) -> dict[str, float]:
        """The figures of a step for the log, from the sums of its notes; override it for figures that are not sums."""
        return sums

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """What to sample for one group; nothing unless the method samples."""
        return []

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """What to learn from a group's samples.

        Args:
            samples: in the order of `requests`.
            rewards: one for each; NaN where it could not be scored, zeros without a reward.
            teachers: tokens of the teacher's answer to each.
            turn: differs from group to group, for ties.
        """
        return Outcome(0)

    def batch(
        self, rows: Sequence[AlignmentRow], outcomes: Sequence[Outcome], responder: ResponseTokens
    ) -> StepBatch:
        """Clips and answers of a batch; at least one prompt has audio."""
        batch = assemble_batch(
            rows,
            [pair for outcome in outcomes for pair in outcome.pairs],
            [group for outcome in outcomes for group in outcome.rated],
            responder if self.supervised else None,
            sum(outcome.items for outcome in outcomes),
        )
        # without any audio the projector would take no part in the step, and processes would not all do the same
        spare = AnswerTokens(rows[0], responder(rows[0].response))
        if all(as_text for _, as_text in batch.prompts):
            batch.add(spare)  # an answer that plays no role
        return batch

    def targets(self, batch: StepBatch, frozen_models: FrozenModels) -> StepTargets:
        """What the responses are compared with: the reference's log-probabilities of pairs and rated samples."""
        places = sorted({*batch.chosen, *batch.rejected, *batch.rated})
        if not places or not self.recipe.uses_reference:
            return StepTargets()
        scores = frozen_models.reference(batch, places)
        return StepTargets(reference=spread_logprobs(batch, places, scores.logprobs))

    def counts(self, batch: StepBatch, frozen_models: FrozenModels) -> dict[str, int]:
        """Everything that `loss` divides by, as far as it is in this batch; the same names for every batch.

        The sums over all batches of an optimiser step, those of other processes too, come back in `Step.counts`.
        """
        return {
            "teacher": len(batch.teacher),
            "teacher_tokens": batch.length(batch.teacher),
            "items": batch.items,
            "pairs": len(batch.pairs),
            "rated": len(batch.rated),
        }

    def group_requests(self, rows: Sequence[AlignmentRow], full: bool) -> list[SampleRequest]:
        """Requests for the clips of one group; `full`: as many as voices_per_group, repeated if need be."""
        recipe = self.recipe
        clips = rows[: recipe.voices_per_group]
        size = recipe.voices_per_group if full else len(clips)
        return sample_requests(clips, size, recipe.samples_per_clip, recipe.temperatures)

    @abstractmethod
    def loss(self, step: Step) -> Terms:
        """A batch's share of the step's loss: sums over `step.counts`, never over what this batch alone holds."""

    def combine(self, step: Step, loss: Tensor, notes: Mapping[str, float]) -> Terms:
        """The method's own loss with the recipe's share of cross entropy, which is noted too."""
        supervision = self.supervision(step)
        notes = {**notes, "sft": float(supervision.detach())}
        return Terms(loss + self.recipe.sft_weight * supervision, notes)

    def supervision(self, step: Step) -> Tensor:
        """Cross entropy of the teacher's answers; 0 where they are not scored.

        With `sft_reduction: sequence` nats an answer, summed over its tokens (RBA Eq. (1)), mean over clips; with
        `token` nats a token, mean over all tokens of the step.
        """
        places = step.batch.teacher
        if self.recipe.sft_reduction == "sequence":
            return step.mean(-step.sequence(places), "teacher")
        values, mask = step.pick(step.scores.logprobs, places), step.pick(step.scores.mask, places)
        return token_mean(-values, mask, step.counts["teacher_tokens"])


def spread_logprobs(batch: StepBatch, places: Sequence[int], logprobs: Tensor) -> Tensor:
    """[N, L] token log-probabilities of all responses, zeros but for the rows `logprobs` of the distinct `places`."""
    longest = max(len(response.tokens) for response in batch.responses)
    full = logprobs.new_zeros(len(batch.responses), longest)
    full[torch.tensor(places, device=full.device), : logprobs.shape[1]] = logprobs
    return full
