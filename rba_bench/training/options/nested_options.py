"""Recipe keys that have keys of their own (rewards, rollouts, teachers), and other trainers' names for our keys.

A key that other trainers call by another name is a likely typo; the error then names our key. No torch in here.
"""

from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, field_validator

from rba_bench.recipes import Recipe, suggest
from rba_bench.textlm.chat import TemplateVariables

RewardName = Literal[
    "reward-model",  # a sequence classifier on instruction and answer: `model`
    "bleu",  # sentence BLEU against the teacher's answer, 0 to 1
    "chrf",  # sentence chrF++ against the teacher's answer, 0 to 1
    "exact",  # equal to the teacher's answer after normalisation, 0 or 1
    "alias",  # the teacher's answer occurs in it, 0 or 1
    "overlap",  # token F1 with the teacher's answer, 0 to 1
    "teacher-logprob",  # log-likelihood under a text LM: `teacher`
    "similarity",  # cosine of sentence embeddings with the teacher's answer: `similarity_model`
    "judge",  # grade by a text LLM, 1 to 9: `judge`
    "self-judge",  # grade by the policy's own LLM, 1 to 5
]

Positive = Annotated[int, Field(gt=0)]


def _choice(value: Any) -> str | dict[str, float]:
    """A reward's name, or weights by name. One message instead of pydantic's two, one for each form."""
    names = get_args(RewardName)
    weights = {value: 1.0} if isinstance(value, str) else value
    if not isinstance(weights, dict) or not weights:
        raise ValueError("name a reward, or give weights such as {chrf: 1.0, similarity: 0.5}")
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(f"no reward {name!r}{suggest(str(name), names)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < float("inf"):
            raise ValueError(f"the weight of {name} must be a number")
        if weight == 0:
            raise ValueError(f"the weight of {name} is 0: leave it out")
    return value if isinstance(value, str) else {name: float(weight) for name, weight in value.items()}


# One reward, or a weighted sum of raw values (not standardised; mind their ranges)
RewardChoice = Annotated[str | dict[str, float], PlainValidator(_choice)]


class RewardOptions(Recipe):
    """Which reward judges the samples of each kind of item, and the models that some of them need."""

    instruct: RewardChoice = "reward-model"  # free instructions: knows quality, not one wording
    qa: RewardChoice = "alias"  # questions: whether the short answer is said
    s2tt: RewardChoice = "chrf"  # translations; the paper has BLEU, chrF++ is finer on short sentences

    model: str = "micro"  # folder or Hub id of the sequence classifier; "micro" = the shipped one
    output: Annotated[int, Field(ge=0)] | None = (
        None  # of a classifier with more than two: which is the reward
    )
    max_length: Positive | None = None  # tokens the classifier reads; None = as many as it can
    trust_remote_code: bool = False  # run Python code that comes with the classifier or the embedding model

    # folder or Hub id of the text LM behind `teacher-logprob`; "micro" = the shipped teacher
    teacher: str = "micro"
    # variables of its chat template; enable_thinking is false unless said here
    teacher_template: TemplateVariables = Field(default_factory=dict)

    similarity_model: str | None = None  # folder or Hub id of a sentence-transformers model
    similarity_prompt: str = ""  # name of one of that model's own prompts, put before both texts

    judge: str | None = None  # openai:<base_url>#<model>, a folder or a Hub id
    judge_template: TemplateVariables = Field(
        default_factory=dict
    )  # as teacher_template; servers get these alone
    judge_max_tokens: Positive = 16  # of a reply; a judge that thinks needs hundreds
    judge_reference: bool = False  # show the judge the teacher's answer too
    judge_patience: Positive = 32  # answers in a row without a grade that end the run

    # taken off for each word beyond the number of words of the teacher's answer; against longer and longer answers
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    # best minus worst must exceed this, else the group has no pair
    min_gap: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Positive = 64  # answers that a reward model reads together

    def weights_for(self, kind: str) -> dict[str, float]:
        """Weights by reward of one kind."""
        chosen: dict[str, str | dict[str, float]] = {
            "instruct": self.instruct,
            "qa": self.qa,
            "s2tt": self.s2tt,
        }
        choice = chosen[kind]
        return {choice: 1.0} if isinstance(choice, str) else dict(choice)


Seconds = Annotated[float, Field(gt=0)]


class RolloutOptions(Recipe):
    """Where samples come from: the model as it trains, or a vLLM server that `rba-bench train server` starts.

    Of these `engine` alone decides which tokens are drawn; the rest is no part of what a run is.
    """

    engine: Literal["local", "vllm"] = "local"  # vllm draws on GPUs of its own, and other random numbers
    url: str = "http://127.0.0.1:8000"  # vllm: where the server listens
    # vllm: how weights get there. folder: all of the decoder, through files that both sides see; lora: the adapter
    # alone, likewise; nccl: from GPU to GPU; auto: lora where the recipe has it, else folder
    weights: Literal["auto", "folder", "lora", "nccl"] = "auto"
    folder: str | None = (
        None  # vllm: for those files, on memory (/dev/shm/...) if there is some; null: in the run's
    )
    master: str | None = None  # nccl: host:port of this process that the server's workers can reach
    in_flight: Positive = 128  # vllm: requests at once, over one process; the server queues what is too much
    timeout_s: Seconds = 600.0  # vllm: longest wait for one answer
    # vllm: nats by which its log-probabilities of a probe may differ from those here after each transfer; null: 0.01,
    # or 0.1 with precision bfloat16, where both sides round
    tolerance: Annotated[float, Field(gt=0)] | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value:
            raise ValueError("write it as http://host:port, without credentials")
        return value.rstrip("/").removesuffix("/v1")


# BLSP (arXiv 2309.00916) has one instruction for all transcripts; these are its words
CONTINUE = "Continue the following text in a coherent and engaging style with less than 40 words."

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class AnswerOptions(Recipe):
    """The own LLM's answers, for `blsp` and `audiochatllama`; written once, before the first step."""

    prompt: str = CONTINUE  # blsp: stands beside the transcript, and later beside the clip
    max_new_tokens: Annotated[int, Field(gt=0)] = (
        128  # longer answers are left out, not cut: they have no end
    )
    temperature: Weight = 0.0  # 0 = the likeliest answer, so that the set depends on the weights alone
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1 = nothing is left out
    batch_size: Annotated[int, Field(gt=0)] = 64  # transcripts answered together

    @field_validator("prompt")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("say what to do with the transcript")
        return value


class TeacherOptions(Recipe):
    """The text teacher of `kd`, `gkd` and `diva`, and what is taken from it."""

    # `self`: the model's own LLM as it was at the start; `micro`: the shipped teacher; else a folder or Hub id of a
    # causal LM with the student's vocabulary
    model: str = "self"
    # variables of the chat template of another model; enable_thinking is false unless said here
    template: TemplateVariables = Field(default_factory=dict)
    divergence: Literal["forward", "reverse", "jsd"] = "forward"  # forward: Ultravox and BLSP-KD
    jsd_weight: Share = 0.5  # of the teacher's side in the mixture (GKD)
    temperature: Annotated[float, Field(gt=0)] = 2.0  # Ultravox and BLSP-KD
    # likeliest tokens that are computed once and kept; 0 = the whole vocabulary, computed in every step
    top_k: Annotated[int, Field(ge=0)] = 0
    end_weight: Weight = (
        1.0  # of the divergence where the answer ends, beside that over the answer (Ultravox)
    )
    hidden_weight: Weight = 1.0  # diva: distance of the states that predict the first token
    words_weight: Weight = 1.0  # diva: distance of the last audio tokens from the transcript's embeddings
    # half precision saves a quarter of the disk; log-probabilities then err by up to 4e-3, a divergence by about 1e-4
    kept_as: Literal["float32", "float16"] = "float32"
    folder: str | None = None  # of what is kept; None = under RBA_CACHE, for all runs together
    memory_mb: Weight = 512.0  # of what is kept, in memory
    batch_tokens: Annotated[int, Field(gt=0)] = (
        16384  # prompt and answer tokens read at once, padding included
    )
    answers: AnswerOptions = AnswerOptions()  # the own LLM's, which blsp and audiochatllama train on


OTHER_NAMES = {
    **dict.fromkeys(("lr", "learningrate", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("max_steps", "num_steps", "train_steps", "total_steps"), "steps"),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "epoch"), "epochs"),
    **dict.fromkeys(
        ("per_device_train_batch_size", "train_batch_size", "batch", "global_batch_size"), "groups_per_step"
    ),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum", "accumulation"), "accumulate"),
    **dict.fromkeys(("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("model", "model_name_or_path", "base_model", "init_from"), "base"),
    **dict.fromkeys(("dataset", "data", "train_data", "alignment_sets"), "alignment_set"),
    **dict.fromkeys(("warmup", "num_warmup_steps", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), "schedule"),
    **dict.fromkeys(("save_steps", "checkpoint_every"), "save_every"),
    **dict.fromkeys(("eval_steps", "validate_every"), "eval_every"),
    **dict.fromkeys(("num_generations", "n_samples", "num_samples"), "samples_per_clip"),
    **dict.fromkeys(("max_completion_length", "max_length", "max_tokens"), "max_new_tokens"),
    **dict.fromkeys(("kl_coef", "kl_beta", "kl"), "policy_gradient.kl_weight"),
    **dict.fromkeys(("lora_r", "lora_rank", "rank"), "lora.r"),
    **{"lora_alpha": "lora.alpha", "lora_targets": "lora.targets", "target_modules": "lora.targets"},
    **{
        "objective": "method",
        "loss_type": "method",
        "grad_clip": "max_grad_norm",
        "logging_steps": "log_every",
    },
    **{"early_stopping_patience": "validation.patience", "patience": "validation.patience"},
}
