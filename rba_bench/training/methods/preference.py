"""Losses on pairs: RBA-Single, RBA-Group, DPO, CPO, SPIN, ODPO, TDPO, IPO, SimPO.

They differ in where pairs come from (`pairs`), in what is compared (with or without a reference, sums or means, an
offset by the reward gap, per-token divergences) and in how much of the teacher's cross entropy stands beside it
(`sft_weight`).
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.batch import StepBatch
from rba_bench.training.methods.base import Aim, Method, Step, Terms, Tools, reference_logprobs, shape
from rba_bench.training.methods.measure import Divergence
from rba_bench.training.methods.outcome import Outcome
from rba_bench.training.objectives.preference import ipo, odpo, preference, simpo, tdpo
from rba_bench.training.pairs import Answer, Pair, Sample, Voice, group_pair, single_pair, slots
from rba_bench.training.targets import StateTargets


class Preference(Method):
    """L = preference(y+, y-) + w x SFT(y*), RBA Eq. (5) and its relatives.

    The mean is over all possible pairs: items whose samples were equally good have none and weigh as zero, instead of
    boosting the others.
    """

    def requests(self, rows: Sequence[AlignmentRow]) -> list[Voice]:
        """One sample a clip for pairs with the teacher; a full group for best against worst."""
        recipe = self.recipe
        size = recipe.voices_per_group
        if recipe.pairs == "single" or recipe.group_by == "clip":
            size = min(size, len(rows))
        return slots(rows[: recipe.voices_per_group], size, recipe.samples_per_clip, recipe.temperatures)

    def outcome(
        self,
        samples: Sequence[Sample],
        rewards: Sequence[float],
        teachers: Sequence[tuple[int, ...]],
        turn: int,
    ) -> Outcome:
        """Pairs of one group."""
        if self.recipe.pairs == "single":
            made = [single_pair(one, teacher) for one, teacher in zip(samples, teachers, strict=True)]
            return Outcome(len(samples), [pair for pair in made if pair is not None])
        found = []
        groups = weighed_together(samples, self.recipe.group_by)
        for members in groups:
            pair = group_pair(
                [samples[i] for i in members],
                [rewards[i] for i in members],
                self.recipe.reward.min_gap,
                turn,
            )
            found += [] if pair is None else [heard_as(pair, self.recipe.pair_audio)]
        return Outcome(len(groups), found)

    def aim(self, batch: StepBatch, tools: Tools) -> Aim:
        """The reference's log-probabilities of the pairs."""
        places = [*batch.chosen, *batch.rejected]
        if not places or not self.recipe.uses_reference:
            return Aim()
        return Aim(reference=reference_logprobs(batch, places, tools, shape(batch)))

    def loss(self, step: Step) -> Terms:
        """See the class."""
        batch = step.batch
        pairs = step.mean(self.losses(step), "items")
        supervision = self.supervision(step)
        notes = {"preference": float(pairs.detach()), "sft": float(supervision.detach())}
        if batch.chosen:
            margin = (step.sequence(batch.chosen) - step.sequence(batch.rejected)).detach()
            notes["margin"] = float(step.mean(margin, "pairs"))
            notes["accuracy"] = float(step.mean((margin > 0).float(), "pairs"))
        return Terms(pairs + self.recipe.sft_weight * supervision, notes)

    def losses(self, step: Step) -> Tensor:
        """[P] loss of each pair: the log-ratios' (without a reference: log-probabilities') difference.

        DPO (Rafailov et al. 2023, Eq. 7) and SPIN (arXiv 2401.01335, Eq. 4.7 with the logistic loss, as released) with
        their references, CPO and RBA without. SPIN differs from DPO in where y- and the reference come from.
        """
        chosen, rejected = self.ratios(step)
        return preference(chosen, rejected, self.recipe.beta)

    def ratios(self, step: Step, normalized: bool | None = None) -> tuple[Tensor, Tensor]:
        """[P] log pi/ref of chosen and rejected answers."""
        batch = step.batch
        chosen = step.sequence(batch.chosen, normalized) - step.reference(batch.chosen, normalized)
        rejected = step.sequence(batch.rejected, normalized) - step.reference(batch.rejected, normalized)
        return chosen, rejected


class Odpo(Preference):
    """DPO with an offset that grows with the reward gap (Amini et al. 2024)."""

    def losses(self, step: Step) -> Tensor:
        """[P]."""
        options = self.recipe.preference
        chosen, rejected = self.ratios(step)
        gaps = chosen.new_tensor([pair.gap for pair in step.batch.pairs])
        return odpo(chosen, rejected, self.recipe.beta, gaps, options.odpo_alpha, options.odpo_scale)


class Ipo(Preference):
    """IPO on mean log-ratios (Azar et al. 2023)."""

    def losses(self, step: Step) -> Tensor:
        """[P]."""
        return ipo(*self.ratios(step, normalized=True), self.recipe.beta)


class Simpo(Preference):
    """SimPO (Meng et al. 2024)."""

    def losses(self, step: Step) -> Tensor:
        """[P]."""
        batch = step.batch
        chosen, rejected = step.sequence(batch.chosen, True), step.sequence(batch.rejected, True)
        return simpo(chosen, rejected, self.recipe.beta, self.recipe.preference.simpo_gamma)


class TokenDpo(Preference):
    """TDPO (Zeng et al. 2024): DPO and the difference of the sides' sequential divergences from the reference."""

    def aim(self, batch: StepBatch, tools: Tools) -> Aim:
        """Log-probabilities and whole distributions of the reference."""
        places = sorted({*batch.chosen, *batch.rejected})
        if not places:
            return Aim()
        found = tools.reference(batch, places, want=("hidden",))
        logprobs = found.logprobs.new_zeros(shape(batch))
        logprobs[places, : found.logprobs.shape[1]] = found.logprobs
        targets = StateTargets(tuple(places), found.hidden[found.mask], tools.reference_head)
        return Aim(targets, Divergence("forward"), logprobs)

    def losses(self, step: Step) -> Tensor:
        """[P]."""
        batch, options = step.batch, self.recipe.preference
        chosen, rejected = self.ratios(step, normalized=False)
        if not batch.chosen:
            return chosen
        far = step.scores.divergence
        return tdpo(
            chosen,
            rejected,
            self.recipe.beta,
            chosen_kl=step.pick(far, batch.chosen),
            chosen_mask=step.pick(step.scores.mask, batch.chosen),
            rejected_kl=step.pick(far, batch.rejected),
            rejected_mask=step.pick(step.scores.mask, batch.rejected),
            alpha=None if options.tdpo_version == 1 else options.tdpo_alpha,
        )


def heard_as(pair: Pair, audio: str) -> Pair:
    """The pair with both sides on one clip: `chosen`'s or `rejected`'s; `own` leaves each on its own."""
    if audio == "own":
        return pair
    side = pair.chosen if audio == "chosen" else pair.rejected
    chosen = Answer(side.row, pair.chosen.tokens, side.as_text)
    return replace(pair, chosen=chosen, rejected=Answer(side.row, pair.rejected.tokens, side.as_text))


def weighed_together(samples: Sequence[Sample], group_by: str) -> list[list[int]]:
    """Positions of samples that are compared: all of the instruction, or those of each clip."""
    if group_by == "instruction":
        return [list(range(len(samples)))]
    clips: dict[str, list[int]] = {}
    for index, one in enumerate(samples):
        clips.setdefault(one.row.id, []).append(index)
    return list(clips.values())
