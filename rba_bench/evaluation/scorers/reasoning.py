"""The published IF rate of Speech-IFEval: constraints by rule, reasoning by a judge, three parts with equal weight.

Its third part asks for an answer step by step. Whether the answer shows any reasoning is asked of a text LLM, yes or
no; whether it is right does not matter. `if_rate_with_cot` is the mean of the three parts' rates.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rba_bench.evaluation.metric import ItemScore, metrics_of
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.judge import JudgeSettings, is_unanswered
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.evaluation.scorers.yesno import YesNoJudge, YesNoVote
from rba_bench.metrics.ifeval import VERSION as RULES_VERSION
from rba_bench.metrics.ifeval import if_rate
from rba_bench.textlm.judging import JudgeModel, Message, Question, quote_json

METRIC = "if_rate_with_cot"
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

    The scorer of a `{name: reasoning, ...}` entry.

    Args:
        judge_model: The judge.
        settings: How it is asked.
        cache_folder: Folder of the vote cache.
    """

    name = "reasoning"
    templates = (PROMPT,)
    own_options: tuple[str, ...] = ()

    def __init__(self, judge_model: JudgeModel, settings: JudgeSettings, cache_folder: Path) -> None:
        super().__init__(judge_model, settings, cache_folder, votes=1)
        (rate,) = metrics_of("reasoning")
        signature = f"{METRIC}|rules:{RULES_VERSION}|reasoning judged|mean of parts"
        self.metrics = (replace(rate, signature=signature),)

    @classmethod
    def default_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """One greedy vote."""
        return {"max_tokens": 4, "temperature": 0.0}

    @classmethod
    def read_own_options(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """None."""
        return {}

    def score_by_rule(self, sample: Sample) -> ItemScore | None:
        """Constraints are checked by rule; no answer shows no reasoning."""
        rate = if_rate(json.loads(sample.extra), sample.extracted)
        if rate is not None:
            return ItemScore({METRIC: rate})
        return self.by_rule(METRIC, 0.0, "no answer: no reasoning") if is_unanswered(sample) else None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """One question, which shows the judge what was asked and what was answered, but not the clip."""
        text = PROMPT.format(request=quote_json(sample.prompt), answer=quote_json(sample.extracted))
        return (self.settings.question((Message("user", text),)),)

    def verdict(self, values: Sequence[YesNoVote], facts: list[dict[str, Any]]) -> ItemScore:
        """1 for Yes, 0 for No."""
        votes = [{"yes": value.yes, **fact} for value, fact in zip(values, facts, strict=True)]
        return ItemScore({METRIC: values[0].yes}, {self.name: {"votes": votes}})
