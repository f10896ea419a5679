"""The recipe of a training run: every key, its default and the reason. `recipes/*.yaml` are instances of it."""

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
from rba_bench.training.options.presets import CLIPPED, PRESETS, MethodName, Reduction, apply_preset

Kind = Literal["instruct", "qa", "s2tt", "ifeval"]
Part = Literal["projector", "llm", "encoder"]

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


ITEMS, ITEMS_AT_ENDS = 128, 32  # see `ValidationOptions.items`


class LoraOptions(Recipe):
    """Low-rank adapters on the language model instead of all its weights; merged into the final checkpoint."""

    r: Positive = 16  # rank: 16 leaves about 1 % of a layer's weights to train
    alpha: Rate = 32.0  # the output of the adapters is scaled by alpha / r
    # names of linear layers in the decoder, or all-linear for all of them; the encoder gets no adapters
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    encoder_targets: tuple[str, ...] = ()  # the same for the encoder; none by default

    @field_validator("targets")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one module")
        return value


class PartRates(Recipe):
    """Learning rates by part; null is `learning_rate`."""

    encoder: Rate | None = None  # a trained encoder usually needs a lower rate than the rest
    projector: Rate | None = None  # a projector with random initial weights needs a higher rate than the rest
    llm: Rate | None = None  # of the language model, or of its adapters


class PreferenceOptions(Recipe):
    """Keys of single preference losses, beside `beta`."""

    simpo_gamma: Weight = 0.5  # margin, in units of beta x mean log-probability
    odpo_alpha: Weight = 1.0  # weight of the offset
    odpo_scale: Literal["log", "linear"] = "log"  # offset: log of the reward gap, or the gap itself
    tdpo_alpha: Weight = 0.5  # weight of the difference of sequential divergences
    # 2 stops the gradient of the divergence of the chosen side, as the TDPO paper advises
    tdpo_version: Literal[1, 2] = 2


class SetOptions(Recipe):
    """One of several alignment sets."""

    path: str  # its folder
    weight: Rate | None = None  # share of the groups drawn from this set; null in all sets: by size
    kinds: tuple[Kind, ...] | None = None  # use only these kinds of items; null: all


