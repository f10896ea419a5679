"""What a training run is: every choice, its default and why. `recipes/*.yaml` are instances of this."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rba_bench.recipes import Recipe
from rba_bench.training.options.nested_options import (
    OTHER_NAMES,
    RewardOptions,
    RolloutOptions,
    TeacherOptions,
)
from rba_bench.training.options.presets import CLIPPED, PRESETS, Method, Reduction, apply_preset

Kind = Literal["instruct", "qa", "s2tt"]
Part = Literal["projector", "llm", "encoder"]

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


ITEMS, ITEMS_AT_ENDS = 128, 32  # see `ValidationOptions.items`


class LoraOptions(Recipe):
    """Low-rank adapters on the language model instead of all its weights; merged into the final checkpoint."""

    r: Positive = 16  # rank: 16 leaves about 1 % of a layer's weights to train
    alpha: Rate = 32.0  # the adapters' part is scaled by alpha / r
    # names of linear layers in the decoder, or all-linear for all of the decoder's; the encoder is not adapted
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    encoder_targets: tuple[str, ...] = ()  # the same for the encoder, if that is wanted

    @field_validator("targets")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one module")
        return value


class PartRates(Recipe):
    """Learning rates by part; null is `learning_rate`."""

    encoder: Rate | None = None  # an encoder that is trained usually wants less than the rest
    projector: Rate | None = None  # a projector that starts from random numbers wants more than the rest
    llm: Rate | None = None  # of the language model, or of its adapters


class PreferenceOptions(Recipe):
    """What single preference forms need beside `beta`."""

    simpo_gamma: Weight = 0.5  # margin, in units of beta x mean log-probability
    odpo_alpha: Weight = 1.0  # weight of the offset
    odpo_scale: Literal["log", "linear"] = "log"  # offset: log of the reward gap, or the gap itself
    tdpo_alpha: Weight = 0.5  # weight of the difference of sequential divergences
    tdpo_version: Literal[1, 2] = (
        2  # 2 stops the gradient of the chosen side's divergence, as its paper advises
    )


class SetOptions(Recipe):
    """One of several alignment sets."""

    path: str  # its folder
    weight: Rate | None = None  # share of the draws; null for all of them: by size
    kinds: tuple[Kind, ...] | None = None  # only these kinds of items; null: all


class PolicyGradientOptions(Recipe):
    """GRPO and its kin."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2  # a ratio below 1 - this is held there (PPO)
    clip_high: Rate | None = None  # null: 0.2; dapo: 0.28, so that rare tokens can rise
    # to the reference; 0 diverged in IBM's study of GRPO (arXiv 2509.16990), and is what DAPO does
    kl_weight: Weight = 0.02
    # importance weights (policy now / when drawn, a token) count as at most this where samples are older than the
    # policy or another engine drew them: one token cannot rule a step (truncated importance sampling)
    ratio_cap: Annotated[float, Field(ge=1)] = 2.0
    # DAPO's dynamic sampling: at most so many further groups are drawn in place of one whose rewards are all equal,
    # which would have no gradient; dapo: 8
    resample: Annotated[int, Field(ge=0)] = 0
    # DAPO's soft overlong punishment: answers lose reward, linearly, over this last share of the longest length; 0:
    # none. dapo: 0.2 (4,096 of 20,480 tokens)
    overlong_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    overlong_cache: Positive | None = None  # the same in tokens, instead of the share
    overlong_max: Positive | None = None  # the longest length, at which all is lost; null: max_new_tokens
    overlong_weight: Weight = 1.0  # what is lost there, in units of reward; DAPO's own rewards are 1 and -1
    scale: Literal["std", "none"] = "std"  # divide advantages by the group's deviation, or not (Dr. GRPO)
    # modality: half of the group reads the transcript; each half has its own mean (as in TARS)
    baseline: Literal["group", "leave-one-out", "modality"] = "group"
    mrt_sharpness: Rate = 1.0  # mrt: exponent of the probabilities within a list


class TarsOptions(Recipe):
    """What TARS adds to the reward of a spoken answer (arXiv 2601.05543); see `training/trajectory.py`."""

    representation: Weight = 1.0  # likeness of hidden states to those of a correct answer to the transcript
    behavior: Weight = 1.0  # likeness of the text to that answer's
    # how texts are compared: by `reward.similarity_model` (paper: Qwen/Qwen3-Embedding-0.6B), or by chrF++, without one
    behavior_by: Literal["embedding", "chrf"] = "embedding"
    correct: float = 1.0  # reward from which an answer to the transcript is correct; the paper's are 0 or 1


