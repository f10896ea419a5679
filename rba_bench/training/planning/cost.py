"""Tokens, operations and bytes of one optimiser step, from a recipe, a model's shape and lengths of the data.

Operations: a product of a vector with P parameters takes 2 P; so does the gradient of its input, and that of its
weights. Attention over a context of S tokens takes 4 x width x S / 2 for each layer and token (two products, causal).

Bytes are those on one device: weights, gradients, optimiser, reference, judges, activations, and keys and values of
sampling.
"""

from dataclasses import dataclass
from typing import get_args

from rba_bench.training.model.policy import CHUNK_ELEMENTS
from rba_bench.training.planning.assumptions import Assumptions, DataEstimate
from rba_bench.training.planning.shapes import ModelShape, text_parameters
from rba_bench.training.training_recipe import Kind, TrainingRecipe

TEACHER_TURN = 60  # tokens of a transcript with its template


@dataclass(frozen=True)
class StepCost:
    """Tokens and operations of one optimiser step, over all devices.

    Attributes:
        clips: distinct clips that answers are scored on.
        scored: answers scored by the policy.
        positions: tokens that pass the decoder with gradient: prompts and answers.
        answer_tokens: of these, tokens of answers.
        samples: answers sampled, those of groups sampled anew included.
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


def samples_per_group(recipe: TrainingRecipe, voices: int) -> int:
    """Samples of one group, as the methods request them (see `pairs.sample_requests`)."""
    if not recipe.uses_rollout:
        return 0
    full_groups = recipe.compares_samples and recipe.group_by == "instruction"
    size = recipe.voices_per_group if full_groups else voices
    count = max(size, recipe.samples_per_clip * min(voices, size))
    if recipe.kind == "policy-gradient" and recipe.policy_gradient.baseline == "modality":
        count *= 2
    return count + voices if recipe.method == "scst" else count


def scored_per_group(recipe: TrainingRecipe, voices: int) -> tuple[float, float, int]:
    """Numbers of one group: teacher's answers and sampled answers that the policy scores, and their clips."""
    teachers = float(voices) if recipe.sft_weight > 0 else 0.0
    if recipe.kind == "likelihood" or recipe.method in ("kd", "diva"):
        return float(voices), 0.0, voices
    if recipe.method == "gkd":
        share = recipe.student_fraction
        return teachers + (1 - share) * voices, share * samples_per_group(recipe, voices), voices
    if recipe.kind == "policy-gradient":
        greedy = voices if recipe.method == "scst" else 0
        return teachers, float(samples_per_group(recipe, voices) - greedy), voices
    if recipe.pairs_file is not None:
        return max(teachers, 1.0) + 1.0, 0.0, voices
    if recipe.pairs == "single":
        return float(voices), float(samples_per_group(recipe, voices)), voices
    pairs = 1 if recipe.group_by == "instruction" else voices
    return teachers, 2.0 * pairs, voices if teachers else min(voices, 2 * pairs)


def step_cost(
    recipe: TrainingRecipe, shape: ModelShape, data: DataEstimate, assumed: Assumptions
) -> StepCost:
    """Tokens and operations of a step.

    Raises:
        MissingPrerequisite: the size of the reward model or of the teacher is unknown.
    """
    groups, voices = recipe.groups_per_step, data.voices
    teachers, sampled, clips = scored_per_group(recipe, voices)
    sample_tokens = float(min(recipe.max_new_tokens, data.answer_tokens))
    seconds = 30.0 if shape.padded or not recipe.true_length else data.seconds
    # a padded model reads 30 s of audio tokens; the others only have their encoder padded
    prompt = assumed.text_tokens + shape.audio_rate * (30.0 if shape.padded else data.seconds)
    answers = teachers + sampled
    answer_tokens = teachers * data.answer_tokens + sampled * sample_tokens
    prompts = answers if recipe.layout == "pad" else clips
    positions = groups * (prompts * prompt + answer_tokens)
    frames = groups * clips * seconds * 50
    resamples = recipe.kind == "policy-gradient" and recipe.policy_gradient.resample
    samples = groups * samples_per_group(recipe, voices) * (1 + (assumed.redraws if resamples else 0))
    context = prompt + (answer_tokens / max(answers, 1))
    answer_tokens *= groups
    forward = positions * decoder_flops(shape, context) + answer_tokens * 2 * shape.vocabulary * shape.hidden
    return StepCost(
        clips=groups * clips,
        scored=groups * answers,
        positions=positions,
        answer_tokens=answer_tokens,
        samples=samples,
        sample_tokens=sample_tokens,
        prompt=prompt,
        frames=frames,
        train=_policy_flops(recipe, shape, positions, answer_tokens, context, frames),
        other=_frozen_flops(recipe, shape, assumed, forward, samples, sample_tokens, answer_tokens),
        prefill=samples * prompt * decoder_flops(shape, prompt),
    )