class PolicyGradientOptions(Recipe):
    """Keys of the policy-gradient methods (GRPO, DAPO, TARS, SCST, MRT)."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2  # ratios below 1 - clip_low are clipped (PPO)
    # ratios above 1 + clip_high are clipped; null: 0.2; dapo: 0.28, for rare tokens
    clip_high: Rate | None = None
    # weight of the KL divergence from the reference; training diverged with 0 in IBM's study of GRPO (arXiv
    # 2509.16990), but DAPO uses 0
    kl_weight: Weight = 0.02
    # upper bound of the importance weight of a token (policy now / policy that sampled it), where the samples come from
    # an older policy or another engine, so that one token cannot dominate a step (truncated importance sampling)
    ratio_cap: Annotated[float, Field(ge=1)] = 2.0
    # DAPO's dynamic sampling: a group whose rewards are all equal has no gradient, and is replaced by another one, at
    # most this many times; dapo: 8
    resample: Annotated[int, Field(ge=0)] = 0
    # DAPO's soft overlong punishment: the reward falls linearly over this last share of the longest length; 0: no
    # punishment; dapo: 0.2 (4,096 of 20,480 tokens)
    overlong_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    overlong_cache: Positive | None = None  # the same in tokens, instead of the share
    # the longest length, where the punishment is full; null: max_new_tokens
    overlong_max: Positive | None = None
    # the full punishment, in units of the reward; DAPO's own rewards are 1 and -1
    overlong_weight: Weight = 1.0
    # divide advantages by the standard deviation of the group, or not (Dr. GRPO)
    scale: Literal["std", "none"] = "std"
    # modality: half of the group gets the transcript instead of the audio; each half has its own mean (as in TARS)
    baseline: Literal["group", "leave-one-out", "modality"] = "group"
    mrt_sharpness: Rate = 1.0  # mrt: exponent of the probabilities within an n-best list


class TarsOptions(Recipe):
    """What TARS adds to the reward of a spoken answer (arXiv 2601.05543); see `rewards/trajectory.py`."""

    # weight of the similarity of hidden states to those of a correct answer to the transcript
    representation: Weight = 1.0
    behavior: Weight = 1.0  # weight of the similarity of the text to the text of that answer
    # how texts are compared: by `reward.similarity_model` (paper: Qwen/Qwen3-Embedding-0.6B), or by chrF++ without a
    # model
    behavior_by: Literal["embedding", "chrf"] = "embedding"
    # an answer to the transcript with at least this reward is correct; rewards in the paper are 0 or 1
    correct: float = 1.0


class ValidationOptions(Recipe):
    """How checkpoints are compared on held-out items; see `eval_every`."""

    metric: Literal["loss", "reward"] = "loss"  # loss of the teacher's answers, or reward of greedy answers
    # items of each kind; null: 128 (paper: 128 a domain), or 32 where eval_every is 0 and only start and end are
    # compared
    items: Positive | None = None
    patience: Positive | None = None  # stop after this many validations without an improvement


class TrainingRecipe(Recipe):
    """One training run.

    `method` names the objective (see `presets.PRESETS`); it sets `pairs`, `reference`, `sft_weight`, `group_by` and
    `samples_per_clip` where the recipe does not. Keys that a method does not use (`beta` for sft, `reward` where
    nothing is rewarded) have no effect, and the run says so (see `recipe_checks`).
    """

    other_names: ClassVar[Mapping[str, str]] = OTHER_NAMES

    method: MethodName = "rba-single"  # the objective; the paper's RBA-Single needs no reward
    # micro: shipped models in minutes; small: real ones on a laptop; full: your own
    track: Literal["micro", "small", "full"] = "micro"
    base: str = (
        "micro"  # checkpoint folder, Hub id or asset:NAME of the model to train; "micro" = the shipped base
    )
    trust_remote_code: bool = False  # run Python code that comes with the model; only `--trust` sets it
    # a folder, `{path, weight, kinds}`, or a list of these, which are mixed
    alignment_set: str | SetOptions | tuple[str | SetOptions, ...] = "runs/alignment-set"
    # auto: window for sets beyond 10 GiB, which reads them almost sequentially
    shuffle: Literal["auto", "full", "window"] = "auto"
    # Clips that are longer than the model can encode. drop: leave them out, because an answer to words that the model
    # did not get teaches it to invent; cut: train on their first part, as evaluation does; error: refuse the set
    long_clips: Literal["drop", "cut", "error"] = "drop"
    # leave out clips with longer answers; null: no limit but the context
    max_answer_tokens: Positive | None = None
    seed: int = 1  # of order, sampling and adapters: the same seed gives the same run
    # what the model gets in training. speech: the clips; transcript: their words, where the audio would be; silence: as
    # much silence. The last two are controls: what they gain was not learnt from speech
    hear: Literal["speech", "transcript", "silence"] = "speech"

    # objective

    # paper section 3: two scalars 0.2 and 0.1, read as w = 0.2, beta = 0.1 (the other order is possible); for sums of
    # log-probabilities, the method sets 2 and 1 for means, which are smaller by the length
    beta: Rate = 0.1
    # w: weight of the cross entropy of the teacher's answers, beside the method's own term
    sft_weight: Weight = 0.2
    # token: the score of an answer is the mean of its tokens' log-probabilities; sequence: their sum, which saturates
    # the loss for answers of hundreds of tokens. Set by the method: means without a reference, sums with one
    preference_reduction: Reduction = "sequence"
    # token: cross entropy per token, over the whole step; sequence: summed per answer (Eq. 1)
    sft_reduction: Reduction = "token"
    # token: mean over all tokens (DAPO); sequence: every answer weighs the same (GRPO), or sums per answer (scst, mrt)
    policy_reduction: Reduction = "token"
    # kd, gkd: token: mean over all tokens; sequence: mean over answers of their means
    distillation_reduction: Reduction = "token"
    # single: teacher's answer against own sample; group: best against worst sample by reward
    pairs: Literal["single", "group"] = "single"
    # file of given pairs (JSON lines of id, chosen, rejected), instead of sampled pairs
    pairs_file: str | None = None
    # clip that each side of a group's pair is scored on: its own, the chosen or the rejected one; the paper does not
    # say
    pair_audio: Literal["own", "chosen", "rejected"] = "own"
    # frozen model in the loss; opponent: the policy of the last iteration (SPIN)
    reference: Literal["none", "base", "opponent"] = "none"
    opponent_every: Positive = 50  # steps until the opponent is replaced
    preference: PreferenceOptions = PreferenceOptions()  # keys of single preference losses
    policy_gradient: PolicyGradientOptions = PolicyGradientOptions()  # keys of grpo, dapo, tars, scst and mrt
    tars: TarsOptions = TarsOptions()  # rewards that tars adds
    teacher: TeacherOptions = TeacherOptions()  # text teacher of kd, gkd, diva, blsp, audiochatllama
    # diva: compare the states of the first predicted token, or of all tokens
    hidden_positions: Literal["first", "all"] = "first"
    # gkd: probability that a step trains on the student's own answers instead of the teacher's; one draw per step, for
    # all of its groups, as in the paper
    student_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0

    # optimisation

    steps: Positive = 200  # optimiser steps; 200 is enough to see a small model change
    epochs: Rate | None = None  # instead of steps: passes through the groups
    groups_per_step: Positive = 8  # instructions per optimiser step, over all processes
    # clips per instruction; with fewer voices, a clip is sampled several times
    voices_per_group: Positive = 4
    learning_rate: Rate = 1e-4  # after the warm-up; 1e-4 is the paper's
    learning_rates: PartRates = PartRates()  # by part, where the parts need different rates
    # steps of linear growth to learning_rate; the paper has 3,000
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    weight_decay: Weight = 0.0  # 0: short runs from trained weights need none
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98  # the paper's "weight decay 0.98" is probably this
    # gradients with a larger norm are scaled down to it, so that one unusual step does no harm
    max_grad_norm: Rate = 1.0
    # with a frozen encoder each clip is encoded only once
    train_parts: tuple[Part, ...] = ("projector", "llm")
    lora: LoraOptions | None = None  # adapters instead of all weights of the LLM; null: all weights
    # bfloat16: autocast, trained weights stay float32; auto: the faster one, measured at the start of the run
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    # compute layers twice to save memory, a third slower; for large models
    gradient_checkpointing: bool = False
    # layout of answers in a batch (see `data/packing.py`); results differ by rounding only
    layout: Literal["pack", "share", "pad"] = "pack"
    # encode clips at their own length where the model allows it, otherwise padded to 30 s
    true_length: bool = True

    # rollout

    # 1: the policy itself, which on-policy losses assume; several values are used in turn
    temperature: Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 1.0
    # samples that form a group: those of all voices of an instruction, or those of one clip
    group_by: Literal["instruction", "clip"] = "instruction"
    samples_per_clip: Positive = 1  # voices already give several answers to one instruction
    # longer samples are cut off; 512 fits answers of 100 to 500 tokens
    max_new_tokens: Positive = 512
    # samples that were cut off at max_new_tokens. mask: pairs are compared up to the cut, policy gradients leave the
    # sample out of the loss (DAPO's overlong filtering); drop: the sample is not used; keep: used like a complete one
    truncated: Literal["keep", "mask", "drop"] = "mask"
    refresh_every: Positive = 1  # sample for this many steps at once: larger batches, slightly older policy
    rollout_batch: Positive = 128  # answers sampled together
    rollout: RolloutOptions = RolloutOptions()  # the engine that samples
    reward: RewardOptions = RewardOptions()  # rewards of samples, by kind of item

    # run

    save_every: Positive = 50  # steps between checkpoints, which a kill loses at most
    # keep the optimiser state of a finished run, twice the trained weights on disk: `--continue-from` then continues as
    # if more steps had been set, otherwise it starts with a new optimiser
    keep_state: bool = False
    # steps between writes of the step log, and between progress lines where there is no terminal
    log_every: Positive = 10
    # groups with samples, rewards and pair go to samples.jsonl every N steps, for people to read; 0: never
    samples_every: Annotated[int, Field(ge=0)] = 10
    eval_every: Annotated[int, Field(ge=0)] = 0  # validate every N steps; 0: never (but see validate_ends)
    # validate also before the first and after the last step, to compare held-out items
    validate_ends: bool = True
    validation: ValidationOptions = ValidationOptions()  # metric, items and patience
    select: Literal["last", "best"] = "last"  # weights that the run ends with; best: of the best validation
    budget_s: Rate | None = None  # stop after this many seconds of training time, summed over resumes
    batch_size: Positive = 32  # clips per forward pass of the validation
    # forward and backward passes per optimiser step; more for models that fill the memory
    accumulate: Positive = 1
    # number of steps whose clips are read and decoded ahead, in threads, while the model computes; 0: none
    prefetch: Annotated[int, Field(ge=0)] = 2
    cache_mb: Weight = 2048.0  # MB of encoder states kept in memory
    encoder_cache: str | None = None  # folder that keeps encoder states for later runs too
    report: bool = True  # write report.html at the end and on Ctrl-C; 5 to 12 MB, most of it plotly
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()  # also send the step log there

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
                self.hear == "transcript" and self.train_parts != ("llm",),
                "hear: transcript passes nothing through encoder or projector: set train_parts to [llm]",
            ),
            (
                self.hear != "speech" and self.method in ("diva", "tars"),
                f"{self.method} compares speech with its transcript: leave out hear, or choose another method",
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
