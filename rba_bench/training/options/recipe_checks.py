"""Keys of a recipe without effect: those that its method does not read, and values that cannot work in its steps.

Each gets one line before a run starts. Nothing is refused here: a recipe for several methods may have keys of only some
of them. Contradictions are refused by `training_recipe`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from rba_bench.recipes import Recipe
from rba_bench.training.options.presets import CLIPPED, PRESETS
from rba_bench.training.training_recipe import Kind, TrainingRecipe

NEARLY_ALL = 0.8  # a warm-up of more than this share of the steps gets a warning


@dataclass(frozen=True)
class KeyCondition:
    """Keys, and the condition under which a recipe reads them.

    Attributes:
        keys: names with dots; the name of a section stands for all keys in it.
        met: whether the recipe reads them.
        why: the reason where it does not.
    """

    keys: tuple[str, ...]
    met: Callable[[TrainingRecipe], bool]
    why: str


def _for(*methods: str) -> Callable[[TrainingRecipe], bool]:
    return lambda recipe: recipe.method in methods


def _scores_rewards(recipe: TrainingRecipe) -> bool:
    return recipe.uses_reward or (_validates(recipe) and recipe.validation.metric == "reward")


def _validates(recipe: TrainingRecipe) -> bool:
    return recipe.eval_every > 0 or recipe.validate_ends


def _samples_answers(recipe: TrainingRecipe) -> bool:
    """Whether the run samples answers: for the method, or for validation."""
    return (
        recipe.uses_rollout
        or recipe.validate_ends
        or (_validates(recipe) and recipe.validation.metric == "reward")
    )


def _rewards_with(*names: str) -> Callable[[TrainingRecipe], bool]:
    """Whether one of these rewards scores any kind of item."""
    kinds = get_args(Kind)
    return lambda recipe: any(name in recipe.reward.weights_for(kind) for kind in kinds for name in names)


def _trains(part: str) -> KeyCondition:
    return KeyCondition(
        (f"learning_rates.{part}",),
        lambda recipe: part in recipe.train_parts,
        f"train_parts does not name {part}",
    )


# In this order: the first condition that is not met gives the reason
KEY_CONDITIONS = (
    KeyCondition(("steps",), lambda r: r.epochs is None, "epochs decides the number of steps"),
    KeyCondition(
        ("beta", "preference", "preference_reduction"),
        lambda r: r.kind == "preference",
        "it has no preference term",
    ),
    KeyCondition(("policy_reduction",), lambda r: r.kind == "policy-gradient", "it has no policy gradient"),
    KeyCondition(("distillation_reduction",), _for("kd", "gkd"), "it does not learn distributions"),
    KeyCondition(("sft_reduction",), lambda r: r.kind == "likelihood" or r.sft_weight > 0, "sft_weight is 0"),
    KeyCondition(("sft_weight",), lambda r: r.kind != "likelihood", "cross entropy is its whole loss"),
    KeyCondition(
        ("pairs", "pair_audio"),
        lambda r: r.kind == "preference" and r.pairs_file is None,
        "it samples no pairs",
    ),
    KeyCondition(
        ("pair_audio",), lambda r: r.pairs == "group", "both sides of its pairs are scored on one clip"
    ),
    KeyCondition(
        ("reference",), lambda r: r.uses_reference or r.reference == "none", "it compares with no reference"
    ),
    KeyCondition(("opponent_every",), lambda r: r.has_opponent, "its reference is not an opponent"),
    KeyCondition(("preference.simpo_gamma",), _for("simpo"), "only simpo uses it"),
    KeyCondition(("preference.odpo_alpha", "preference.odpo_scale"), _for("odpo"), "only odpo uses it"),
    KeyCondition(("preference.tdpo_alpha", "preference.tdpo_version"), _for("tdpo"), "only tdpo uses it"),
    KeyCondition(("policy_gradient",), lambda r: r.kind == "policy-gradient", "it has no policy gradient"),
    KeyCondition(("policy_gradient.mrt_sharpness",), _for("mrt"), "only mrt uses it"),
    KeyCondition(
        tuple(
            f"policy_gradient.{key}" for key in ("clip_low", "clip_high", "kl_weight", "scale", "baseline")
        ),
        _for(*CLIPPED),
        "only grpo, dapo and tars use it",
    ),
    KeyCondition(
        ("policy_gradient.scale",),
        lambda r: r.policy_gradient.baseline != "leave-one-out",
        "baseline leave-one-out is not scaled",
    ),
    KeyCondition(("teacher.answers",), _for("blsp", "audiochatllama"), "it trains on the answers of its set"),
    KeyCondition(("teacher.answers.prompt",), _for("blsp"), "its LLM answers the transcript alone"),
    KeyCondition(
        ("teacher.answers.top_p",), lambda r: r.teacher.answers.temperature > 0, "answers are greedy"
    ),
    KeyCondition(
        ("teacher.hidden_weight", "teacher.words_weight", "hidden_positions"),
        _for("diva"),
        "only diva compares states",
    ),
    KeyCondition(
        tuple(f"teacher.{key}" for key in ("divergence", "jsd_weight", "temperature", "end_weight")),
        _for("kd", "gkd"),
        "it does not learn distributions",
    ),
    KeyCondition(
        ("teacher.jsd_weight",), lambda r: r.teacher.divergence == "jsd", "teacher.divergence is not jsd"
    ),
    KeyCondition(
        tuple(f"teacher.{key}" for key in ("top_k", "kept_as", "folder", "memory_mb")),
        _for("kd"),
        "its teacher computes every step",
    ),
    KeyCondition(
        tuple(f"teacher.{key}" for key in ("kept_as", "folder", "memory_mb")),
        lambda r: r.teacher.top_k > 0,
        "teacher.top_k 0 keeps nothing",
    ),
    KeyCondition(
        ("teacher.model", "teacher.template", "teacher.batch_tokens"),
        lambda r: r.kind == "distillation",
        "it uses no text teacher",
    ),
    KeyCondition(("teacher.template",), lambda r: r.teacher.model != "self", "teacher.model is self"),
    KeyCondition(("student_fraction",), _for("gkd"), "only gkd samples in a share of the steps"),
    KeyCondition(
        ("temperature", "samples_per_clip", "refresh_every", "truncated"),
        lambda r: r.uses_rollout,
        "it samples nothing",
    ),
    KeyCondition(("rollout",), lambda r: r.uses_rollout, "it samples nothing"),
    KeyCondition(("max_new_tokens", "rollout_batch"), _samples_answers, "it samples nothing"),
    KeyCondition(
        ("group_by",),
        lambda r: r.compares_samples or r.method == "scst",
        "it does not compare samples of a group",
    ),
    KeyCondition(("reward",), _scores_rewards, "it uses no reward"),
    KeyCondition(
        ("reward.min_gap",), lambda r: r.kind == "preference" and r.pairs == "group", "it picks no pairs"
    ),
    KeyCondition(
        ("reward.model", "reward.output", "reward.max_length"),
        _rewards_with("reward-model"),
        "no kind is rewarded by reward-model",
    ),
    KeyCondition(
        ("reward.teacher", "reward.teacher_template"),
        _rewards_with("teacher-logprob", "teacher-logprob-mean"),
        "no kind is rewarded by teacher-logprob",
    ),
    KeyCondition(
        ("reward.similarity_model", "reward.similarity_prompt"),
        _rewards_with("similarity"),
        "no kind is rewarded by similarity",
    ),
    KeyCondition(
        ("reward.judge", "reward.judge_template", "reward.judge_max_tokens", "reward.judge_patience"),
        _rewards_with("judge"),
        "no judge is used",
    ),
    KeyCondition(("reward.judge_reference",), _rewards_with("judge", "self-judge"), "no judge is used"),
    KeyCondition(("validation", "batch_size"), _validates, "nothing is validated"),
    *map(_trains, ("encoder", "projector", "llm")),
    KeyCondition(
        ("learning_rate",),
        lambda r: any(getattr(r.learning_rates, part) is None for part in r.train_parts),
        "learning_rates names one for every part that trains",
    ),
    KeyCondition(
        ("cache_mb", "encoder_cache"),
        lambda r: r.encoder_frozen,
        "the encoder trains, so its states are never kept",
    ),
)


def unread_keys(recipe: TrainingRecipe) -> list[str]:
    """One line for each reason why keys that the recipe sets are not read; keys at their defaults are not listed."""
    reduction = PRESETS[recipe.method].reduction  # other defaults depend on it
    alike = {"method": recipe.method, reduction: getattr(recipe, reduction)}
    plain = dict(_leaves(TrainingRecipe.model_validate(alike)))
    plain[reduction] = getattr(TrainingRecipe(method=recipe.method), reduction)
    changed = [key for key, value in _leaves(recipe) if plain.get(key, value) != value]
    reasons: dict[str, list[str]] = {}
    for key in changed:
        unmet = (
            condition
            for condition in KEY_CONDITIONS
            if any(key == name or key.startswith(f"{name}.") for name in condition.keys)
            and not condition.met(recipe)
        )
        if (condition := next(unmet, None)) is not None:
            reasons.setdefault(condition.why, []).append(key)
    return [f"{recipe.method} does not read {', '.join(keys)}: {why}" for why, keys in reasons.items()]


def idle_values(recipe: TrainingRecipe) -> list[str]:
    """One line for each value that cannot do what it is for within the run's steps; `steps` must be final."""
    steps, warmup, renewed = recipe.steps, recipe.warmup_steps, recipe.opponent_every
    patience, samples = recipe.validation.patience, recipe.voices_per_group * recipe.samples_per_clip
    opponent = recipe.has_opponent
    checks = (
        (
            warmup >= steps,
            f"warmup_steps {warmup} is not below steps {steps}: the learning rate never reaches its full value",
        ),
        (
            steps > warmup > NEARLY_ALL * steps,
            f"warmup_steps {warmup} leaves {steps - warmup} of {steps} steps at the full learning rate: lower it, or "
            "raise steps",
        ),
        (
            recipe.eval_every > steps,
            f"eval_every {recipe.eval_every} is above steps {steps}: the run has no validation between start and end",
        ),
        (
            recipe.eval_every > 0 and patience is not None and patience >= steps // recipe.eval_every,
            f"validation.patience {patience} never ends the run: it is validated {steps // max(recipe.eval_every, 1)} "
            "times; lower it or eval_every",
        ),
        (
            recipe.uses_rollout and recipe.refresh_every > steps,
            f"refresh_every {recipe.refresh_every} is above steps {steps}: all samples come from the untrained model",
        ),
        (
            opponent and renewed >= steps,
            f"opponent_every {renewed} is not below steps {steps}: the opponent stays the base model",
        ),
        (
            recipe.uses_rollout and len(recipe.temperatures) > samples,
            f"temperature names {len(recipe.temperatures)} values, but a group has {samples} samples: the last values "
            "are never used; raise samples_per_clip",
        ),
    )
    return [line for is_so, line in checks if is_so]


def thin_groups(voices: Sequence[int] | np.ndarray, recipe: TrainingRecipe) -> list[str]:
    """Lines on a set that has less than the recipe wants; `voices` are the numbers of clips of its training groups."""
    size, count = recipe.voices_per_group, len(voices)
    numbers = np.asarray(voices)
    fewer = numbers[numbers < size]
    lines = []
    if len(fewer):
        filled = recipe.compares_samples and recipe.group_by == "instruction"
        then = "clips are sampled several times to fill them" if filled else "they give fewer clips a step"
        lines.append(
            f"voices_per_group {size}: {len(fewer):,} of {count:,} groups have fewer voices "
            f"(the fewest {fewer.min()}); {then}"
        )
    if recipe.groups_per_step > count:
        lines.append(
            f"groups_per_step {recipe.groups_per_step} is above the {count:,} groups of the set: a step holds some of "
            "them twice"
        )
    return lines


def _leaves(recipe: Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots and their values; what is not a section is one value."""
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if isinstance(value, Recipe):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
