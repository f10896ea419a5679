"""From a recipe to the objects of a run: base model with its trainable parts, processor, reference, adapters."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from rba_bench.assets import WEIGHTS, model_folder
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json, sha256_file, sha256_json
from rba_bench.outputs import RUN_RECORD, SIGNATURE
from rba_bench.progress import bar
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache, encoder_tag
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.audiolm.families.shared_rows import attends_by_document
from rba_bench.speechlm.audiolm.text_decoder import remember_engine, try_engine
from rba_bench.textlm.text_model import Decoding
from rba_bench.textlm.weights import local_folder, stored_dtypes
from rba_bench.training.data.clips import ClipStore, ResponseTokens, shared_cache
from rba_bench.training.data.groups import TrainingData
from rba_bench.training.data.order import GroupOrder
from rba_bench.training.data.pairs import OfflinePairs
from rba_bench.training.model import trainable_parts as parts
from rba_bench.training.model.checkpoints import load_weights
from rba_bench.training.model.frozen_models import FrozenModels, ReferenceCache
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharded_loading import holds_base_weights, match_first_process, without_weights
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.model.trainable_parts import part_rates
from rba_bench.training.rewards import RewardByKind, build_reward, reward_names
from rba_bench.training.rewards.combined import make_similarity
from rba_bench.training.rewards.trajectory import Trajectories, chrf
from rba_bench.training.teachers.own_answers import AnswerSettings, AuthorMode, OwnAnswers, own_answers
from rba_bench.training.teachers.readers import PolicyTextLM
from rba_bench.training.teachers.text_teacher import TextTeacher, make_cached_teacher, make_text_teacher
from rba_bench.training.training_recipe import TrainingRecipe

REFERENCE_PAIRS = 16  # pairs that the reference scores together


def base_folder(recipe: TrainingRecipe) -> Path:
    """Where the base model is; a Hub id is downloaded.

    Raises:
        MissingPrerequisite: it is not there.
    """
    if recipe.base in WEIGHTS:
        return model_folder("base", recipe.base)
    folder = Path(recipe.base)
    signed = read_json(folder / SIGNATURE) if (folder / SIGNATURE).is_file() else {}
    # `compose` signs its folders too
    if signed.get("stage") == "train" and not (folder / RUN_RECORD).is_file():
        raise MissingPrerequisite(
            f"base {folder} is a run that is not finished: give its own command again first"
        )
    return local_folder(recipe.base, "base model")


def checkpoint_sha256(folder: Path) -> str:
    """Identity of a base model: hash over weights, configuration, tokenizer and chat template.

    Raises:
        MissingPrerequisite: it has no safetensors weights.
    """
    kinds = (".safetensors", ".json", ".jinja", ".model")
    files = [file for file in sorted(folder.iterdir()) if file.suffix in kinds]
    if not any(file.suffix == ".safetensors" for file in files):
        raise MissingPrerequisite(f"no safetensors weights in {folder}")
    # how a checkpoint came about is not what it is
    return sha256_json({file.name: sha256_file(file) for file in files if not file.name.startswith("rba_")})


def load_base(folder: Path, recipe: TrainingRecipe, stored: bool = False, device: str = "cpu") -> AudioFamily:
    """The model with its adapter, on the CPU, in float32; with `precision: bfloat16` or if `stored`, as it is stored.

    On the device `meta` it has no weights.

    Raises:
        UserError: the folder holds another kind of model, or one that cannot be taken apart.
    """
    from transformers.utils.logging import disable_progress_bar

    from rba_bench.speechlm.audiolm.loading import load_family

    disable_progress_bar()  # our own bars are enough
    with stored_dtypes() if stored or recipe.precision == "bfloat16" else nullcontext():
        family = load_family(folder, device, recipe.true_length, recipe.trust_remote_code)
    if not family.splits:
        raise UserError(
            f"{folder} holds a {family.model.config.model_type}, which cannot be taken apart for training; "
            "`rba-bench doctor` lists the types that can"
        )
    return family


def make_policy(family: AudioFamily, recipe: TrainingRecipe, stored: bool = False) -> SpeechPolicy:
    """Freeze what the recipe leaves alone, add adapters, wrap.

    What trains is in float32. With `precision: bfloat16` the rest is in bfloat16, half the memory; if `stored`, nothing
    changes its number type.

    Raises:
        UserError: the model cannot be trained so.
        MissingPrerequisite: peft is not installed.
    """
    half = recipe.precision == "bfloat16"
    # asks the decoder before it is wrapped
    policy = SpeechPolicy(family, recipe.encoder_frozen, recipe.layout, half)
    parts.freeze(family, recipe.train_parts, recipe.lora)
    parts.disable_dropout(family)
    if half and not stored:
        parts.set_precision(family)
    if recipe.gradient_checkpointing:
        parts.checkpoint_activations(family, recipe.train_parts)
    return policy


def make_shared_policy(base: Path, recipe: TrainingRecipe) -> SpeechPolicy:
    """The policy where processes share its weights out: the first one reads them, the others have none as yet.

    Raises:
        UserError, MissingPrerequisite: see `load_base` and `make_policy`.
    """
    from accelerate.utils import broadcast_object_list

    family = load_base(base, recipe, device="cpu" if holds_base_weights() else "meta")
    # asks the decoder, for which it needs weights
    answers: list[Any] = [None] * 3
    if holds_base_weights():
        answers = [
            family.shares_rows,
            family.shares_rows and attends_by_document(family.decoder),
            try_engine(family),
        ]
    family.shares_rows, by_document, driven = broadcast_object_list(answers)
    attends_by_document(family.decoder, by_document)
    remember_engine(family, driven)
    policy = make_policy(family, recipe)
    match_first_process(policy)
    return policy


def open_policy(base: Path, recipe: TrainingRecipe, shared: bool) -> SpeechPolicy:
    """The policy of a run: on its device, or, where weights will be shared out, as `make_shared_policy` leaves it."""
    from accelerate import PartialState

    if shared:
        return make_shared_policy(base, recipe)
    policy = make_policy(load_base(base, recipe), recipe)
    policy.to(PartialState().device)  # before it is asked anything: on a CPU a large one never ends
    return policy


def write_result(base: Path, recipe: TrainingRecipe, trained: Path, out: Path) -> None:
    """The base as it is stored, with what trained in its place and adapters folded in.

    Args:
        base: folder of the base model.
        recipe: of the run.
        trained: folder that `checkpoints.save_weights` has written to.
        out: where the model goes.
    """
    family = load_base(base, recipe, stored=True)
    load_weights(make_policy(family, recipe, stored=True), trained)
    parts.merge_lora(family)
    family.save(out)


def make_reference(policy: SpeechPolicy, weights: bool = True) -> SpeechPolicy:
    """A frozen copy of the policy as it is now; what does not train is shared, not copied.

    With LoRA the copy holds adapters alone, and a frozen encoder is never there twice.

    Args:
        policy: the policy.
        weights: False makes a copy without any, which `sharded_loading.shard_policy` gives their shares.
    """
    memo: dict[int, Any] = {}
    for parameter in policy.model.parameters():
        if not weights:
            memo[id(parameter)] = without_weights(parameter)
        elif not parameter.requires_grad:
            memo[id(parameter)] = parameter
    memo |= {id(b): b for b in policy.model.buffers()}
    family = copy.copy(policy.family)
    family.model = copy.deepcopy(policy.model, memo).requires_grad_(False).eval()
    return SpeechPolicy(family, policy.frozen_encoder, policy.layout, policy.half)


def encoder_cache(recipe: TrainingRecipe, family: AudioFamily, weights: str) -> EncoderCache:
    """Where the states of a frozen encoder are kept."""
    # what batches round differently, devices do too
    device = "cuda" if torch.cuda.is_available() else f"cpu-{torch.get_num_threads()}"
    cache = shared_cache(encoder_tag(weights, device, family.padding, recipe.precision), recipe.cache_mb)
    cache.folder = Path(recipe.encoder_cache) if recipe.encoder_cache else None
    return cache


def make_own_answers(
    recipe: TrainingRecipe,
    family: AudioFamily,
    data: TrainingData,
    weights: str,
    folder: Path,
    shared: bool = False,
) -> OwnAnswers | None:
    """Training groups with the answers of the model's own LLM, for the methods that learn from those; else None.

    The model must be where it computes: it answers here. Where processes will share its weights out (`shared`), the
    first one alone has them as yet, and answers for all.
    """
    from accelerate import PartialState

    modes: dict[str, AuthorMode] = {"blsp": "continue", "audiochatllama": "answer"}
    if recipe.method not in modes:
        return None
    options = recipe.teacher.answers
    decoding = Decoding(options.max_new_tokens, options.temperature, options.top_p)
    way = AnswerSettings(modes[recipe.method], options.prompt, decoding, recipe.seed, options.batch_size)
    own = PolicyTextLM(family, weights, options.batch_size, half=recipe.precision == "bfloat16")
    state = PartialState()
    process = (0, 1) if shared else (state.process_index, state.num_processes)
    with state.main_process_first() if shared else nullcontext():
        return own_answers(data.train, data.sha256, own, way, folder, process)


def load_given_pairs(recipe: TrainingRecipe, data: TrainingData) -> OfflinePairs | None:
    """The pairs of `pairs_file`, checked against the set; None where pairs are sampled."""
    if recipe.pairs_file is None:
        return None
    pairs = OfflinePairs.open(Path(recipe.pairs_file))
    pairs.check(data.train.ids)
    return pairs


def score_pairs(
    policy: SpeechPolicy,
    store: ClipStore,
    pairs: OfflinePairs,
    order: GroupOrder,
    responder: ResponseTokens,
    voices: int,
) -> ReferenceCache:
    """Log-probabilities of all pairs that the run will use, by the policy while it still equals the reference."""
    groups = dict.fromkeys(order[position][1] for position in range(len(order)))
    needed = [pair for name in groups for pair in pairs(store.groups[name][:voices], responder).pairs]
    cache, frozen_models = ReferenceCache("run", 2**34), FrozenModels(store, policy)
    training = policy.training
    policy.eval()
    with bar("reference", len(needed), unit="pairs") as advance:
        for start in range(0, len(needed), REFERENCE_PAIRS):
            part = needed[start : start + REFERENCE_PAIRS]
            cache.fill(part, frozen_models.score)
            advance(len(part))
    policy.train(training)
    return cache


def make_reward(
    recipe: TrainingRecipe,
    kinds: Sequence[str],
    policy: SpeechPolicy,
    device: str,
    folder: Path,
    sync: CollectiveSync | None = None,
) -> RewardByKind | None:
    """The reward of samples and of validation; None where the run uses none.

    Args:
        recipe: the run.
        kinds: of items in the alignment set.
        policy: whose language model is the judge of `self-judge`.
        device: torch device of the reward's models.
        folder: where judge replies are kept.
        sync: of the processes, where they share the policy's weights out.

    Raises:
        UserError: a shipped micro model would judge real answers, or a model cannot be used.
        MissingPrerequisite: a model is not there.
    """
    options = recipe.reward
    validates = recipe.eval_every or recipe.validate_ends
    if not recipe.uses_reward and not (validates and recipe.validation.metric == "reward"):
        return None
    names = reward_names(options, kinds)
    # the shipped models know 270 words: their scores of real answers are noise, which a run would follow
    teachers = ("teacher-logprob", "teacher-logprob-mean")
    micro = (
        ("reward-model", "model", options.model),
        *((name, "teacher", options.teacher) for name in teachers),
    )
    for name, key, model in micro if recipe.track != "micro" else ():
        if name in names and model == "micro":
            raise UserError(
                f"reward {name} would judge real answers by the shipped model of the micro world: set reward.{key} to "
                "a folder or Hub id, or choose another reward (reward.instruct, reward.qa, reward.s2tt)"
            )
    own = None
    if "self-judge" in names:
        half = recipe.precision == "bfloat16"
        own = PolicyTextLM(policy.family, "policy", half=half, shell=policy, sync=sync)
    return build_reward(options, kinds, device, own_llm=own, folder=folder)


def make_trajectories(
    recipe: TrainingRecipe, policy: SpeechPolicy, store: ClipStore, device: str
) -> Trajectories | None:
    """What TARS adds to rewards; None for all other methods.

    Raises:
        MissingPrerequisite: texts are to be compared by an embedding model, and none is named.
    """
    if recipe.method != "tars":
        return None
    likeness = None
    if recipe.tars.behavior > 0:
        by_model = recipe.tars.behavior_by == "embedding"
        if by_model and recipe.reward.similarity_model is None:
            raise MissingPrerequisite(
                "tars compares texts by an embedding model: name it in reward.similarity_model (paper: "
                "Qwen/Qwen3-Embedding-0.6B), or set tars.behavior_by to chrf or tars.behavior to 0"
            )
        likeness = make_similarity(recipe.reward, device).between if by_model else chrf
    return Trajectories(recipe.tars, policy, store, likeness)


def check_sharing(sharing: str, recipe: TrainingRecipe) -> None:
    """Refuse what does not work with shared weights; `sharing`: see `sharding.sharding_of`.

    Raises:
        UserError: the recipe asks for it.
    """
    if sharing != "none" and recipe.method == "tars":
        raise UserError(
            "tars reads the states of every layer, which does not work with weights that processes share: launch with "
            "DDP or ZeRO-2"
        )


def make_teacher_shell(recipe: TrainingRecipe, policy: SpeechPolicy) -> SpeechPolicy | None:
    """A copy of the LLM as it is now, for a teacher, where it trains in full and processes share its weights."""
    own = recipe.kind == "distillation" and recipe.teacher.model == "self"
    if not own or llm_is_frozen(recipe, policy.family):
        return None
    return make_reference(policy, weights=False)


def llm_is_frozen(recipe: TrainingRecipe, family: AudioFamily) -> bool:
    """Whether the LLM's own weights do not train, so that a teacher can read with them in place."""
    return "llm" not in recipe.train_parts or recipe.lora is not None or bool(family.has_adapter)


def make_teacher(
    recipe: TrainingRecipe,
    family: AudioFamily,
    weights: str,
    device: str,
    shell: SpeechPolicy | None = None,
    sync: CollectiveSync | None = None,
) -> TextTeacher | None:
    """The text teacher, None where there is none; to be made before the first step.

    Args:
        recipe: the run.
        family: the student.
        weights: hash of the base model.
        device: where another model is put.
        shell: where processes share weights out, what the model's own LLM is called through.
        sync: of the processes, where they share weights out.
    """
    if recipe.kind != "distillation":
        return None
    text_teacher = make_text_teacher(
        recipe.teacher,
        family,
        weights=weights,
        shared=llm_is_frozen(recipe, family),
        layout=recipe.layout,
        precision="bfloat16" if recipe.precision == "bfloat16" else "float32",
        device=device,
        shell=shell,
        sync=sync,
    )
    # only the answers of the alignment set come back; samples differ from step to step
    cached = recipe.method == "kd" and recipe.teacher.top_k
    return make_cached_teacher(recipe.teacher, text_teacher) if cached else text_teacher


def optimizer_groups(family: AudioFamily, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Trained parameters by part, with each part's learning rate."""
    return parts.parameter_groups(family, part_rates(recipe), recipe.weight_decay)
