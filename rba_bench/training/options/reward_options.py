"""Which reward judges the samples of each kind of item, and the models that some of them need."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PlainValidator

from rba_bench.recipes import Recipe, suggest
from rba_bench.textlm.template import TemplateVariables

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
