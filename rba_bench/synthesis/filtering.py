"""The stage `filter`: which candidates become part of the set, shard by shard in their order.

The order decides: of two equal texts the earlier stays, and quotas are filled by whoever comes first. What later
shards need to know of earlier ones is a number for each kept text and the counts of each kind; both are stored with a
shard, so a run that goes on reads no texts.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio.turns import TURNS, Turn
from rba_bench.files import sha256_bytes, sha256_file, write_atomic
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.quality import AnswerScorer
from rba_bench.synthesis.shards import (
    filtered_name,
    finished_shard,
    known_fact,
    make_plan,
    read_records,
    record_bytes,
    state_name,
    write_shard,
)
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import Labeller
from rba_bench.synthesis.texts.exact_duplicates import ExactDuplicates
from rba_bench.synthesis.texts.near_duplicates import (
    NearDuplicates,
    Sketches,
    TextsInTurn,
    sketch_texts,
)
from rba_bench.synthesis.units import Dialogue, Unit, read_unit, split_of, text_id

SCORE_DIGITS = 4  # the next ones depend on the batch
_LABELS = ("kind", "prompt", "instruction", "source_lang", "target_lang", "topic", "difficulty")


@dataclass(frozen=True)
class FilteredShard:
    """What became of a shard of candidates.

    Attributes:
        number: Of the shard.
        sha256: Checksum of its file.
        kept: How many of its candidates are part of the set.
        instructions, answers: Candidates by reason; KEPT is one.
        turns: Dialogues that ended with a bad text, by the number of the turn, `instruction` or `answer`, and reason.
    """

    number: int
    sha256: str
    kept: int
    instructions: Counter[str]
    answers: Counter[str]
    turns: Counter[tuple[str, ...]] = field(default_factory=Counter)


class ShardFilter(ABC):
    """Decides about the candidates of shards that come in their order.

    Attributes:
        kinds: Kept candidates of each kind so far.
    """

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()

    @property
    @abstractmethod
    def enough(self) -> bool:
        """Whether no further shard is needed."""

    @abstractmethod
    def decide(self, asked: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """What becomes of the candidates of a shard, in order, and what later shards must know of it.

        A decision has `index`, `reason` (but for recordings) and, where the candidate was answered, `answer`: KEPT or
        why not. What is kept in both is a unit, with all its fields.
        """

    def restore(self, state: Mapping[str, np.ndarray], kinds: Mapping[str, int]) -> None:
        """Take in a shard that was decided before, and the counts behind it."""
        del state
        self.kinds = Counter(kinds)

    def facts(self) -> dict[str, Any]:
        """Models that labelled or scored, for the manifest: by its key what identifies each."""
        return {}

    def settings(self, config: dict[str, Any]) -> dict[str, Any]:
        """What decides beside the candidates: the recipe, and the weights behind the models that it names.

        Ask before the first shard is decided: how a server labels is known better later, but stays the same.
        """
        models = self.facts()
        if not models:
            return config
        known = {use: {k: v for k, v in facts.items() if k != "path"} for use, facts in models.items()}
        return {**config, "models": known}

    def units(self, out: Path, number: int) -> Iterator[Any]:
        """What is kept of a shard, in order, as the stage `speak` takes it."""
        return kept_units(out, number)


class InstructionFilter(ShardFilter):
    """Repeated texts, the most of each kind, and how many are wanted.

    Args:
        recipe: The wanted numbers, and what counts as nearly the same.
        labeller: Labels topic and difficulty of what is kept; None keeps those of the candidates.
        scorer: Scores answers for `text_filters.quality`; None where nothing is scored.
    """

    def __init__(
        self, recipe: SynthesisRecipe, labeller: Labeller | None = None, scorer: AnswerScorer | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.labeller, self.scorer = recipe, labeller, scorer
        self._seen = ExactDuplicates()
        options = recipe.text_filters.near_duplicates
        self._near = None if options is None else NearDuplicates(options)
        self._in_turn: TextsInTurn | None = None  # the texts of the shard that is decided

    @property
    def enough(self) -> bool:
        """See `ShardFilter`."""
        return self.kinds.total() >= self.recipe.n_instructions

    def decide(self, asked: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """See `ShardFilter`.

        An instruction whose answer is unusable gives its place back to later shards alone, as it would if its shard
        were answered after it was filtered.
        """
        candidates = list(asked)
        sketches = self._sketches(candidates)
        decisions, numbers, places, unanswered = [], [], [], []
        answered: list[tuple[dict[str, Any], dict[str, Any]]] = []  # decisions with their candidates
        for place, candidate in enumerate(candidates):
            number = text_number(*said_by_user(candidate))
            reason = self._reason(candidate, number) or self._near_reason(sketches, place)
            decision: dict[str, Any] = {"index": candidate["index"], "reason": reason}
            if "detail" in candidate:
                decision["detail"] = candidate["detail"]
            if ended := ended_at(candidate):
                decision["ended"] = ended
            if reason == KEPT:
                self._seen.add(np.asarray([number], np.uint64))
                numbers.append(number)
                places.append(place)
                self.kinds[candidate["kind"]] += 1
                decision["answer"] = candidate["answer"]["reason"]
                if decision["answer"] == KEPT:
                    answered.append((decision, candidate))
                else:
                    unanswered.append(candidate["kind"])
            decisions.append(decision)
        self._score(answered)
        for decision, candidate in answered:
            if decision["answer"] == KEPT:
                decision |= asdict(self._unit(candidate))
            else:
                unanswered.append(candidate["kind"])
        self.kinds.subtract(unanswered)
        self._label([decision for decision in decisions if decision.get("answer") == KEPT])
        state = {"texts": np.asarray(numbers, dtype=np.uint64)}
        if sketches is not None:
            kept = sketches[np.asarray(places, dtype=np.int64)]
            state |= {"bands": kept.bands, "values": kept.values}
        return decisions, state

    def restore(self, state: Mapping[str, np.ndarray], kinds: Mapping[str, int]) -> None:
        """See `ShardFilter`."""
        super().restore(state, kinds)
        self._seen.add(state["texts"])
        if self._near is not None:
            self._near.insert(Sketches(state["bands"], state["values"]))

    def facts(self) -> dict[str, Any]:
        """See `ShardFilter`."""
        facts = {} if self.labeller is None else {"labels": self.labeller.identity()}
        options = self.recipe.text_filters.quality
        if self.scorer is None or options is None:
            return facts
        return {**facts, "quality": {**self.scorer.identity(), "min": options.min}}

    def _sketches(self, candidates: Sequence[dict[str, Any]]) -> Sketches | None:
        """Of all texts of a shard, by which near duplicates are found; None where none are looked for."""
        if self._near is None:
            return None
        texts = [" ".join(said_by_user(candidate)) for candidate in candidates]
        sketches = sketch_texts(texts, self._near.options)
        usable = [place for place, candidate in enumerate(candidates) if candidate["reason"] == KEPT]
        self._in_turn = TextsInTurn(self._near, sketches, usable)
        return sketches

    def _near_reason(self, sketches: Sketches | None, place: int) -> str:
        """Whether a text that is new otherwise nearly repeats one that was kept; if not, it is kept from now on."""
        if self._in_turn is None or sketches is None:
            return KEPT
        return "near_duplicate" if self._in_turn.add(place) >= 0 else KEPT

    def _score(self, answered: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Record the score of each usable answer; those that are too low are usable no more."""
        options = self.recipe.text_filters.quality
        if self.scorer is None or options is None or not answered:
            return
        # an answer is judged by what was asked
        requests = [f"{candidate['text']}{self.recipe.answer_prompt or ''}" for _, candidate in answered]
        scores = self.scorer.score(requests, [candidate["answer"]["response"] for _, candidate in answered])
        for (decision, _), score in zip(answered, scores, strict=True):
            if math.isnan(score):
                decision["answer"] = "not_scored"
                continue
            decision["score"] = round(score, SCORE_DIGITS)
            if options.min is not None and decision["score"] < options.min:
                decision["answer"] = "low_score"

    def _label(self, kept: list[dict[str, Any]]) -> None:
        if self.labeller is None or not kept:
            return
        # of a dialogue the whole: a later turn alone ("And in winter?") tells no topic
        texts = [" ".join(said_by_user(decision, "instruction")) for decision in kept]
        for decision, labels in zip(kept, self.labeller.label(texts), strict=True):
            decision["topic"], decision["difficulty"] = labels.topic, labels.difficulty

    def _reason(self, candidate: dict[str, Any], number: int) -> str:
        """Why a candidate is dropped before its text is compared with others; "" if it is not."""
        if candidate["reason"] != KEPT:
            return str(candidate["reason"])
        if number in self._seen or "answer" not in candidate:  # it stands twice in its shard
            return "duplicate"
        quotas: Mapping[str, int] | None = self.recipe.kinds  # type: ignore[assignment]
        if quotas is not None and self.kinds[candidate["kind"]] >= quotas.get(candidate["kind"], 0):
            return "quota"
        return "surplus" if self.enough else ""

    def _unit(self, candidate: dict[str, Any]) -> Unit:
        texts = said_by_user(candidate)
        # by the first turn, so that dialogues that begin alike, and a set of one turn, are split alike
        split = split_of(text_id(texts[0]), self.recipe.validation_fraction)
        labels = {name: candidate[name] for name in _LABELS}
        values = {"group_id": text_id(*texts), "split": split, "response": candidate["answer"]["response"]}
        if not candidate.get(TURNS):
            return Unit(**values, **labels)
        earlier = (Turn(one["instruction"], one["answer"]["response"]) for one in candidate[TURNS])
        return Dialogue(**values, **labels, turns=tuple(earlier))


