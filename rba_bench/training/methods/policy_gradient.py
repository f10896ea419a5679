"""Policy gradients on rewarded samples: GRPO, DAPO, TARS, self-critical training, minimum risk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.pairs import Outcome, Sample, SampleRequest, ScoredSample, Tokens, answer_tokens
from rba_bench.training.losses import policy_gradient as losses
from rba_bench.training.losses.likelihood import sequence_mean, token_mean
from rba_bench.training.methods.method import FrozenModels, Method, Step, Terms
from rba_bench.training.methods.preference import comparison_groups

LARGEST_RATIO = 1e6  # cap of the importance weights in the log


class PolicyGradient(Method):
    """What these methods share: samples without a reward take no part, and advantages are computed within each group.

    Policy and reference score samples at their sampling temperature, because only then the gradient is that of the
    expected reward.

    A sample that was cut off takes, with `truncated: mask`, part in its group's baseline but not in the loss (DAPO's
    overlong filtering, arXiv 2503.14476, section 3.4; its tokens are not counted either); with `drop` in neither.
    """

    extra_outputs: tuple[str, ...] = ("entropy",)
    old_logprobs = True

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """A full group: over the voices of an instruction, or several samples of each clip."""
        return self.group_requests(rows, full=self.recipe.group_by == "instruction")

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """Samples with their advantages."""
        groups = []
        for members in comparison_groups(samples, self.recipe.group_by):
            judged = [i for i in members if not math.isnan(rewards[i]) and self._in_baseline(samples[i])]
            rated = self.rate([samples[i] for i in judged], [rewards[i] for i in judged])
            rated = [sample for sample in rated if self._in_loss(sample)]
            groups += [rated] if rated else []
        return Outcome(sum(len(group) for group in groups), rated=groups)

    def teaches(self, outcome: Outcome) -> bool:
        """Whether any sample of the group counts in the loss."""
        return bool(outcome.rated)

    def weights(self, step: Step, cap: float) -> torch.Tensor:
        """[Q, L] importance weights of the samples, at most `cap`: policy now over policy at sampling time."""
        new = step.pick(step.scores.logprobs, step.batch.rated)
        mask = step.pick(step.scores.mask, step.batch.rated)
        return losses.importance_weights(new, _sampling_logprobs(step.batch, new), mask, cap)

    def token_notes(self, step: Step) -> dict[str, float]:
        """Figures of the sampled tokens for the log.

        Means of the importance weights (not truncated), of their squares, of how many were truncated, of the entropy.
        """
        mask, ratio = step.pick(step.scores.mask, step.batch.rated), self.weights(step, LARGEST_RATIO)
        values_by_name = {
            "ratio": ratio,
            "ratio_square": ratio.square(),
            "ratio_capped": (ratio > self.recipe.policy_gradient.ratio_cap).to(ratio),
        }
        if step.scores.entropy.numel():
            values_by_name["entropy"] = step.pick(step.scores.entropy, step.batch.rated)
        return {
            name: float(token_mean(values, mask, step.counts["tokens"]))
            for name, values in values_by_name.items()
        }

    def log_figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Also the effective sample size of the importance weights, as a share: (mean w)^2 / mean w^2 (Kong 1992)."""
        square = sums.pop("ratio_square", 0.0)
        return {**sums, "effective_samples": sums["ratio"] ** 2 / square} if square else sums

    def rate(self, samples: Sequence[Sample], rewards: Sequence[float]) -> list[ScoredSample]:
        """Advantages within one group; by default none."""
        return [
            ScoredSample(answer_tokens(sample, sample.temperature or 1.0), reward, 0.0, sample.logprobs)
            for sample, reward in zip(samples, rewards, strict=True)
        ]

    def _in_baseline(self, sample: Sample) -> bool:
        """Whether a sample counts in the baseline of its group's advantages."""
        return sample.ended or self.recipe.truncated != "drop"

    def _in_loss(self, rated: ScoredSample) -> bool:
        """Whether a sample counts in the loss."""
        return self.recipe.truncated == "keep" or rated.answer.tokens[-1] in self.end_ids

    def counts(self, batch: StepBatch, frozen_models: FrozenModels) -> dict[str, int]:
        """Also tokens of samples."""
        return {**super().counts(batch, frozen_models), "tokens": batch.length(batch.rated)}

    def combine(self, step: Step, loss: torch.Tensor, notes: Mapping[str, float]) -> Terms:
        """Notes the method's own loss too."""
        return super().combine(step, loss, {"policy": float(loss.detach()), **notes})


