"""A transfer from one judge to another as a folder: answers chosen, judged and compared, the board made again.

    pairs.jsonl      the fixed set: which answers, by hash
    verdicts.jsonl   what both judges said of each answer, with replies
    transfer.json    everything for programs
    report.md        the page
    records/, board/ with `reanchor`: the same runs judged by the new judge alone, and their board
    votes/           every reply, kept the moment it came

A run that was killed goes on with the same command: nothing that a judge has answered is asked for again.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from rba_bench import outputs
from rba_bench.errors import UserError
from rba_bench.evaluation.scorers.registry import check_judge_key
from rba_bench.evaluation.scorers.scorer import Cost
from rba_bench.files import write_atomic
from rba_bench.leaderboard.judge_transfer import judging, sentences
from rba_bench.leaderboard.judge_transfer.effects import all_effects, missing_facts
from rba_bench.leaderboard.judge_transfer.judged_pairs import JudgedPairs
from rba_bench.leaderboard.judge_transfer.judging import Verdict
from rba_bench.leaderboard.judge_transfer.pair_set import Pair, set_sha256
from rba_bench.leaderboard.judge_transfer.preparing import (
    STAGE,
    TransferRequest,
    Work,
    default_folder,
    kin_of_judges,
    prepare,
)
from rba_bench.leaderboard.judge_transfer.reanchoring import BOARD, RECORDS, check_reanchor, reanchor
from rba_bench.leaderboard.judge_transfer.report import SectionResult, report_page
from rba_bench.leaderboard.judge_transfer.sections import Section
from rba_bench.leaderboard.judges import ColumnJudge
from rba_bench.leaderboard.tables import json_text, rounded
from rba_bench.textlm.judging import judge_facts
from rba_bench.untrusted import json_safe, plain

PAIRS_FILE, VERDICTS_FILE, RESULT_FILE, REPORT_FILE = (
    "pairs.jsonl",
    "verdicts.jsonl",
    "transfer.json",
    "report.md",
)
VOTES = "votes"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TransferResult:
    """A finished transfer.

    Attributes:
        out: The folder.
        data: Content of `transfer.json`.
        verdicts: The answer in words, by section.
    """

    out: Path
    data: dict[str, Any]
    verdicts: dict[str, list[str]]


@dataclass(frozen=True)
class TransferCost:
    """What one judge would be asked for one section.

    Attributes:
        section: Name.
        judge: `A`, `B`, or `B, the rest (--reanchor)` for all other answers.
        pairs: Answers to judge.
        cost: Calls, tokens, dollars.
    """

    section: str
    judge: str
    pairs: int
    cost: Cost

    def row(self) -> tuple[Any, ...]:
        """Cells of a table; an unknown price is "?"."""
        dollars = "?" if self.cost.dollars is None else f"{self.cost.dollars:.2f}"
        return (
            self.section, self.judge, self.pairs, self.cost.calls, self.cost.cached, self.cost.prompt_tokens,
            self.cost.completion_tokens, dollars,
        )  # fmt: skip


def transfer_judge(request: TransferRequest) -> TransferResult:
    """Compare two judges on a fixed set of answers; with `reanchor`, judge everything anew and build the board.

    Raises:
        UserError: no record there, one at fault, none judged by A, or a folder of another transfer.
        MissingPrerequisite: a judge is not there, or needs a key.
        RbaError: a judge gives hardly any usable vote.
    """
    for spec in (request.new, *([request.old] if request.ask_a else [])):
        check_judge_key(spec)
    work = prepare(request)
    check_reanchor(work)
    out = request.out or default_folder(work)
    outputs.claim(out, STAGE, work.config())
    try:
        write_atomic(out / PAIRS_FILE, _lines(work, [pair.facts() for pair in work.all_pairs]))
        a = [
            _verdicts_of_old(work, section, pairs, out)
            for section, pairs in zip(work.sections, work.pairs, strict=True)
        ]
        scorers = [section.scorer(work.new_model, out / VOTES) for section in work.sections]
        b = [
            judging.ask(section, scorer, pairs)
            for section, scorer, pairs in zip(work.sections, scorers, work.pairs, strict=True)
        ]
        answered_as = {
            name for scorer in scorers for name in scorer.report().get("answered_by", {}).get("model", ())
        }
        reanchored = reanchor(work, out) if request.reanchor else None
        return _write(work, out, a, b, sorted(answered_as), reanchored)
    finally:
        outputs.release(out)


def estimate_transfer(request: TransferRequest) -> list[TransferCost]:
    """What both judges would be asked; no call is made, and nothing is written.

    Raises:
        UserError: as `transfer_judge`.
        MissingPrerequisite: a local judge is not there.
    """
    work, costs = prepare(request), []
    kept = (request.out or default_folder(work)) / VOTES
    with tempfile.TemporaryDirectory() as empty:
        cache = kept if kept.is_dir() else Path(empty)
        for section, name, pairs in zip(work.sections, work.names, work.pairs, strict=True):
            scorer = section.scorer(work.new_model, cache)
            if work.old_model is not None and request.ask_a:
                unknown = [pair for pair in pairs if not judging.has_stored_verdict(section, pair.sample)]
                asked = section.scorer(work.old_model, cache).cost([pair.sample for pair in unknown])
                costs.append(TransferCost(name, "A", len(unknown), asked))
            costs.append(TransferCost(name, "B", len(pairs), scorer.cost([pair.sample for pair in pairs])))
            chosen = {id(pair.sample) for pair in pairs}
            rest = [
                sample
                for run in section.group.runs
                for sample in run.samples
                if section.can_be_judged(sample) and id(sample) not in chosen
            ]
            if rest and not section.by_rules:
                costs.append(TransferCost(name, "B, the rest (--reanchor)", len(rest), scorer.cost(rest)))
    return costs


def _verdicts_of_old(work: Work, section: Section, pairs: Sequence[Pair], out: Path) -> list[Verdict]:
    """Stored verdicts of A, and where there is none and the user says so, new ones."""
    found = [judging.stored_verdict(section, pair.sample) for pair in pairs]
    unknown = [pair for pair, verdict in zip(pairs, found, strict=True) if verdict is None]
    asked = iter(
        judging.ask(section, section.scorer(work.old_model, out / VOTES), unknown)
        if unknown and work.old_model
        else ()
    )
    return [verdict if verdict is not None else next(asked) for verdict in found]


def _write(
    work: Work,
    out: Path,
    a: Sequence[Sequence[Verdict]],
    b: Sequence[Sequence[Verdict]],
    answered_as: Sequence[str],
    reanchored: dict[str, Any] | None,
) -> TransferResult:
    """All files but the pairs, the page last."""
    results, silent = _results(work, a, b)
    new = ColumnJudge.of_model(work.new_model, answered_as)
    facts = {
        "a": "; ".join(
            dict.fromkeys(s.judge.legend if s.stored else plain(work.request.old) for s in work.sections)
        ),
        "b": new.label,
        "seed": work.request.seed,
        "n_pairs": len(work.all_pairs),
        "pairs_sha256": set_sha256(work.all_pairs),
        "left_out": [*work.left_out, *silent, *_several(new)],
        "next": _next_step(work, reanchored),
    }
    data = {
        "schema_version": SCHEMA_VERSION,
        **facts,
        "b_judge": judge_facts(work.new_model.identity(), with_address=True),
        "ask_a": work.request.ask_a,
        "sections": [result.to_dict() for result in results],
        "reanchored": reanchored,
    }  # fmt: skip
    data = rounded(_jsonable(data))
    both = zip(work.all_pairs, (v for part in a for v in part), (v for part in b for v in part), strict=True)
    lines = [{**pair.facts(), "a": x.to_dict(), "b": y.to_dict()} for pair, x, y in both]
    write_atomic(out / VERDICTS_FILE, _lines(work, lines))
    write_atomic(out / RESULT_FILE, json_text(data))
    write_atomic(out / REPORT_FILE, report_page(facts, results))
    return TransferResult(out, data, {result.name: list(result.verdict) for result in results})


def _facts(section: Section) -> dict[str, Any]:
    group, judge = section.group, section.judge
    return {
        "task": group.task,
        "protocol_hash": group.protocol_hash,
        "data_hash": group.data_hash,
        "metric": section.metric,
        "a_judge": {"label": judge.label, "sha256": judge.sha256, "facts": judge.facts},
    }


def _results(
    work: Work, a: Sequence[Sequence[Verdict]], b: Sequence[Sequence[Verdict]]
) -> tuple[list[SectionResult], list[str]]:
    """What came out for each section, and which have no answer with verdicts of both judges.

    Raises:
        UserError: none has one.
    """
    results, silent = [], []
    for section, name, pairs, old, fresh in zip(work.sections, work.names, work.pairs, a, b, strict=True):
        judged = JudgedPairs.of(section.group.labels, pairs, old, fresh, section.kind)
        if not len(judged):
            silent.append(f"{name}: no answer has a verdict of both judges")
            continue
        effects = all_effects(judged, kin_of_judges(work, section))
        effects["missing"] = missing_facts(section.kind, pairs, old, fresh)
        counts = _counts(pairs, judged, old, fresh)
        verdict = sentences.verdict(effects, section.kind, counts["b_failed"] / len(pairs))
        results.append(SectionResult(name, section.kind, verdict, counts, effects, _facts(section)))
    if not results:
        raise UserError(silent[0])
    return results, silent


def _several(judge: ColumnJudge) -> list[str]:
    """A warning where the votes of B come from several models."""
    names = " and ".join(plain(name) for name in judge.answered_as)
    several = f"B is no single judge: it answered as {names}; name one of them with --to"
    return [several] if len(judge.answered_as) > 1 else []


def _counts(
    pairs: Sequence[Pair], judged: JudgedPairs, a: Sequence[Verdict], b: Sequence[Verdict]
) -> dict[str, int]:
    return {
        "items": len({pair.sample.doc_id for pair in pairs}),
        "models": len(judged.labels),
        "pairs": len(pairs),
        "compared": len(judged),
        "by_rule": int(judged.by_rule.sum()),
        "a_stored": sum(verdict.source == judging.STORED for verdict in a),
        "a_asked": sum(verdict.source == judging.ASKED for verdict in a),
        "a_failed": sum(verdict.value is None for verdict in a),
        "b_failed": sum(verdict.value is None for verdict in b),
    }


def _next_step(work: Work, reanchored: dict[str, Any] | None) -> str:
    if reanchored is not None:
        return f"`{RECORDS}/` holds the runs judged by B alone, `{BOARD}/` their board."
    if all(section.by_rules for section in work.sections):
        return ""
    return (
        "The same command with `--reanchor` lets B judge all answers and writes records and a board of B alone; "
        "`--dry-run` shows what it costs."
    )


def _lines(work: Work, rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON lines, each with the name of its section."""
    names = [name for name, pairs in zip(work.names, work.pairs, strict=True) for _ in pairs]
    return "".join(
        json_safe(json.dumps({"section": name, **rounded(row)}, ensure_ascii=False)) + "\n"
        for name, row in zip(names, rows, strict=True)
    )


def _jsonable(value: Any) -> Any:
    """JSON values of intervals and containers."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value