def decoder_flops(shape: ModelShape, context: float) -> float:
    """Operations of a token through the decoder, without head, in a context of so many tokens."""
    tied_head = 0 if shape.embedding else shape.vocabulary * shape.hidden
    inner = shape.llm - 2 * shape.embedding if shape.embedding else shape.llm - tied_head
    return 2.0 * inner + 4.0 * shape.layers * shape.attention * context / 2


def _policy_flops(
    recipe: TrainingRecipe, shape: ModelShape, positions: float, answers: float, context: float, frames: float
) -> float:
    """Decoder and head: forward, gradients of inputs, and of weights where they train. Encoder and projector.

    A frozen encoder is counted without its cache: once for each clip.
    """
    plain = decoder_flops(shape, context)
    trains_llm = "llm" in recipe.train_parts and recipe.lora is None
    weights = 2.0 * sum(shape.adapters) * 2 if recipe.lora is not None else (plain if trains_llm else 0.0)
    recomputed = plain if recipe.gradient_checkpointing else 0.0
    head = 2.0 * shape.vocabulary * shape.hidden
    recomputed_head = head if answers * shape.vocabulary > CHUNK_ELEMENTS else 0.0
    decoder = positions * (2 * plain + weights + recomputed) + answers * (
        2 * head + recomputed_head + (head if trains_llm else 0.0)
    )
    times = 1 if recipe.encoder_frozen else 3
    encoder = 2.0 * frames * (times * shape.encoder + 3 * shape.projector * shape.audio_rate / 50)
    return decoder + encoder


def _frozen_flops(
    recipe: TrainingRecipe,
    shape: ModelShape,
    assumed: Assumptions,
    forward: float,
    samples: float,
    sample_tokens: float,
    answer_tokens: float,
) -> float:
    """Reference, teacher and reward model."""
    operations = forward if recipe.uses_reference and recipe.pairs_file is None else 0.0
    if recipe.kind == "distillation" and not (recipe.method == "kd" and recipe.teacher.top_k):
        turns = recipe.groups_per_step * TEACHER_TURN
        operations += 2.0 * teacher_parameters(recipe, shape, assumed) * (turns + answer_tokens)
    if recipe.uses_reward:
        operations += 2.0 * reward_parameters(recipe, assumed) * samples * (TEACHER_TURN + sample_tokens)
    return operations


def teacher_parameters(recipe: TrainingRecipe, shape: ModelShape, assumed: Assumptions) -> float:
    """Parameters of the text teacher; 0 without one."""
    if recipe.kind != "distillation":
        return 0.0
    if assumed.teacher_parameters or recipe.teacher.model == "self":
        return assumed.teacher_parameters or float(shape.llm)
    return float(text_parameters(recipe.teacher.model, "teacher_parameters"))


def reward_parameters(recipe: TrainingRecipe, assumed: Assumptions) -> float:
    """Parameters of the local models that score samples; 0 for rewards that need no model."""
    if not recipe.uses_reward:
        return 0.0
    if assumed.reward_parameters:
        return assumed.reward_parameters
    options = recipe.reward
    kinds = {kind for choice in recipe.alignment_sets for kind in choice.kinds or get_args(Kind)}
    names = {name for kind in kinds for name in options.weights_for(kind)}
    models = {"reward-model": options.model, "teacher-logprob": options.teacher}
    used = [model for name, model in models.items() if name in names]
    return float(sum(text_parameters(model, "reward_parameters") for model in used))


@dataclass(frozen=True)
class MemoryCost:
    """Bytes on one device.

    Attributes:
        weights: of the model: trained parts in float32, frozen ones as they are computed with.
        cast: bfloat16 copies that autocast keeps during a forward pass.
        gradients, optimizer: of what trains; AdamW keeps two numbers.
        reference: a frozen copy of what trains.
        judges: reward model and text teacher.
        activations: what the backward pass needs of the largest batch.
        logits: at most one chunk of them, with its gradient.
        sampling: keys and values of the answers sampled together.
        overhead: framework, and what the allocator wastes.
    """

    weights: float
    cast: float
    gradients: float
    optimizer: float
    reference: float
    judges: float
    activations: float
    logits: float
    sampling: float
    overhead: float

    @property
    def peak(self) -> float:
        """The larger of training and sampling, which take turns; gradients are freed before sampling."""
        always = self.weights + self.optimizer + self.reference + self.judges + self.overhead
        return always + max(
            self.gradients + self.cast + self.activations + self.logits, self.cast + self.sampling
        )


