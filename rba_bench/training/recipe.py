"""What a training run is: every choice, its default and why. `recipes/*.yaml` are instances of this."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rba_bench.recipes import Recipe

Kind = Literal["instruct", "qa", "s2tt"]
RewardName = Literal["reward-model", "bleu", "chrf", "exact", "alias", "teacher-logprob"]
Method = Literal["sft", "rba-single", "rba-group", "dpo"]
Part = Literal["projector", "llm", "encoder"]

Positive = Annotated[int, Field(gt=0)]


class RewardOptions(Recipe):
    """Which reward judges the samples of each kind of item, and the models two of them need."""

    instruct: RewardName = "reward-model"
    qa: RewardName = "alias"
    s2tt: RewardName = "chrf"
    model: str = "micro"  # folder of the sequence classifier; "micro" = the shipped one
    teacher: str = (
        "micro"  # folder or Hub id of the text LM behind `teacher-logprob`; "micro" = the shipped teacher
    )
    min_gap: Annotated[float, Field(ge=0)] = (
        0.0  # best minus worst must exceed this, else the group has no pair
    )
    batch_size: Positive = 64

    def name_for(self, kind: str) -> RewardName:
        """The reward of one kind."""
        names: dict[str, RewardName] = {"instruct": self.instruct, "qa": self.qa, "s2tt": self.s2tt}
        return names[kind]


class LoraOptions(Recipe):
    """Low-rank adapters on the language model instead of all its weights; merged into the final checkpoint."""

    r: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    # names of linear layers in the decoder; the encoder is never adapted
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    @field_validator("targets")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one module")
        return value


class TrainingRecipe(Recipe):
    """One training run.

    Methods: `sft` (cross entropy on the teacher's answers), `rba-single` (teacher's answer against the model's own
    sample), `rba-group` (best against worst sample of a voice group by reward), `dpo` (pairs of rba-single, against a
    frozen copy of the base, without the SFT term). Keys that a method has no use for (`beta` for sft, `sft_weight` for
    dpo, `reward` for all but rba-group) change nothing.
    """

    method: Method = "rba-single"
    track: Literal["micro", "full"] = "micro"
    base: str = "micro"  # checkpoint folder of the model to train; "micro" = the shipped base
    alignment_set: str = "runs/alignment-set"
    seed: int = 1

    # objective; paper section 3: two scalars 0.2 and 0.1, read as w = 0.2, beta = 0.1 (the other order is possible)
    beta: Annotated[float, Field(gt=0)] = 0.1
    sft_weight: Annotated[float, Field(ge=0)] = 0.2
    reference: bool = False  # preference on log-ratios to the frozen base (always so for `dpo`)
    length_normalized: bool = False  # mean instead of sum of token log-probs, in every term

    # optimisation; the paper: warm-up of 3,000 steps to 1e-4, then presumably constant
    steps: Positive = 200
    groups_per_step: Positive = 8  # instructions per optimiser step, over all processes
    voices_per_group: Positive = 4  # clips per instruction; with fewer voices, several samples of one clip
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98  # the paper's "weight decay 0.98" is probably this
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    train_parts: tuple[Part, ...] = ("projector", "llm")
    lora: LoraOptions | None = None
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 = autocast; weights stay float32
    gradient_checkpointing: bool = False
    share_prefix: bool = (
        True  # all answers to a clip in one row behind its audio; off for decoders without 4-D masks
    )

    # rollout
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_new_tokens: Positive = 48
    refresh_every: Positive = 1  # sample for this many steps at once: bigger batches, slightly older policy
    rollout_batch: Positive = 128  # answers sampled together
    reward: RewardOptions = RewardOptions()

    # run
    save_every: Positive = 50
    log_every: Positive = 10
    eval_every: Annotated[int, Field(ge=0)] = 0  # validation loss every N steps; 0 = never
    budget_s: Annotated[float, Field(gt=0)] | None = (
        None  # stop after this much training time, summed over resumes
    )
    batch_size: Positive = 32  # clips per forward of the validation
    accumulate: Positive = (
        1  # forward and backward passes per optimiser step, for models that fill the memory
    )
    cache_mb: Annotated[float, Field(ge=0)] = 2048.0  # encoder states kept in memory

    @field_validator("train_parts")
    @classmethod
    def _distinct(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name one or more of projector, llm, encoder, each once")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingRecipe":
        if self.lora is not None and "llm" not in self.train_parts:
            raise ValueError("lora adapts the language model: add `llm` to train_parts or drop `lora`")
        if self.method == "dpo" and "reference" in self.model_fields_set and not self.reference:
            raise ValueError("dpo needs its reference; the reference-free form is rba-single")
        if self.method == "rba-group" and self.voices_per_group < 2:
            raise ValueError("rba-group compares samples within a group: voices_per_group must be at least 2")
        return self

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen copy of the base scores the pairs."""
        return self.method == "dpo" or (self.reference and self.method != "sft")

    @property
    def sft_term_weight(self) -> float:
        """Weight of the teacher's cross entropy beside the preference term."""
        return 0.0 if self.method == "dpo" else self.sft_weight

    @property
    def uses_rollout(self) -> bool:
        """Whether the model is sampled during training."""
        return self.method != "sft"

    @property
    def encoder_frozen(self) -> bool:
        """Whether a clip's encoder states can be computed once and kept."""
        return "encoder" not in self.train_parts
