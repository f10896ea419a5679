"""Losses on pairs: RBA-Single, RBA-Group, DPO, CPO, SPIN, ODPO, TDPO, IPO, SimPO.

They differ in where pairs come from (`pairs`), in what is compared (with or without a reference, sums or means over
tokens, an offset by the reward gap, per-token divergences) and in how much of the teacher's cross entropy stands beside
it (`sft_weight`).

A rejected sample that was cut off at `max_new_tokens` has no end token, while the chosen answer has one. Its sum of
log-probabilities lacks the missing rest, so it looks likelier than it is. `truncated` decides what then happens:

    mask  both answers are compared up to the length of the cut one: beginnings of one length, without an end token.
          Where a reward chooses, a cut sample takes no part: its reward is that of half an answer.
    drop  a cut sample is in no pair
    keep  a cut sample counts as if it were complete; it is never the best of its group
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StateTargets, StepBatch
from rba_bench.training.data.pairs import (
    AnswerTokens,
    Outcome,
    PreferencePair,
    Sample,
    SampleRequest,
    Tokens,
    group_pair,
    single_pair,
)
from rba_bench.training.losses.preference import ipo, odpo, preference_loss, simpo, tdpo
from rba_bench.training.methods.method import (
    FrozenModels,
    Method,
    Step,
    StepTargets,
    TeacherDivergence,
    Terms,
    spread_logprobs,
)


class Preference(Method):
    """L = preference(y+, y-) + w x SFT(y*), RBA Eq. (5) and its relatives.

    The mean is over all possible pairs: items whose samples were equally good have none and weigh as zero, instead of
    boosting the others.
    """

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """Samples of each clip for pairs with the teacher; a full group for best against worst."""
        return self.group_requests(rows, self.recipe.pairs != "single" and self.recipe.group_by != "clip")

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """Pairs of one group."""
        if self.recipe.pairs == "single":
            drop = self.recipe.truncated == "drop"
            pairs = [
                pair
                for sample, teacher in zip(samples, teachers, strict=True)
                if sample.ended or not drop
                if (pair := single_pair(sample, teacher)) is not None
            ]
            return Outcome(len(samples), pairs)
        pairs = []
        groups = comparison_groups(samples, self.recipe.group_by)
        if self.recipe.truncated != "keep":
            rewards = [
                reward if sample.ended else math.nan for sample, reward in zip(samples, rewards, strict=True)
            ]
        for members in groups:
            pair = group_pair(
                [samples[i] for i in members], [rewards[i] for i in members], self.recipe.reward.min_gap, turn
            )
            if pair is not None:
                pairs.append(on_one_clip(pair, self.recipe.pair_audio))
        return Outcome(len(groups), pairs)

    def loss(self, step: Step) -> Terms:
        """See the class."""
        batch = step.batch
        losses = self.losses(step)
        pairs = step.mean(losses, "items")
        notes = {"preference": float(pairs.detach())}
        if batch.chosen:
            chosen, rejected = self.scored(step, step.sequence)
            margin = (chosen - rejected).detach()
            notes["margin"] = float(step.mean(margin, "pairs"))
            notes["accuracy"] = float(step.mean((margin > 0).float(), "pairs"))
            if self.recipe.method != "ipo":  # a squared loss, which does not saturate
                notes["saturated"] = float(step.mean(saturated(losses.detach()).float(), "pairs"))
        return self.combine(step, pairs, notes)

    def losses(self, step: Step) -> Tensor:
        """[P] loss of each pair, of the difference of its log-ratios (without a reference: log-probabilities).

        - DPO (Rafailov et al. 2023, Eq. 7) and SPIN (arXiv 2401.01335, Eq. 4.7 with the logistic loss, as released)
          with their references, CPO and RBA without. SPIN differs from DPO in where y- and the reference come from.
        - ODPO (Amini et al. 2024): DPO with an offset that grows with the reward gap.
        - IPO (Azar et al. 2023), on mean log-ratios unless the recipe has sums.
        - SimPO (Meng et al. 2024).
        """
        method, beta, options = self.recipe.method, self.recipe.beta, self.recipe.preference
        if method == "ipo":
            return ipo(*self.ratios(step), beta)
        if method == "simpo":
            return simpo(*self.scored(step, step.sequence), beta, options.simpo_gamma)
        chosen, rejected = self.ratios(step)
        if method == "odpo":
            gaps = chosen.new_tensor([pair.gap for pair in step.batch.pairs])
            return odpo(chosen, rejected, beta, gaps, options.odpo_alpha, options.odpo_scale)
        return preference_loss(chosen, rejected, beta)

    def ratios(self, step: Step) -> tuple[Tensor, Tensor]:
        """[P] log pi/ref of chosen and rejected answers."""
        chosen, rejected = self.scored(step, step.sequence)
        reference = self.scored(step, step.reference)
        return chosen - reference[0], rejected - reference[1]

    def scored(self, step: Step, score: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        """[P] `score` of the chosen and of the rejected answers, over the tokens that are compared."""
        sides = zip((step.batch.chosen, step.batch.rejected), self.compared(step), strict=True)
        chosen, rejected = (score(places, self.recipe.preference_reduction, mask) for places, mask in sides)
        return chosen, rejected

    def compared(self, step: Step) -> tuple[Tensor, Tensor]:
        """[P, L] bool, the tokens of the chosen and of the rejected answers that are compared; see `truncated`."""
        batch = step.batch
        chosen, rejected = (step.pick(step.scores.mask, places) for places in (batch.chosen, batch.rejected))
        if self.recipe.truncated != "mask":
            return chosen, rejected
        lengths = [
            min(
                math.inf if answer.tokens[-1] in self.end_ids else len(answer.tokens)
                for answer in (pair.chosen, pair.rejected)
            )
            for pair in batch.pairs
        ]
        limits = torch.tensor(lengths, dtype=torch.float64, device=chosen.device)[:, None]
        before = torch.arange(chosen.shape[1], device=chosen.device) < limits
        return chosen & before, rejected & before


class TokenDpo(Preference):
    """TDPO (Zeng et al. 2024): DPO and the difference of the sides' sequential divergences from the reference."""

    def targets(self, batch: StepBatch, frozen_models: FrozenModels) -> StepTargets:
        """Log-probabilities and whole distributions of the reference."""
        places = sorted({*batch.chosen, *batch.rejected})
        if not places:
            return StepTargets()
        scores = frozen_models.reference(batch, places, extra_outputs=("hidden",))
        logprobs = spread_logprobs(batch, places, scores.logprobs)
        distributions = StateTargets(tuple(places), scores.hidden[scores.mask], frozen_models.reference_head)
        return StepTargets(distributions, TeacherDivergence("forward"), logprobs)

    def losses(self, step: Step) -> Tensor:
        """[P]."""
        batch, options = step.batch, self.recipe.preference
        chosen, rejected = self.ratios(step)
        if not batch.chosen:
            return chosen
        kl, masks = step.scores.divergence, self.compared(step)
        return tdpo(
            chosen,
            rejected,
            self.recipe.beta,
            chosen_kl=step.pick(kl, batch.chosen),
            chosen_mask=masks[0],
            rejected_kl=step.pick(kl, batch.rejected),
            rejected_mask=masks[1],
            alpha=None if options.tdpo_version == 1 else options.tdpo_alpha,
        )