def trained_counts(recipe: TrainingRecipe, shape: ModelShape) -> dict[str, float]:
    """Parameters that train, by part."""
    parts = {"encoder": shape.encoder - shape.fixed, "projector": shape.projector, "llm": shape.llm}
    counts: dict[str, float] = {name: float(parts[name]) for name in recipe.train_parts}
    if recipe.lora is not None:
        counts["llm"] = float(shape.adapters[0])
        if recipe.lora.encoder_targets:
            counts["encoder"] = float(shape.adapters[1])
    return counts


def memory_cost(
    recipe: TrainingRecipe,
    shape: ModelShape,
    step: StepCost,
    assumed: Assumptions,
    devices: int,
    sharded: bool,
) -> MemoryCost:
    """The bytes on one device.

    Args:
        recipe: the run.
        shape: of its model.
        step: of all devices together.
        assumed: overheads.
        devices: in the run; each has its share of a step.
        sharded: whether weights, gradients and optimiser are sharded (FSDP2), else each device has all of them (DDP).
    """
    half = recipe.precision == "bfloat16"
    size = 2 if half else 4
    n_trained, share = sum(trained_counts(recipe, shape).values()), devices if sharded else 1
    adapted = recipe.lora is not None
    frozen = shape.parameters - n_trained + (n_trained if adapted else 0)
    # a frozen encoder is complete on every device
    unsharded = shape.encoder if recipe.encoder_frozen else 0.0
    weights = (4 * n_trained + size * (frozen - unsharded)) / share + size * unsharded
    judges = size * reward_parameters(recipe, assumed)
    llm_unchanged = "llm" not in recipe.train_parts or adapted
    if not (recipe.teacher.model == "self" and llm_unchanged):
        judges += size * teacher_parameters(recipe, shape, assumed)
    reference = 4 * n_trained / share if recipe.uses_reference and recipe.pairs_file is None else 0.0
    embeddings = 2 * shape.embedding or shape.vocabulary * shape.hidden
    gathered = (shape.llm - embeddings) / shape.layers if sharded else 0.0  # one decoder layer
    permanent = weights + 4 * 3 * n_trained / share + judges + reference
    activations = _activations(recipe, shape, step, devices)
    return MemoryCost(
        weights=weights + gathered * size * 2,  # a layer that is gathered, and the next one
        cast=0.0 if sharded or not half else 2 * n_trained,
        gradients=4 * n_trained / share,
        optimizer=8 * n_trained / share,
        reference=reference,
        judges=judges,
        activations=activations,
        logits=8 * min(step.answer_tokens / devices / recipe.accumulate * shape.vocabulary, CHUNK_ELEMENTS),
        sampling=_key_value_cache(recipe, shape, step, devices, size),
        overhead=assumed.overhead_gb * 1e9 + assumed.fragmentation * (permanent + activations),
    )


def _activations(recipe: TrainingRecipe, shape: ModelShape, step: StepCost, devices: int) -> float:
    """Activations of one forward pass; per token what a Llama layer keeps, as transformers implements it.

    Two norms keep their input in float32 (in bfloat16 also the copy that is multiplied by the weight). Also kept are
    the rotated queries and keys, values, attention's output before and after it is put back in order, gate and up; the
    rest is recomputed (5,990 numbers for a token were measured where this gives 5,760). With gradient checkpointing
    only one layer at a time keeps everything: 6 widths for its norms, rotated forms, outputs, and five widths of the
    MLP.
    """
    half = recipe.precision == "bfloat16"
    size = 2 if half else 4
    tokens = step.positions / devices / recipe.accumulate
    if recipe.gradient_checkpointing:
        inside = 3 * shape.attention + 3 * shape.kv + 2 * shape.hidden + 5 * shape.ffn
        layer = 4 * 6 * shape.hidden + size * inside
        decoder = tokens * (shape.layers * size * shape.hidden + layer)
    else:
        norms = 2 * (4 + (2 if half else 0)) * shape.hidden
        layer = norms + size * (3 * shape.attention + 2 * shape.kv + 2 * shape.ffn)
        decoder = tokens * shape.layers * layer
    if recipe.encoder_frozen:
        return decoder
    frames = step.frames / devices / recipe.accumulate
    inner = 4 * 4 * shape.encoder_hidden + size * (6 * shape.encoder_hidden + 2 * shape.encoder_ffn)
    per_layer = size * shape.encoder_hidden if recipe.gradient_checkpointing else inner
    return decoder + frames * (shape.encoder_layers * per_layer + inner * recipe.gradient_checkpointing)


def _key_value_cache(
    recipe: TrainingRecipe, shape: ModelShape, step: StepCost, devices: int, size: int
) -> float:
    """Keys and values of the answers that are sampled in one batch, at full length."""
    if not step.samples:
        return 0.0
    batch = min(recipe.rollout_batch, step.samples / devices * recipe.refresh_every)
    return batch * (step.prompt + recipe.max_new_tokens) * 2 * shape.layers * shape.kv * size
