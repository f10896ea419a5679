"""Judges and other finishers of a record, made again to say what they are recorded to have said.

The finisher is the one that the evaluation makes; only its judge is replaced by one that looks its replies up in the
votes of the samples. So rules, seeds of retries, verdicts and length control are those of the evaluation's own code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.finishers import consistency
from rba_bench.evaluation.finishers import registry as finishers
from rba_bench.evaluation.finishers.base import Finisher, FinishOptions
from rba_bench.evaluation.judges.base import Judge
from rba_bench.evaluation.judges.length import NONE
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.records import RunRecord, Sample
from rba_bench.textlm.asking import Message, Question, Reply

Asked = tuple[tuple[Message, ...], int]


class RecordedJudge:
    """A judge whose replies are those of a record.

    Attributes:
        name: For tables.
        replies: By the messages and the seed they answer.
    """

    name = "recorded"

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self.replies: dict[Asked, Reply] = {}

    def identity(self) -> dict[str, Any]:
        """As the record has it."""
        return self._facts

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Replies that are recorded; a refusal to any other question."""
        for position, question in enumerate(questions):
            yield (
                position,
                self.replies.get(_asked(question), Reply("", status="refused", error="not recorded")),
            )

    def learn(self, judge: Judge[Any], samples: Sequence[Sample]) -> None:
        """Take the replies out of the votes of samples.

        Raises:
            ValueError: the votes have another form.
        """
        for sample in samples:
            votes = ((sample.judge or {}).get(judge.name) or {}).get("votes")
            if votes is None:
                continue
            questions = judge.questions(sample)
            if not isinstance(votes, list) or len(votes) != len(questions):
                raise ValueError(f"item {sample.id} has not the {len(questions)} votes of {judge.name}")
            for question, vote in zip(questions, votes, strict=True):
                self._keep(question, vote)

    def _keep(self, question: Question, vote: Any) -> None:
        if not isinstance(vote, dict):
            raise ValueError("a vote is no mapping")
        if "reply" in vote:
            odds = tuple((str(token), float(value)) for token, value in vote.get("top_logprobs") or ())
            self.replies[question.messages, int(vote["seed"])] = Reply(str(vote["reply"]), odds)


@dataclass(frozen=True)
class Replay:
    """What finishes a record again.

    Attributes:
        finishers: In order.
        not_computed: Metrics that need what is not here (tables, a model), and why.
        faults: Entries of the protocol that no finisher here describes itself by.
    """

    finishers: tuple[Finisher, ...]
    not_computed: dict[str, str]
    faults: tuple[str, ...]


def replay(
    record: RunRecord,
    samples: Sequence[Sample],
    config: Sequence[Mapping[str, Any]] | None,
    options: FinishOptions,
) -> Replay:
    """The finishers of a record.

    Args:
        record: Its `protocol_spec` lists them.
        samples: With their votes.
        config: `metadata.finish` of the task, None if it is not known here.
        options: Where votes and tables lie.
    """
    made: list[Finisher] = []
    missing: dict[str, str] = {}
    faults: list[str] = []
    entries = record.protocol_spec.get("finish") or []
    faults += _left_out(entries, config)
    for entry in entries:
        try:
            finisher = _finisher(entry, config, options, missing, record)
            if isinstance(finisher, Judge):
                finisher.give_up = None  # what is not recorded is a fault of the record, however much it is
                finisher.asker.learn(finisher, samples)  # type: ignore[attr-defined]
            faults += _described(finisher, entry, missing)
            made.append(finisher)
        except (UserError, ValueError, TypeError, LookupError, AttributeError) as error:
            faults.append(f"the entry {_name(entry)!r} of protocol_spec.finish cannot be: {error}")
    return Replay(tuple(made), missing, tuple(faults))


def _asked(question: Question) -> Asked:
    return question.messages, question.seed


def _name(entry: Any) -> str:
    return str(entry.get("name")) if isinstance(entry, Mapping) else str(entry)


def _left_out(entries: Sequence[Any], config: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """`--judge none` leaves all judges out; anything else that is missing is a fault."""
    if config is None:
        return []
    wanted = [_full_name(each) for each in config]
    judges = [_full_name(each) for each in config if each.get("name") in finishers.JUDGES]
    found = [_name(entry) for entry in entries]
    allowed = (wanted, [name for name in wanted if name not in judges])
    return (
        [] if found in allowed else [f"finished by {found or 'nothing'}, the task says {wanted or 'nothing'}"]
    )


def _full_name(config: Mapping[str, Any]) -> str:
    against = config.get("against")
    return f"{config.get('name')}{VERSUS}{against}" if against else str(config.get("name"))


def _finisher(
    entry: Mapping[str, Any],
    config: Sequence[Mapping[str, Any]] | None,
    options: FinishOptions,
    missing: dict[str, str],
    record: RunRecord,
) -> Finisher:
    name = _name(entry).partition(VERSUS)[0]
    if name == "consistency":
        if (record.protocol_spec.get("finish") or []) and entry.get("embedding"):
            missing["answer_cosine"] = "it needs the embedding model"
        return consistency.Consistency(None, "")
    known = next((each for each in config or () if _full_name(each) == _name(entry)), None)
    chosen = dict(known) if known is not None else _derived(name, entry)
    form = (entry.get("lc") or {}).get("form", NONE) if name == "pairwise" else None
    if form is not None:
        chosen["lc"] = form
    judge = RecordedJudge(entry["judge"])
    chosen = {key: value for key, value in chosen.items() if key not in ("name", "judge")}
    if name not in finishers.FACTORIES:
        raise UserError(f"there is no finisher {name!r}")
    make = import_module(finishers.FACTORIES[name]).make
    try:
        if form not in (None, NONE, "minimal") and options.data_dir is None:
            raise MissingPrerequisite("it needs AlpacaEval's tables: name them with --data-dir")
        made: Finisher = make(chosen, options, asker=judge)
    except MissingPrerequisite as error:
        made = make({**chosen, "lc": NONE}, options, asker=judge)
        missing[f"lc_{made.metrics[0].name}"] = str(error)
    return made


def _derived(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that is not known here, from how its finisher described itself."""
    decoding = entry.get("decoding") or {}
    found = {key: decoding[key] for key in ("max_tokens", "temperature", "top_logprobs", "seed", "retries")}
    if name == "pairwise":
        found["against"] = entry.get("against") or None
    if name in ("rating", "yesno"):
        found["votes"] = entry.get("votes")
    if name == "yesno":
        found["weighted"] = bool(found["top_logprobs"])
    return found


def _described(finisher: Finisher, entry: Mapping[str, Any], missing: Mapping[str, str]) -> list[str]:
    own = finisher.describe()
    skipped = {"embedding"} | ({"lc"} if any(name.startswith("lc_") for name in missing) else set())
    keys = sorted((own.keys() | entry.keys()) - skipped)
    differing = [key for key in keys if own.get(key) != entry.get(key)]
    return [f"protocol_spec.finish: {key} of {_name(entry)} is not this task's" for key in differing]