class Grpo(PolicyGradient):
    """GRPO (Shao et al. 2024) and, normalised by tokens and clipped higher above, DAPO (Yu et al. 2025) and TARS.

    `policy_reduction: sequence` is GRPO's mean over answers of their means over tokens, `token` DAPO's over all tokens.

    DAPO also draws groups anew whose rewards are all equal (`policy_gradient.resample`), and punishes answers that come
    near the longest length (`.overlong_share`). TARS (Wang et al. 2026) adds to the reward of spoken answers what
    `trajectory` computes, and takes a mean for each modality.

    Each batch is used for one optimiser step. Where its samples come from the current policy, the ratio of the clip is
    1, and the truncated importance weight corrects for the engine that sampled them. Where they come from an older
    policy (`refresh_every`), the ratio is to that one, clipped, and truncated where the clip does not bound it.
    """

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """With a baseline for each modality, as many samples for the transcript as for the clips."""
        speech = super().requests(rows)
        if self.recipe.policy_gradient.baseline != "modality":
            return speech
        start = 1 + max(request.repeat for request in speech)
        return speech + [
            replace(request, repeat=start + index, row=rows[0], as_text=True)
            for index, request in enumerate(speech)
        ]

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """Also how much of their reward samples lose by their length."""
        outcome = super().outcome(samples, rewards, teachers, turn)
        if not samples or not self.recipe.overlong[1]:
            return outcome
        penalties = self._overlong(samples)
        return replace(outcome, stats={"overlong": sum(penalties) / len(penalties)})

    def rate(self, samples: Sequence[Sample], rewards: Sequence[float]) -> list[ScoredSample]:
        """Advantages of the rewards with their length penalties; none where equal rewards shall be sampled anew.

        DAPO compares the rewards without the length penalty (arXiv 2503.14476, Eq. 11).
        """
        if self.recipe.policy_gradient.resample and not any(
            sample.advantage for sample in self._with_advantages(samples, rewards)
        ):
            return []
        shaped = [reward + penalty for reward, penalty in zip(rewards, self._overlong(samples), strict=True)]
        scored = self._with_advantages(samples, shaped)
        return [replace(sample, reward=reward) for sample, reward in zip(scored, rewards, strict=True)]

    def _overlong(self, samples: Sequence[Sample]) -> list[float]:
        """The part of each sample's reward that its length takes away, never positive."""
        longest, cache = self.recipe.overlong
        if not cache:
            return [0.0] * len(samples)
        lengths = torch.tensor([len(sample.tokens) for sample in samples])
        weight = self.recipe.policy_gradient.overlong_weight
        return [weight * penalty for penalty in losses.overlong_punishment(lengths, longest, cache).tolist()]

    def _with_advantages(self, samples: Sequence[Sample], rewards: Sequence[float]) -> list[ScoredSample]:
        """Advantages as `policy_gradient.baseline` and `.scale` say."""
        if not samples:
            return []
        values, together = torch.tensor(rewards), torch.zeros(len(rewards), dtype=torch.long)
        options = self.recipe.policy_gradient
        if options.baseline == "modality":
            modality = torch.tensor([int(sample.as_text) for sample in samples])
            advantages = losses.modality_advantages(values, together, modality, scale=options.scale)
        elif options.baseline == "leave-one-out":
            advantages = losses.leave_one_out(values, together)
        else:
            advantages = losses.group_advantages(values, together, scale=options.scale)
        return [
            replace(sample, advantage=float(advantage))
            for sample, advantage in zip(super().rate(samples, rewards), advantages.tolist(), strict=True)
        ]

    def loss(self, step: Step) -> Terms:
        """See the class."""
        batch, options = step.batch, self.recipe.policy_gradient
        new = step.pick(step.scores.logprobs, batch.rated)
        mask = step.pick(step.scores.mask, batch.rated)
        advantage = new.new_tensor([sample.advantage for sample in batch.ratings])
        fresh = self.recipe.refresh_every == 1
        old = new.detach() if fresh else _sampling_logprobs(batch, new)
        clip = {"clip_low": options.clip_low, "clip_high": options.clip_high or 0.2}
        tokens = losses.clipped_ratio(new, old, advantage, mask, **clip, cap=options.ratio_cap)
        tokens = tokens * self.weights(step, options.ratio_cap) if fresh else tokens
        clipped = losses.beyond_clip(new, old, advantage, mask, **clip).to(new)
        notes = {**self.token_notes(step), "clipped": float(token_mean(clipped, mask, step.counts["tokens"]))}
        if step.targets.reference is not None:
            kl = losses.kl_estimate(new, step.pick(step.targets.reference, batch.rated), mask)
            tokens = tokens + options.kl_weight * kl
            notes["kl"] = float(token_mean(kl.detach(), mask, step.counts["tokens"]))
        if self.recipe.policy_reduction == "token":
            return self.combine(step, token_mean(tokens, mask, step.counts["tokens"]), notes)
        return self.combine(step, sequence_mean(tokens, mask, step.counts["rated"]), notes)