def said_by_user(record: Mapping[str, Any], key: str = "text") -> list[str]:
    """The user's turns of a record in order, one where it is no dialogue."""
    return [str(one[key]) for one in (*record.get(TURNS, ()), record)]


def ended_at(candidate: Mapping[str, Any]) -> list[str]:
    """At which turn a dialogue ended early, `instruction` or `answer`, and why; [] for others."""
    if TURNS not in candidate:
        return []
    turn = str(len(candidate[TURNS]) + 1)
    if candidate["reason"] != KEPT:
        return [turn, "instruction", candidate["reason"]]
    reason = candidate["answer"]["reason"]
    return [] if reason == KEPT else [turn, "answer", reason]


def text_number(*texts: str) -> int:
    """64 bits of the words of texts; among a million, two are mistaken for one in one set of 37 million."""
    return int(text_id(*texts), 16)


def filter_shard(
    out: Path,
    shards: ShardFilter,
    settings: Any,
    before: FilteredShard | None,
    number: int,
    take: Callable[[int], tuple[list[dict[str, Any]], str]],
) -> FilteredShard:
    """Decide about a shard, or read what an earlier run decided.

    Args:
        out: Folder of the set.
        shards: Has seen all shards before this one.
        settings: What decides beside the candidates, as JSON values.
        before: The shard before this one.
        number: Of the shard.
        take: Gives its candidates and their checksum; is not called where the shard is done.
    """
    name, chain = filtered_name(number), before.sha256 if before is not None else ""
    done = _finished(out, number, settings, chain)
    if done is not None:
        shards.restore(_load_state(out / state_name(number)), done["kinds"])
    else:
        records, asked = take(number)
        decisions, state = shards.decide(records)
        packed = _state_bytes(state)
        write_atomic(out / state_name(number), packed)
        kept = [decision for decision in decisions if decision.get("answer") == KEPT]
        done = write_shard(
            out,
            name,
            make_plan(settings, chain, asked),
            record_bytes(decisions),
            asked=asked,
            state_sha256=sha256_bytes(packed),
            kept=len(kept),
            kinds=dict(shards.kinds),
            instructions=Counter(decision["reason"] for decision in decisions if "reason" in decision),
            answers=Counter(decision["answer"] for decision in decisions if "answer" in decision),
            **_count_ended(decisions),
        )
    instructions, answers = (Counter(done[part]) for part in ("instructions", "answers"))
    turns = Counter({tuple(place): n for place, n in done.get(TURNS, ())})
    return FilteredShard(number, done["sha256"], done["kept"], instructions, answers, turns)


