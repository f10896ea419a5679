"""Bytes on one device: weights, gradients, optimiser, reference, judges, activations, keys and values of sampling."""

from dataclasses import dataclass

from rba_bench.training.model.policy import CHUNK_ELEMENTS
from rba_bench.training.planning.assumptions import Assumptions
from rba_bench.training.planning.data import Data
from rba_bench.training.planning.shapes import Shape
from rba_bench.training.planning.work import Step, reward_parameters, teacher_parameters
from rba_bench.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Memory:
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
        """The larger of training and sampling, which take turns; gradients are gone when samples are drawn."""
        always = self.weights + self.optimizer + self.reference + self.judges + self.overhead
        return always + max(
            self.gradients + self.cast + self.activations + self.logits, self.cast + self.sampling
        )


def trained(recipe: TrainingRecipe, shape: Shape) -> dict[str, float]:
    """Parameters that train, by part."""
    parts = {"encoder": shape.encoder - shape.fixed, "projector": shape.projector, "llm": shape.llm}
    found: dict[str, float] = {name: float(parts[name]) for name in recipe.train_parts}
    if recipe.lora is not None:
        found["llm"] = float(shape.adapters[0])
        if recipe.lora.encoder_targets:
            found["encoder"] = float(shape.adapters[1])
    return found


def memory_of(
    recipe: TrainingRecipe,
    shape: Shape,
    step: Step,
    data: Data,
    assumed: Assumptions,
    devices: int,
    shared: bool,
) -> Memory:
    """The estimate.

    Args:
        recipe: the run.
        shape: of its model.
        step: of all devices together.
        data: lengths.
        assumed: overheads.
        devices: in the run; each has its share of a step.
        shared: whether they share weights, gradients and optimiser out (FSDP2), else each has all of it (DDP).
    """
    half = recipe.precision == "bfloat16"
    moving = trained(recipe, shape)
    n_trained, share = sum(moving.values()), devices if shared else 1
    adapted = recipe.lora is not None
    frozen = shape.parameters - n_trained + (n_trained if adapted else 0)
    alone = shape.encoder if recipe.encoder_frozen else 0.0  # frozen: stays whole on every device
    size = 2 if half else 4
    weights = (4 * n_trained + size * (frozen - alone)) / share + size * alone
    judges = size * reward_parameters(recipe, assumed)
    own_copy = "llm" not in recipe.train_parts or adapted
    if not (recipe.teacher.model == "self" and own_copy):
        judges += size * teacher_parameters(recipe, shape, assumed)
    reference = 4 * n_trained / share if recipe.uses_reference and recipe.pairs_file is None else 0.0
    largest = layer_parameters(shape) if shared else 0.0
    kept = weights + 4 * 3 * n_trained / share + judges + reference
    activations = _activations(recipe, shape, step, devices)
    return Memory(
        weights=weights + largest * size * 2,  # of a layer that is gathered, and the next one
        cast=0.0 if shared or not half else 2 * n_trained,
        gradients=4 * n_trained / share,
        optimizer=8 * n_trained / share,
        reference=reference,
        judges=judges,
        activations=activations,
        logits=min(step.answer_tokens / devices / recipe.accumulate * shape.vocabulary, CHUNK_ELEMENTS)
        * 4
        * 2,
        sampling=_sampling(recipe, shape, step, devices, size),
        overhead=assumed.overhead_gb * 1e9 + assumed.fragmentation * (kept + activations),
    )


def layer_parameters(shape: Shape) -> float:
    """Of one decoder layer."""
    ends = 2 * shape.embedding or shape.vocabulary * shape.hidden
    return (shape.llm - ends) / shape.layers


def _activations(recipe: TrainingRecipe, shape: Shape, step: Step, devices: int) -> float:
    """Of one forward pass. What a layer keeps of a token, counted through a Llama layer as transformers writes it.

    Two norms keep their input in float32 (in bfloat16 also the copy that is multiplied by the weight); kept are the
    rotated queries and keys, values, attention's output before and after it is put back in order, gate and up; the rest
    is made again (`activations`: 5,990 numbers a token measured where this says 5,760). With gradient checkpointing
    one layer at a time has all: 6 widths for its norms, rotated forms, outputs, and five widths of the MLP.
    """
    half = recipe.precision == "bfloat16"
    size = 2 if half else 4
    tokens = step.positions / devices / recipe.accumulate
    if recipe.gradient_checkpointing:
        whole = 4 * 6 * shape.hidden + size * (
            3 * shape.attention + 3 * shape.kv + 2 * shape.hidden + 5 * shape.ffn
        )
        decoder = tokens * (shape.layers * size * shape.hidden + whole)
    else:
        norms = 2 * (4 + (2 if half else 0)) * shape.hidden
        layer = norms + size * (3 * shape.attention + 2 * shape.kv + 2 * shape.ffn)
        decoder = tokens * shape.layers * layer
    frames = step.frames / devices / recipe.accumulate
    inner = 4 * 4 * shape.encoder_hidden + size * (6 * shape.encoder_hidden + 2 * shape.encoder_ffn)
    if recipe.encoder_frozen:
        return decoder
    kept = size * shape.encoder_hidden if recipe.gradient_checkpointing else inner
    return decoder + frames * (shape.encoder_layers * kept + inner * recipe.gradient_checkpointing)


def _sampling(recipe: TrainingRecipe, shape: Shape, step: Step, devices: int, size: int) -> float:
    """Keys and values of the answers that are sampled together, at their longest."""
    if not step.samples:
        return 0.0
    together = min(recipe.rollout_batch, step.samples / devices * recipe.refresh_every)
    return together * (step.prompt + recipe.max_new_tokens) * 2 * shape.layers * shape.kv * size
