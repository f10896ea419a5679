"""Tokens and operations of one optimiser step, by recipe.

A product of a vector with P parameters takes 2 P operations; so does the gradient of its input, and that of its
weights. Attention over a context of S tokens takes 4 x width x S / 2 a layer and token more (two products, causal).
"""

from dataclasses import dataclass

from rba_bench.training.model.policy import CHUNK_ELEMENTS
from rba_bench.training.planning.assumptions import Assumptions
from rba_bench.training.planning.data import Data
from rba_bench.training.planning.shapes import Shape, text_parameters
from rba_bench.training.recipe import TrainingRecipe

TEACHER_TURN = 60  # tokens of a transcript with its template


@dataclass(frozen=True)
class Step:
    """What one optimiser step holds, over all devices.

    Attributes:
        clips: distinct clips that answers are scored on.
        scored: answers scored by the policy.
        positions: tokens that pass the decoder with gradient: prompts and answers.
        answer_tokens: of these, tokens of answers.
        samples: answers sampled, those drawn anew with them.
        sample_tokens: mean length of a sample.
        prompt: tokens of a prompt.
        frames: encoder states of all clips.
        train: operations with gradient: encoder, decoder, head.
        other: operations of reference, teacher and reward.
        prefill: operations of reading the prompts that are sampled on.
    """

    clips: int
    scored: float
    positions: float
    answer_tokens: float
    samples: float
    sample_tokens: float
    prompt: float
    frames: float
    train: float
    other: float
    prefill: float


def drawn(recipe: TrainingRecipe, voices: int) -> int:
    """Samples of one group, as the methods ask for them (see `pairs.slots`)."""
    if not recipe.uses_rollout:
        return 0
    filled = recipe.compares_samples and recipe.group_by == "instruction"
    size = recipe.voices_per_group if filled else voices
    count = max(size, recipe.samples_per_clip * min(voices, size))
    if recipe.kind == "policy-gradient" and recipe.policy_gradient.baseline == "modality":
        count *= 2
    return count + voices if recipe.method == "scst" else count


def scored(recipe: TrainingRecipe, voices: int) -> tuple[float, float, int]:
    """Answers of one group that the policy scores: teacher's, sampled; and the clips that they are answers to."""
    teachers = float(voices) if recipe.sft_weight > 0 else 0.0
    if recipe.kind == "likelihood" or recipe.method in ("kd", "diva"):
        return float(voices), 0.0, voices
    if recipe.method == "gkd":
        own = recipe.student_fraction
        return teachers + (1 - own) * voices, own * drawn(recipe, voices), voices
    if recipe.kind == "policy-gradient":
        greedy = voices if recipe.method == "scst" else 0
        return teachers, float(drawn(recipe, voices) - greedy), voices
    if recipe.pairs_file is not None:
        return max(teachers, 1.0) + 1.0, 0.0, voices
    if recipe.pairs == "single":
        return float(voices), float(drawn(recipe, voices)), voices
    pairs = 1 if recipe.group_by == "instruction" else voices
    return teachers, 2.0 * pairs, voices if teachers else min(voices, 2 * pairs)


def step_of(recipe: TrainingRecipe, shape: Shape, data: Data, assumed: Assumptions) -> Step:
    """Everything of a step.

    Raises:
        MissingPrerequisite: how large the reward model or the teacher is cannot be known.
    """
    groups, voices = recipe.groups_per_step, data.voices
    teachers, sampled, clips = scored(recipe, voices)
    sample_tokens = float(min(recipe.max_new_tokens, data.answer_tokens))
    heard = 30.0 if shape.padded or not recipe.true_length else data.seconds
    # a padded model reads 30 s of audio tokens; the others only have their encoder padded
    prompt = assumed.text_tokens + shape.audio_rate * (30.0 if shape.padded else data.seconds)
    answers = teachers + sampled
    answer_tokens = teachers * data.answer_tokens + sampled * sample_tokens
    prompts = answers if recipe.layout == "pad" else clips
    positions = groups * (prompts * prompt + answer_tokens)
    frames = groups * clips * heard * 50
    again = 1 + (
        assumed.redraws if recipe.kind == "policy-gradient" and recipe.policy_gradient.resample else 0
    )
    samples = groups * drawn(recipe, voices) * again
    context = prompt + (answer_tokens / max(answers, 1))
    forward = (
        positions * decoder(shape, context) + groups * answer_tokens * 2 * shape.vocabulary * shape.hidden
    )
    return Step(
        groups * clips,
        groups * answers,
        positions,
        groups * answer_tokens,
        samples,
        sample_tokens,
        prompt,
        frames,
        _with_gradient(recipe, shape, positions, groups * answer_tokens, context)
        + _encoder(recipe, shape, frames),
        _others(recipe, shape, data, assumed, forward, samples, sample_tokens, groups * answer_tokens),
        samples * prompt * decoder(shape, prompt),
    )