def _count_ended(decisions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the marker of a shard of dialogues: those that ended early, by place; nothing for others."""
    ended = Counter(tuple(decision["ended"]) for decision in decisions if "ended" in decision)
    return {TURNS: sorted(ended.items())} if ended else {}


def _finished(out: Path, number: int, settings: Any, chain: str) -> dict[str, Any] | None:
    """The marker of a shard whose decisions and state are there and whole."""
    asked = known_fact(out, filtered_name(number), "asked")
    done = None
    if asked is not None:
        done = finished_shard(out, filtered_name(number), make_plan(settings, chain, asked))
    state = out / state_name(number)
    whole = done is not None and state.is_file() and sha256_file(state) == done["state_sha256"]
    return done if whole else None


def kept_units(out: Path, number: int) -> Iterator[Unit]:
    """The kept instructions of a shard, in order."""
    return (unit for _, unit in indexed_units(out, number))


def indexed_units(out: Path, number: int) -> Iterator[tuple[int, Unit]]:
    """The same, each with the index of its candidate."""
    for record in read_records(out / filtered_name(number)):
        if record.get("answer") == KEPT:
            yield record["index"], read_unit(record)


def _state_bytes(state: Mapping[str, np.ndarray]) -> bytes:
    sink = BytesIO()
    np.savez(sink, **dict(state))  # type: ignore[arg-type]  # its stub takes the names for options
    return sink.getvalue()


def _load_state(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