class ValidationOptions(Recipe):
    """How checkpoints are compared on held-out items; see `eval_every`."""

    metric: Literal["loss", "reward"] = "loss"  # of the teacher's answers; or of greedy answers
    # of each kind; null: 128 (paper: 128 a domain), or 32 where eval_every is 0 and only start and end are compared
    items: Positive | None = None
    patience: Positive | None = None  # stop after so many validations without a better one


class TrainingRecipe(Recipe):
    """One training run.

    `method` names the objective (see `presets.PRESETS`); it sets `pairs`, `reference`, `sft_weight`, `group_by` and
    `samples_per_clip` where the recipe does not. Keys that a method has no use for (`beta` for sft, `reward` where
    nothing is rewarded) change nothing, and are told (see `recipe_checks`).
    """

    other_names: ClassVar[Mapping[str, str]] = OTHER_NAMES

    method: Method = "rba-single"  # the objective; the paper's RBA-Single needs no reward
    track: Literal["micro", "full"] = "micro"  # micro: shipped models in minutes; full: your own
    base: str = "micro"  # checkpoint folder or Hub id of the model to train; "micro" = the shipped base
    trust_remote_code: bool = False  # run Python code that comes with the model; only `--trust` sets it
    # a folder, `{path, weight, kinds}`, or a list of these, which are mixed
    alignment_set: str | SetOptions | tuple[str | SetOptions, ...] = "runs/alignment-set"
    shuffle: Literal["auto", "full", "window"] = (
        "auto"  # window: sets beyond 10 GiB are read nearly in one go
    )
    # Clips longer than the model hears. drop: an answer to words that were not heard teaches inventing; cut: train on
    # what is heard of them, as evaluation does; error: refuse the set
    long_clips: Literal["drop", "cut", "error"] = "drop"
    max_answer_tokens: Positive | None = (
        None  # leave out clips with longer answers; null: what the context holds
    )
    seed: int = 1  # of order, sampling and adapters: the same seed gives the same run

    # objective

    # paper section 3: two scalars 0.2 and 0.1, read as w = 0.2, beta = 0.1 (the other order is possible); for sums of
    # log-probabilities, that is: of means, which are smaller by the length, the method sets 2 and 1
    beta: Rate = 0.1
    sft_weight: Weight = 0.2  # w, of the teacher's cross entropy beside the method's own term
    # token: an answer scores the mean of its tokens' log-probabilities; sequence: their sum, which saturates the
    # comparison of answers of hundreds of tokens. The method sets it: means without a reference, sums with one
    preference_reduction: Reduction = "sequence"
    sft_reduction: Reduction = (
        "token"  # cross entropy a token, over all of the step; or an answer, summed (Eq. 1)
    )
    # token: mean over all tokens (DAPO); sequence: every answer alike (GRPO), or its whole log-probability (scst, mrt)
    policy_reduction: Reduction = "token"
    distillation_reduction: Reduction = (
        "token"  # kd, gkd: mean over all tokens; or over answers of their means
    )
    pairs: Literal["single", "group"] = "single"  # teacher against own sample; best against worst by reward
    pairs_file: str | None = None  # given pairs (JSON lines of id, chosen, rejected) instead of sampled ones
    # whose clip the sides of a group's pair are heard on; the paper does not say, each on its own is the plain reading
    pair_audio: Literal["own", "chosen", "rejected"] = "own"
    reference: Literal["none", "base", "opponent"] = (
        "none"  # opponent: the policy of the last iteration (SPIN)
    )
    opponent_every: Positive = 50  # steps an opponent stays
    preference: PreferenceOptions = PreferenceOptions()  # what single preference forms need beside `beta`
    policy_gradient: PolicyGradientOptions = PolicyGradientOptions()  # of grpo, dapo, tars, scst and mrt
    tars: TarsOptions = TarsOptions()  # what tars adds to rewards
    teacher: TeacherOptions = TeacherOptions()  # text teacher of kd, gkd, diva, blsp, audiochatllama
    hidden_positions: Literal["first", "all"] = (
        "first"  # diva: states of the first predicted token, or of all
    )
    # gkd: probability that a step learns from the student's own answers instead of the teacher's; drawn once a step,
    # for all of its groups, as in the paper
    student_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0

    # optimisation

    steps: Positive = 200  # optimiser steps; enough to see a small model change
    epochs: Rate | None = None  # instead of steps: passes through the groups
    groups_per_step: Positive = 8  # instructions per optimiser step, over all processes
    voices_per_group: Positive = 4  # clips per instruction; with fewer voices, several samples of one clip
    learning_rate: Rate = 1e-4  # the paper's, after the warm-up
    learning_rates: PartRates = PartRates()  # by part, where one rate does not suit all
    warmup_steps: Annotated[int, Field(ge=0)] = 10  # of linear growth to learning_rate; the paper has 3,000
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    weight_decay: Weight = 0.0  # short runs from trained weights need none
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98  # the paper's "weight decay 0.98" is probably this
    max_grad_norm: Rate = 1.0  # longer gradients are shortened to this, so that one odd step does no harm
    train_parts: tuple[Part, ...] = ("projector", "llm")  # a frozen encoder hears each clip once
    lora: LoraOptions | None = None  # adapters instead of all weights of the LLM; null: all weights
    # bfloat16 = autocast, trained weights stay float32; auto = measured at the start, kept by the run
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    gradient_checkpointing: bool = (
        False  # computes layers twice to keep less: a third slower, for large models
    )
    layout: Literal["pack", "share", "pad"] = "pack"  # how answers lie in a batch; equal but for rounding
    true_length: bool = (
        True  # encode clips at their own length where the model allows it, else padded to 30 s
    )

    # rollout

    # 1 = the policy itself, which on-policy losses assume; several are taken in turn
    temperature: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 1.0
    group_by: Literal["instruction", "clip"] = (
        "instruction"  # a group: all voices of it; all samples of a clip
    )
    samples_per_clip: Positive = 1  # voices already give several answers to one instruction
    max_new_tokens: Positive = (
        512  # longer samples are cut; answers of 100 to 500 tokens, and the teacher's, fit
    )
    # what was cut has no end to be compared or judged. mask: pairs count as far as it goes, policy gradients leave it
    # out of the loss (DAPO's overlong filtering); drop: it takes no part; keep: as if it were whole
    truncated: Literal["keep", "mask", "drop"] = "mask"
    refresh_every: Positive = 1  # sample for this many steps at once: bigger batches, slightly older policy
    rollout_batch: Positive = 128  # answers sampled together
    rollout: RolloutOptions = RolloutOptions()  # the engine that samples
    reward: RewardOptions = RewardOptions()  # what judges samples, by kind of item

    # run

    save_every: Positive = 50  # steps that a kill can cost
    # keep the optimiser's state of a finished run, twice the trained weights on disk: `--continue-from` then goes on as
    # if more steps had been asked for, else it starts with a new optimiser
    keep_state: bool = False
    log_every: Positive = 10  # steps between writes of the step log, and between lines where no terminal is
    # groups with samples, rewards and pair go to samples.jsonl every N steps, for people to read; 0 = never
    samples_every: Annotated[int, Field(ge=0)] = 10
    eval_every: Annotated[int, Field(ge=0)] = 0  # validate every N steps; 0 = never (but see validate_ends)
    validate_ends: bool = (
        True  # also before the first and after the last step: what a run did to held-out items
    )
    validation: ValidationOptions = ValidationOptions()  # on what, and how long without progress
    select: Literal["last", "best"] = "last"  # which weights the run ends with; best: by validation
    budget_s: Rate | None = None  # stop after this much training time, summed over resumes
    batch_size: Positive = 32  # clips per forward of the validation
    accumulate: Positive = (
        1  # forward and backward passes per optimiser step, for models that fill the memory
    )
    # steps whose clips are read and decoded ahead, in threads, while the model computes; 0: when they are needed
    prefetch: Annotated[int, Field(ge=0)] = 2
    cache_mb: Weight = 2048.0  # encoder states kept in memory
    encoder_cache: str | None = None  # folder that keeps them for later runs too
    report: bool = True  # write report.html at the end and on Ctrl-C; 5 to 12 MB, most of it plotly
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()  # the step log is there anyway

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        return apply_preset(data) if isinstance(data, dict) else data

    @field_validator("train_parts")
    @classmethod
    def _distinct(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name one or more of projector, llm, encoder, each once")
        return value

    @field_validator("alignment_set", "temperature")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == ():
            raise ValueError("name at least one")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingRecipe":
        if problem := next((text for wrong, text in self._problems() if wrong), ""):
            raise ValueError(problem)
        return self

    def _problems(self) -> tuple[tuple[bool, str], ...]:
        """What does not go together, and the key to change."""
        alone = self.voices_per_group * self.samples_per_clip < 2
        gradient = self.kind == "policy-gradient"
        return (
            (
                self.lora is not None and "llm" not in self.train_parts,
                "lora adapts the language model: add `llm` to train_parts or drop `lora`",
            ),
            (
                self.compares_samples and alone,
                f"{self.method} compares samples within a group: voices_per_group or samples_per_clip must be at "
                "least 2",
            ),
            (
                self.compares_samples and self.group_by == "clip" and self.samples_per_clip < 2,
                f"{self.method} compares samples of one clip (group_by): samples_per_clip must be at least 2",
            ),
            (
                self.method == "tdpo" and self.reference == "none",
                "tdpo measures the divergence from a reference: set reference to base or opponent",
            ),
            (
                self.method in CLIPPED and self.policy_gradient.kl_weight > 0 and self.reference == "none",
                "policy_gradient.kl_weight needs a reference: set reference to base, or kl_weight to 0",
            ),
            (
                gradient and not 0 <= self.overlong[1] <= self.overlong[0] <= self.max_new_tokens,
                "policy_gradient: overlong_cache must not exceed overlong_max, nor overlong_max max_new_tokens",
            ),
            (
                gradient and self.policy_gradient.baseline == "modality" and self.group_by == "clip",
                "policy_gradient.baseline modality mixes speech and text in a group: set group_by to instruction",
            ),
            (
                self.rollout.weights == "lora" and self.lora is None,
                "rollout.weights lora sends an adapter: set lora, or rollout.weights to folder",
            ),
            (
                self.rollout.engine == "vllm" and self.precision == "auto",
                "a server and its run must compute in one number type: set precision to float32 or bfloat16",
            ),
            (
                self.method == "diva" and self.teacher.model != "self",
                "diva compares the states of one LLM: set teacher.model to self",
            ),
            (
                self.pairs_file is not None and (self.kind != "preference" or self.reference == "opponent"),
                f"pairs_file gives preference pairs, of which {self.method} has no use: choose dpo or another "
                "preference method, or drop it",
            ),
            (
                self.eval_every == 0 and (self.select == "best" or self.validation.patience is not None),
                "select: best and validation.patience need validations: set eval_every",
            ),
        )

    @property
    def kind(self) -> str:
        """Which loop the method needs."""
        return PRESETS[self.method].kind

    @property
    def alignment_sets(self) -> tuple[SetOptions, ...]:
        """The sets, one or several."""
        sets = self.alignment_set if isinstance(self.alignment_set, tuple) else (self.alignment_set,)
        return tuple(SetOptions(path=choice) if isinstance(choice, str) else choice for choice in sets)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Sampling temperatures, taken in turn."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)

    @property
    def validation_items(self) -> int:
        """Held-out items of each kind."""
        return self.validation.items or (ITEMS if self.eval_every else ITEMS_AT_ENDS)

    @property
    def overlong(self) -> tuple[int, int]:
        """Longest length of an answer, and over how many tokens before it the punishment grows (0: there is none)."""
        options = self.policy_gradient
        longest = options.overlong_max or self.max_new_tokens
        return longest, options.overlong_cache or round(options.overlong_share * longest)

    @property
    def compares_samples(self) -> bool:
        """Whether samples of a group are weighed against each other."""
        if self.kind == "preference":
            return self.pairs == "group" and self.pairs_file is None
        return self.method in (*CLIPPED, "mrt")

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen copy of an earlier policy scores the answers."""
        if self.method in CLIPPED:
            return self.policy_gradient.kl_weight > 0
        return self.kind == "preference" and self.reference != "none" and self.method != "simpo"

    @property
    def has_opponent(self) -> bool:
        """Whether the reference takes over the policy's weights now and then."""
        return self.uses_reference and self.reference == "opponent"

    @property
    def uses_reward(self) -> bool:
        """Whether samples are judged."""
        return self.kind == "policy-gradient" or (self.kind == "preference" and self.compares_samples)

    @property
    def uses_rollout(self) -> bool:
        """Whether the model is sampled during training."""
        if self.pairs_file is not None:
            return False
        return self.kind in ("preference", "policy-gradient") or (
            self.method == "gkd" and self.student_fraction > 0
        )

    @property
    def writes_answers(self) -> bool:
        """Whether the model's own LLM writes the answers before training."""
        return self.method in ("blsp", "audiochatllama")

    @property
    def encoder_frozen(self) -> bool:
        """Whether a clip's encoder states can be computed once and kept."""
        return "encoder" not in self.train_parts and not (self.lora and self.lora.encoder_targets)
