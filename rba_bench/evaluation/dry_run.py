"""What a run would take, before anything is answered, judged or paid."""

from dataclasses import dataclass
from typing import Any

from rba_bench.evaluation.answering import unscored
from rba_bench.evaluation.decoding import settings
from rba_bench.evaluation.finishers import registry as finishers
from rba_bench.evaluation.finishers.base import Cost
from rba_bench.evaluation.plan import load_task
from rba_bench.evaluation.request import EvalRequest
from rba_bench.evaluation.runner import checked

WORD = "word "  # stands for a token of an answer that is not written yet


@dataclass(frozen=True)
class Estimate:
    """One judge (or other finisher) of one task; `judge` is "none" for a task without.

    Attributes:
        items: Items to answer.
        cost: Upper bound: every answer as long as the task allows, no vote kept.
    """

    task: str
    items: int
    judge: str
    cost: Cost

    def row(self) -> tuple[Any, ...]:
        """The estimate as cells of a table; an unknown price is "?"."""
        dollars = "?" if self.cost.dollars is None else f"{self.cost.dollars:.2f}"
        cost = self.cost
        return (
            self.task,
            self.items,
            self.judge,
            cost.calls,
            cost.prompt_tokens,
            cost.completion_tokens,
            dollars,
        )


def estimate(request: EvalRequest) -> list[Estimate]:
    """What each judge of each task would be asked. Loads documents, no model.

    Raises:
        UserError: as `evaluate`.
        MissingPrerequisite: the data is absent.
    """
    found = []
    for spec in checked(request):
        task = load_task(spec, request)
        longest = settings(task.get_config("generation_kwargs")).decoding.max_new_tokens
        docs = list(task.eval_docs)[: request.limit]
        samples = [unscored(index, doc, WORD * longest, doc["prompt"]) for index, doc in enumerate(docs)]
        costs = [(finisher, finisher.cost(samples)) for finisher in finishers.of(spec, request, asking=False)]
        found += [
            Estimate(spec.name, len(docs), str(finisher.describe().get("name")), cost)
            for finisher, cost in costs
        ] or [Estimate(spec.name, len(docs), "none", Cost(0, 0, dollars=0.0))]
    return found
