"""Recipe keys of everything in which a text model reads what the student hears. No torch in here."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rba_bench.recipes import Recipe
from rba_bench.textlm.template import TemplateVariables

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