def saturated(losses: Tensor, bound: float = 0.01) -> Tensor:
    """[P] bool: pairs on which a logistic loss no longer depends on how far the sides are apart.

    The loss -log sigmoid(z) has the slope sigmoid(-z) = 1 - exp(-loss). Below `bound` the pair is won and teaches
    nothing; above 1 - `bound` the slope is that of a straight line, the same for every lost pair. Both mean |z| > 4.6.

    Args:
        losses: [P] losses of pairs, nats.
        bound: distance of the slope from 0 or 1.
    """
    slope = -torch.expm1(-losses)
    return (slope < bound) | (slope > 1 - bound)


def on_one_clip(pair: PreferencePair, audio: str) -> PreferencePair:
    """The pair with both sides on one clip: `chosen`'s or `rejected`'s; `own` leaves each on its own."""
    if audio == "own":
        return pair
    side = pair.chosen if audio == "chosen" else pair.rejected
    chosen = AnswerTokens(side.row, pair.chosen.tokens, side.as_text)
    return replace(pair, chosen=chosen, rejected=AnswerTokens(side.row, pair.rejected.tokens, side.as_text))


def comparison_groups(samples: Sequence[Sample], group_by: str) -> list[list[int]]:
    """Positions of the samples that are compared with each other: all of the instruction, or those of each clip."""
    if group_by == "instruction":
        return [list(range(len(samples)))]
    clips: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        clips.setdefault(sample.row.id, []).append(index)
    return list(clips.values())
