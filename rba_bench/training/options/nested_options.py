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
    "asserted",  # the teacher's answer, or a reference of the set, is asserted and nothing else, 0 or 1
    "alias",  # the teacher's answer, or a reference of the set, occurs in it, 0 or 1
    "checks",  # share of the set's constraints that it keeps to, 0 to 1
    "overlap",  # token F1 with the teacher's answer, 0 to 1
    "teacher-logprob",  # log-likelihood under a text LM: `teacher`
    "teacher-logprob-mean",  # the same per token, which does not favour short answers
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
    """The reward of each kind of item, and the models that some rewards need."""

    instruct: RewardChoice = "reward-model"  # free instructions: scores quality, not one wording
    qa: RewardChoice = "alias"  # questions: whether the short answer occurs
    s2tt: RewardChoice = "chrf"  # translations; the paper uses BLEU, chrF++ is finer on short sentences
    ifeval: RewardChoice = "checks"  # instructions with constraints that a program checks

    model: str = "micro"  # folder or Hub id of the sequence classifier; "micro" = the shipped one
    # which output is the reward, for a classifier with more than two
    output: Annotated[int, Field(ge=0)] | None = None
    # longest conversation that the classifier reads, in tokens; null: as many as it can
    max_length: Positive | None = None
    trust_remote_code: bool = False  # run Python code that comes with the classifier or the embedding model

    # folder, GGUF file, Hub id or asset:NAME of the text LM behind `teacher-logprob` and `teacher-logprob-mean`;
    # "micro" = the shipped teacher
    teacher: str = "micro"
    # variables of its chat template; enable_thinking is false unless set here
    teacher_template: TemplateVariables = Field(default_factory=dict)

    similarity_model: str | None = None  # folder or Hub id of a sentence-transformers model
    similarity_prompt: str = ""  # name of one of that model's own prompts, put before both texts

    judge: str | None = None  # openai:<base_url>#<model>, a folder, a GGUF file, a Hub id or asset:NAME
    # like teacher_template; servers get only these variables
    judge_template: TemplateVariables = Field(default_factory=dict)
    judge_max_tokens: Positive = 16  # longest reply of the judge; a judge that thinks needs hundreds
    judge_reference: bool = False  # also show the judge the teacher's answer
    judge_patience: Positive = 32  # the run ends after this many answers in a row without a grade

    # subtracted for each word beyond the length of the teacher's answer; against longer and longer answers
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    # a group has a pair only if best minus worst reward exceeds this
    min_gap: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Positive = 64  # answers per forward pass of a reward model

    def weights_for(self, kind: str) -> dict[str, float]:
        """Weights by reward of one kind."""
        choice: str | dict[str, float] = getattr(self, kind)
        return {choice: 1.0} if isinstance(choice, str) else dict(choice)


Seconds = Annotated[float, Field(gt=0)]


class RolloutOptions(Recipe):
    """Where samples come from: the model as it trains, or a vLLM server that `rba-bench train server` starts.

    Only `engine` decides which tokens are sampled; the other keys do not change the result of a run.
    """

    engine: Literal["local", "vllm"] = "local"  # vllm: samples on GPUs of its own, with other random numbers
    url: str = "http://127.0.0.1:8000"  # vllm: address of the server
    # vllm: how the weights are sent. folder: the whole decoder, in files that both sides can read; lora: the adapter
    # alone, in such files; nccl: from GPU to GPU; auto: lora where the recipe has it, otherwise folder
    weights: Literal["auto", "folder", "lora", "nccl"] = "auto"
    # vllm: folder for these files, in memory (/dev/shm/...) if possible; null: in the folder of the run
    folder: str | None = None
    master: str | None = None  # nccl: host:port of this process, reachable from the server's workers
    in_flight: Positive = 128  # vllm: concurrent requests per process; the server queues the rest
    timeout_s: Seconds = 600.0  # vllm: longest wait for one answer
    # vllm: largest mean difference, in nats per token, between its log-probabilities of a probe and those of the policy
    # after each transfer; null: 0.01, or 0.1 with precision bfloat16, where both sides round
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

    prompt: str = CONTINUE  # blsp: instruction beside the transcript, and later beside the clip
    # longer answers are left out, because cut answers have no end
    max_new_tokens: Annotated[int, Field(gt=0)] = 128
    temperature: Weight = 0.0  # 0: greedy answers, so that the set depends on the weights alone
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # 1: sample from all tokens
    batch_size: Annotated[int, Field(gt=0)] = 64  # transcripts per batch

    @field_validator("prompt")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("give an instruction for the transcript")
        return value


class TeacherOptions(Recipe):
    """The text teacher of `kd`, `gkd` and `diva`, and how the student learns from it."""

    # `self`: the model's own LLM as it was at the start; `micro`: the shipped teacher; else a folder or Hub id of a
    # causal LM with the student's vocabulary
    model: str = "self"
    # variables of the chat template of another model; enable_thinking is false unless set here
    template: TemplateVariables = Field(default_factory=dict)
    divergence: Literal["forward", "reverse", "jsd"] = "forward"  # forward: as in Ultravox and BLSP-KD
    jsd_weight: Share = 0.5  # weight of the teacher in the mixture of the JSD (GKD)
    temperature: Annotated[float, Field(gt=0)] = 2.0  # of both distributions; 2 in Ultravox and BLSP-KD
    # keep this many likeliest tokens of each position, computed once; 0: the whole vocabulary, computed in every step
    top_k: Annotated[int, Field(ge=0)] = 0
    # weight of an additional divergence at the end of the answer (Ultravox)
    end_weight: Weight = 1.0
    hidden_weight: Weight = 1.0  # diva: weight of the distance between hidden states
    # diva: weight of the distance of the last audio tokens from the transcript's embeddings
    words_weight: Weight = 1.0
    # number type on disk; float16 saves a quarter, with errors of up to 4e-3 in log-probabilities and 1e-4 in
    # divergences
    kept_as: Literal["float32", "float16"] = "float32"
    folder: str | None = None  # folder of the kept tokens; null: under RBA_CACHE, shared by all runs
    memory_mb: Weight = 512.0  # MB of kept tokens in memory
    # prompt and answer tokens per forward pass of the teacher, with padding
    batch_tokens: Annotated[int, Field(gt=0)] = 16384
    # answers of the model's own LLM, which blsp and audiochatllama train on
    answers: AnswerOptions = AnswerOptions()


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