class SelfCritical(PolicyGradient):
    """SCST (Rennie et al. 2017): the reward of the greedy answer is the baseline of a clip's samples."""

    def requests(self, rows: Sequence[AlignmentRow]) -> list[SampleRequest]:
        """A greedy answer beside the samples of each clip."""
        sampled = super().requests(rows)
        clips = {request.row.id: request.row for request in sampled}
        return sampled + [SampleRequest(row, -1, 0.0) for row in clips.values()]

    def outcome(
        self, samples: Sequence[Sample], rewards: Sequence[float], teachers: Sequence[Tokens], turn: int
    ) -> Outcome:
        """Each sample against its clip's greedy answer; a clip without a judged one gives nothing."""
        judged = [
            (sample, reward)
            for sample, reward in zip(samples, rewards, strict=True)
            if not math.isnan(reward) and self._in_baseline(sample)
        ]
        baseline = {sample.row.id: reward for sample, reward in judged if sample.greedy}
        rated = [
            ScoredSample(
                answer_tokens(sample, sample.temperature or 1.0),
                reward,
                reward - baseline[sample.row.id],
                sample.logprobs,
            )
            for sample, reward in judged
            if not sample.greedy and sample.row.id in baseline
        ]
        rated = [sample for sample in rated if self._in_loss(sample)]
        return Outcome(len(rated), rated=[rated] if rated else [])

    def loss(self, step: Step) -> Terms:
        """-A log pi(y|x), mean over samples, or over their tokens, which only scales it.

        Token by token with its importance weight, where samples are older or from another engine.
        """
        ratings, logprobs = step.batch.ratings, step.scores.logprobs
        places = torch.tensor(step.batch.rated, dtype=torch.long, device=logprobs.device)
        importance = self.weights(step, self.recipe.policy_gradient.ratio_cap)
        weights = torch.ones_like(logprobs).index_copy(0, places, importance)
        scores = step.sequence(step.batch.rated, logprobs=logprobs * weights)
        rewards = scores.new_tensor([sample.reward for sample in ratings])
        greedy = scores.new_tensor([sample.reward - sample.advantage for sample in ratings])
        over = "tokens" if self.recipe.policy_reduction == "token" else "rated"
        loss = step.mean(losses.self_critical(scores, rewards, greedy), over)
        return self.combine(step, loss, self.token_notes(step))


class MinimumRisk(PolicyGradient):
    """MRT (Shen et al. 2016; Prabhavalkar et al. 2018): expected loss of reward over each clip's samples.

    The weights of a list's answers come from log-probabilities of whole answers, or from means over their tokens: with
    sums over long answers the likeliest answer has nearly all of the weight, whatever `mrt_sharpness` is.
    """

    extra_outputs = ()
    old_logprobs = False  # its weights do not depend on how the list was sampled

    def rate(self, samples: Sequence[Sample], rewards: Sequence[float]) -> list[ScoredSample]:
        """Each answer of the list once, scored at temperature 1: how it was sampled does not matter."""
        rated = reversed(super().rate(samples, rewards))
        distinct = {sample.answer.tokens: sample for sample in rated}
        plain = [
            replace(sample, answer=replace(sample.answer, temperature=1.0)) for sample in distinct.values()
        ]
        return list(reversed(plain))

    def loss(self, step: Step) -> Terms:
        """Mean over the lists."""
        batch = step.batch
        if not batch.rated:
            return self.combine(step, step.scores.logprobs.sum() * 0.0, {})  # no list
        alpha = self.recipe.policy_gradient.mrt_sharpness
        scores = step.sequence(batch.rated, self.recipe.policy_reduction)
        groups = torch.tensor(batch.groups, device=scores.device)
        rewards = scores.new_tensor([sample.reward for sample in batch.ratings])
        return self.combine(step, step.mean(losses.minimum_risk(scores, rewards, groups, alpha), "lists"), {})

    def counts(self, batch: StepBatch, frozen_models: FrozenModels) -> dict[str, int]:
        """Also lists."""
        return {**super().counts(batch, frozen_models), "lists": len(set(batch.groups))}


def _sampling_logprobs(batch: StepBatch, new: torch.Tensor) -> torch.Tensor:
    """[Q, L] log-probabilities with which the samples were drawn; those of now (`new`) where a sample carries none."""
    old = new.detach().clone()
    for row, sample in zip(old, batch.ratings, strict=True):
        row[: len(sample.logprobs)] = torch.tensor(sample.logprobs)
    return old
