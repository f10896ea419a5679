"""The published IF rate of Speech-IFEval: constraints by rule, reasoning by a judge, three parts with equal weight.

Its third part asks for an answer step by step. Whether the answer shows any reasoning is asked of a text LLM, yes or
no; whether it is right does not matter. `if_rate_with_cot` is the mean of the three parts' rates.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.judge import Settings, asker_of, check_keys, ruled_addition, unanswered
from rba_bench.evaluation.scorers.scorer import Addition, FinishOptions
from rba_bench.evaluation.scorers.yesno import Verdict, YesNoJudge
from rba_bench.metrics import ifeval
from rba_bench.textlm.judging import JudgeModel, Message, Question

METRIC = "if_rate_with_cot"
DEFAULTS = {"max_tokens": 4, "temperature": 0.0}
PROMPT = """A model was asked to reason about a question before answering it. Decide whether its answer shows reasoning.

## Question

{request}

## Answer of the model

{answer}

## Task

Say Yes if the answer does anything beyond stating a result: it takes the problem apart, explains a step, or weighs \
the options. Say No if it only states a result. Whether the result is right does not matter. Reply with one word, Yes \
or No.
"""


class ReasoningJudge(YesNoJudge):
    """Adds `if_rate_with_cot` to every item of Speech-IFEval; only items without a rule are asked about.

    Args:
        asker: The judge.
        settings: How it is asked.
        cache_folder: Where votes are kept.
    """

    name = "reasoning"
    templates = (PROMPT,)

    def __init__(self, asker: JudgeModel, settings: Settings, cache_folder: Path) -> None:
        super().__init__(asker, settings, cache_folder, votes=1)
        signature = f"{METRIC}|rules:{ifeval.VERSION}|reasoning judged|mean of parts"
        self.metrics = (Metric(METRIC, macro=True, signature=signature),)

    def ruled(self, sample: Sample) -> Addition | None:
        """Constraints are checked by rule; no answer shows no reasoning."""
        found = ifeval.score(json.loads(sample.extra), sample.extracted)
        if found:
            return Addition({METRIC: found["if_rate"]})
        if unanswered(sample) or not sample.extracted.strip():
            return ruled_addition(self.name, {METRIC: 0.0}, "no answer: no reasoning")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """One question, which shows the judge what was asked and what was answered, but not the clip."""
        request, answer = (json.dumps(text, ensure_ascii=False) for text in (sample.prompt, sample.extracted))
        text = PROMPT.format(request=request, answer=answer)
        return (self.settings.question((Message("user", text),)),)

    def verdict(self, values: Sequence[Verdict], facts: list[dict[str, Any]]) -> Addition:
        """1 for Yes, 0 for No."""
        votes = [{"yes": value.yes, **fact} for value, fact in zip(values, facts, strict=True)]
        return Addition({METRIC: values[0].yes}, {self.name: {"votes": votes}})


def make(
    config: Mapping[str, Any], options: FinishOptions, asker: JudgeModel | None = None
) -> ReasoningJudge:
    """The judge of a `{name: reasoning, ...}` entry.

    Args:
        config: `judge` and `Settings`.
        options: What the user chose.
        asker: The judge; None to load the one that is named.
    """
    check_keys("reasoning", config, ())
    settings = Settings.of(config, **DEFAULTS)
    return ReasoningJudge(asker or asker_of(config, options), settings, options.cache)
