"""The stage `ask`: candidates of a shard, each sampled from the teacher, judged by itself, and answered if usable.

A shard depends on its number alone, so shards can be asked in any order, on several machines, and again after a kill.
What depends on earlier candidates (repeated texts, quotas) is decided by the next stage, which never asks: so other
filters need no new answers.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Protocol

from rba_bench.synthesis.filters import KEPT, Tagger, judge_candidate, make_tagger, normalise
from rba_bench.synthesis.shards import (
    asked_name,
    finished_shard,
    make_plan,
    read_records,
    record_bytes,
    write_shard,
)
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import answer_candidates, sample_candidates
from rba_bench.synthesis.texts.text_rules import Drop, TextRules
from rba_bench.textlm.generation import checked_between_steps
from rba_bench.textlm.query_template import QueryTemplate
from rba_bench.textlm.text_model import TextLM

AHEAD = 3  # shards that may be asked before the next stage has taken the first of them
LANES = 4  # shards asked at once of a server, so that the last answers of one do not leave it idle
END_S = 10.0  # longest wait for a shard under way when the run is stopped


class StoppedError(Exception):
    """Nobody wants the shard that is asked."""


class Asker(Protocol):
    """Makes the records of a shard of candidates."""

    @property
    def shards(self) -> int:
        """How many there are at most."""
        ...

    def plan(self, number: int) -> Any:
        """Everything that decides the records of a shard, as JSON values."""
        ...

    def records(self, number: int) -> list[dict[str, Any]]:
        """A record for each candidate, in order: `index`, `reason` and, where it was answered, `answer`."""
        ...


@dataclass
class InstructionAsker:
    """Instructions that the teacher writes, and its answers (an `Asker`).

    Attributes:
        recipe: What to ask for.
        teacher: Who writes and answers.
        settings: What decides the records beside the number of the shard.
        query: What makes the teacher ask; by default the teacher's own.
        rules: Further rules of single texts; what they drop is not answered.
    """

    recipe: SynthesisRecipe
    teacher: TextLM
    settings: dict[str, Any]
    query: QueryTemplate | None = None
    rules: TextRules | None = None

    def __post_init__(self) -> None:
        self._tagger: Tagger = make_tagger(self.recipe)

    @property
    def shards(self) -> int:
        """See `Asker`."""
        return -(-self.recipe.most_candidates // self.recipe.round_size)

    def plan(self, number: int) -> Any:
        """See `Asker`."""
        return [self.settings, number]

    def records(self, number: int) -> list[dict[str, Any]]:
        """See `Asker`. Texts that occur twice in a shard are answered once: the second will be dropped."""
        candidates = [
            self._judged(candidate)
            for candidate in sample_candidates(self.teacher, self.recipe, number, self.query)
        ]
        seen: set[str] = set()
        to_answer = []
        for candidate in candidates:
            words = normalise(candidate["text"])
            if candidate["reason"] == KEPT and words not in seen:
                seen.add(words)
                to_answer.append(candidate)
        for candidate, answer in zip(
            to_answer, answer_candidates(self.teacher, self.recipe, to_answer), strict=True
        ):
            candidate["answer"] = self._judged_answer(candidate, answer)
        return candidates

    def _judged(self, candidate: dict[str, Any]) -> dict[str, Any]:
        judged = judge_candidate(candidate, self._tagger, self.recipe)
        if self.rules is None or judged["reason"] != KEPT:
            return judged
        return judged | drop_facts(self.rules.judge_instruction(judged["instruction"]))

    def _judged_answer(self, candidate: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if self.rules is None or answer["reason"] != KEPT:
            return answer
        return answer | drop_facts(self.rules.judge_answer(candidate["instruction"], answer["response"]))


def drop_facts(drop: Drop | None) -> dict[str, str]:
    """Reason and detail of what is dropped; {} for what is kept."""
    if drop is None:
        return {}
    return {"reason": drop.reason, **({"detail": drop.detail} if drop.detail else {})}


def ask_shard(out: Path, asker: Asker, number: int) -> tuple[list[dict[str, Any]], str]:
    """Records of a shard and the checksum of its file; what an earlier run asked is read."""
    name, plan = asked_name(number), make_plan(asker.plan(number))
    done = finished_shard(out, name, plan)
    if done is not None:
        return read_records(out / name), str(done["sha256"])
    records = asker.records(number)
    return records, str(write_shard(out, name, plan, record_bytes(records), n=len(records))["sha256"])


class AskAhead:
    """Asks shards in threads, ahead of the stage that takes them in their order; a context manager.

    Args:
        out: Folder of the set.
        asker: Makes the records.
        first: Number of the first shard that will be taken.
        lanes: Shards that are asked at once.
    """

    def __init__(self, out: Path, asker: Asker, first: int, lanes: int = 1) -> None:
        self.out, self.asker = out, asker
        self._taken = self._next = first
        self._ahead = AHEAD + lanes
        self._futures: dict[int, Future[tuple[list[dict[str, Any]], str]]] = {}
        self._changed, self._stopped = Condition(), False
        # daemons, because requests to a server cannot be ended from here
        self._threads = [Thread(target=self._work, name=f"ask-{i}", daemon=True) for i in range(lanes)]

    def take(self, number: int) -> tuple[list[dict[str, Any]], str]:
        """Records of the shard and its checksum, once it is asked.

        Raises:
            RbaError: the teacher failed.
        """
        with self._changed:
            self._taken = number
            future = self._futures.setdefault(number, Future())
            self._changed.notify_all()
        records = future.result()
        del self._futures[number]
        return records

    def __enter__(self) -> "AskAhead":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(END_S / len(self._threads))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._may_ask())
                if self._stopped:
                    return
                number, self._next = self._next, self._next + 1
                future = self._futures.setdefault(number, Future())
            try:
                with checked_between_steps(self._check):
                    future.set_result(ask_shard(self.out, self.asker, number))
            except BaseException as error:  # noqa: BLE001 - raised again where the shard is taken
                future.set_exception(error)
                return

    def _check(self) -> None:
        """Ends the work of this thread once nobody wants it any more: a local model stops between two tokens."""
        if self._stopped:
            raise StoppedError

    def _may_ask(self) -> bool:
        return self._next < min(self._taken + self._ahead, self.asker.shards)
