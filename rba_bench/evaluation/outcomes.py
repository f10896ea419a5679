"""Whether a run may have a record: a score is written only where enough of the test set was answered.

Failures are told apart by their cause, since only the model's own may cost it points:

    error      the model failed on this item: scored as an empty answer
    not_heard  the clip cannot be decoded: no score
    no_reply   the server gave no usable reply, after all retries: no score

A run without a single reply gets no record, and neither does one in which more than `UNSCORED_SHARE` of the items have
no score for a reason outside the model. Answers that came are kept, and the same command asks for the rest. Empty
replies are replies: a model that answers every item with nothing gets the score of empty answers, with a warning.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, Sample
from rba_bench.progress import say

UNSCORED_SHARE = 0.5  # beyond it, the score would describe another test set than the one it is named after
MEANING = {
    "error": "the model failed, which counts as an empty answer",
    "not_heard": "the clip cannot be decoded, so there is no score",
    "no_reply": "the server gave no usable reply, so there is no score",
}
ItemOutcome = tuple[str, str]  # status (`empty` wherever there is no text to score), and why it is not `ok`

_REFUSAL = re.compile(r"4\d\d\b(?<!408)(?<!409)(?<!425)(?<!429)")  # the server finds the request itself wrong


def item_outcome(status: str, text: str, reason: str) -> ItemOutcome:
    """The outcome of one item.

    Args:
        status: Of the item.
        text: What of its reply is scored.
        reason: Why it is not `ok`.
    """
    return (status if status in UNANSWERED or text.strip() else "empty"), reason


def check_answers(task: str, outcomes: Sequence[ItemOutcome]) -> None:
    """Say on stderr what was not answered, and why.

    Args:
        task: For messages.
        outcomes: Of every item of the run.

    Raises:
        RbaError: nothing, or too little, was answered. MissingPrerequisite where the clips are to blame, UserError
            where the server finds the form of the requests wrong.
    """
    n = len(outcomes)
    unanswered = [outcome for outcome in outcomes if outcome[0] in UNANSWERED]
    unscored = [outcome for outcome in unanswered if outcome[0] in UNSCORED]
    if n and len(unanswered) == n:
        raise _failure(task, unanswered, f"none of {n} items was answered")
    if len(unscored) > UNSCORED_SHARE * n:
        what = f"{len(unscored)} of {n} items cannot be scored, too many for a record"
        raise _failure(task, unscored, what)
    for status in UNANSWERED:
        if reasons := [reason for outcome, reason in unanswered if outcome == status]:
            say(
                f"{task}: {status} {len(reasons)} of {n}: {MEANING[status]}; {_commonest(reasons)}; "
                "ask again with --retry-errors"
            )
    if n and all(status in (*UNANSWERED, "empty") for status, _ in outcomes):
        say(
            f"{task}: all {n - len(unanswered)} replies are empty or end within the model's thinking, and are "
            "scored as such: check the prompt, the chat template and the length of answers"
        )


def check_judged(task: str, samples: Sequence[Sample], reports: Mapping[str, Any]) -> None:
    """Say on stderr how many items have no verdict, and why.

    Args:
        task: For messages.
        samples: Of the run, judged.
        reports: Of its scorers, by name.

    Raises:
        RbaError: A judge gave a verdict on no item at all.
    """
    reasons = [sample.error for sample in samples if sample.status == "judge_failed"]
    for name, report in reports.items():
        if report.get("n_failed") and not report.get("n_judged"):
            raise RbaError(
                f"{task}: {name} judged none of {report['n_failed']} items ({_commonest(reasons or [''])}): no record "
                "is written; answers are kept, run the same command with a judge that answers"
            )
    if reasons:
        say(
            f"{task}: judge_failed {len(reasons)} of {len(samples)}: no verdict, so there is no score; "
            f"{_commonest(reasons)}; ask again with --retry-errors"
        )


def _failure(task: str, outcomes: Sequence[ItemOutcome], what: str) -> RbaError:
    [(worst, _)] = Counter(status for status, _ in outcomes).most_common(1)
    reasons = [reason for status, reason in outcomes if status == worst]
    message = f"{task}: {what} ({_commonest(reasons)}): no record is written"
    if worst == "not_heard":
        return MissingPrerequisite(
            f"{message}; get the clips again, or as WAV or FLAC, and run the same command"
        )
    if worst == "no_reply":
        error = UserError if all(_REFUSAL.match(reason) for reason in reasons) else RbaError
        return error(
            f"{message}; answers that came are kept, run the same command when the server takes requests"
        )
    return RbaError(f"{message}; answers that came are kept, run the same command when the model can answer")


def _commonest(reasons: Sequence[str]) -> str:
    """The reason given most often, where items may differ in their numbers."""
    alike = Counter(re.sub(r"\d+", "0", reason) for reason in reasons)
    [(kind, count)] = alike.most_common(1)
    shown = next(reason for reason in reasons if re.sub(r"\d+", "0", reason) == kind)
    return f"{count} times: {shown or 'no reason given'}" if count > 1 else shown or "no reason given"