def decoder(shape: Shape, context: float) -> float:
    """Operations of a token through the decoder, without head, in a context of so many tokens."""
    tied_head = 0 if shape.embedding else shape.vocabulary * shape.hidden
    inner = shape.llm - 2 * shape.embedding if shape.embedding else shape.llm - tied_head
    return 2.0 * inner + 4.0 * shape.layers * shape.attention * context / 2


def _with_gradient(
    recipe: TrainingRecipe, shape: Shape, positions: float, answers: float, context: float
) -> float:
    """Decoder and head: forward, gradients of inputs, and of weights where they train."""
    plain = decoder(shape, context)
    whole = "llm" in recipe.train_parts and recipe.lora is None
    weights = 2.0 * sum(shape.adapters) * 2 if recipe.lora is not None else (plain if whole else 0.0)
    again = plain if recipe.gradient_checkpointing else 0.0
    head = 2.0 * shape.vocabulary * shape.hidden
    remade = head if answers * shape.vocabulary > CHUNK_ELEMENTS else 0.0
    return positions * (2 * plain + weights + again) + answers * (
        2 * head + remade + (head if whole else 0.0)
    )


def _encoder(recipe: TrainingRecipe, shape: Shape, frames: float) -> float:
    """Encoder and projector; a frozen encoder without its cache, once a clip."""
    times = 1 if recipe.encoder_frozen else 3
    return 2.0 * frames * (times * shape.encoder + 3 * shape.projector * shape.audio_rate / 50)


def _others(
    recipe: TrainingRecipe,
    shape: Shape,
    data: Data,
    assumed: Assumptions,
    forward: float,
    samples: float,
    sample_tokens: float,
    answer_tokens: float,
) -> float:
    """Reference, teacher and reward model."""
    found = forward if recipe.uses_reference and recipe.pairs_file is None else 0.0
    if recipe.kind == "distillation" and not (recipe.method == "kd" and recipe.teacher.top_k):
        turns = recipe.groups_per_step * TEACHER_TURN
        found += 2.0 * teacher_parameters(recipe, shape, assumed) * (turns + answer_tokens)
    if recipe.uses_reward:
        found += 2.0 * reward_parameters(recipe, assumed) * samples * (TEACHER_TURN + sample_tokens)
    return found


def teacher_parameters(recipe: TrainingRecipe, shape: Shape, assumed: Assumptions) -> float:
    """Of the text teacher; 0 where there is none."""
    if recipe.kind != "distillation":
        return 0.0
    if assumed.teacher_parameters or recipe.teacher.model == "self":
        return assumed.teacher_parameters or float(shape.llm)
    return float(text_parameters(recipe.teacher.model, "teacher_parameters"))


def reward_parameters(recipe: TrainingRecipe, assumed: Assumptions) -> float:
    """Of the local models that judge samples of some kind; 0 for rewards that are computed."""
    if not recipe.uses_reward:
        return 0.0
    options = recipe.reward
    kinds = {kind for one in recipe.alignment_sets for kind in one.kinds or ("instruct", "qa", "s2tt")}
    names = {name for kind in kinds for name in options.weights_for(kind)}
    if assumed.reward_parameters:
        return assumed.reward_parameters
    found = 0.0
    if "reward-model" in names:
        found += text_parameters(options.model, "reward_parameters")
    if "teacher-logprob" in names:
        found += text_parameters(options.teacher, "reward_parameters")
    return found
