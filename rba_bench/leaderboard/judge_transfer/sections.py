"""Which runs a judge has judged, and how it was asked: one section for each table of a board that it stands on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.judge import Judge
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.leaderboard.board_groups import BoardGroup, GroupKey, group_key
from rba_bench.leaderboard.judge_transfer.kinds import RULES_GIVE, Kind, kind_of
from rba_bench.leaderboard.judges import RULES, SERVED, ColumnJudge, judges_of, split_by_judge
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.judging import JudgeModel, judge_facts
from rba_bench.untrusted import plain

ASKED = (
    "max_tokens",
    "temperature",
    "top_logprobs",
    "seed",
    "retries",
)  # of a judge's decoding in a protocol
MOST_LOGPROBS = 20  # OpenAI's bound, and vLLM's by default
FEWEST_DIGITS = 8  # of a hash that names a judge


@dataclass(frozen=True)
class Section:
    """Runs of one table and a metric that one judge gave.

    Attributes:
        group: The runs, with the labels of a board.
        judge: Who judged them.
        metric: `win_rate`, `win_rate_vs_sft`, `rating`, `judge_accuracy`, `if_rate_with_cot`.
        kind: Of its verdicts.
        stored: Whether the records hold verdicts of the judge that is to be replaced.
    """

    group: BoardGroup
    judge: ColumnJudge
    metric: str
    kind: Kind
    stored: bool = True

    @property
    def against(self) -> str:
        """Name of the baseline in the samples, "" for their own."""
        return self.metric.partition(VERSUS)[2]

    @property
    def by_rules(self) -> bool:
        """Whether rules in the package have judged, which see one answer at a time."""
        return self.judge.kind == RULES

    def can_be_judged(self, sample: Sample) -> bool:
        """Whether there is an answer that a judge scores, and all that the judge is shown."""
        return self.kind.can_judge(sample, self.against)

    def scorer(self, judge_model: JudgeModel, cache: Path) -> Judge[Any]:
        """The task's own way to ask, with another judge.

        Where rules judged there is none: then all the log-probabilities that servers give are read, as a small judge
        has many likelier first tokens than the two identifiers.
        """
        settings: dict[str, Any] = {"top_logprobs": MOST_LOGPROBS} if self.by_rules else {}
        description = {} if self.by_rules else self.judge.description
        decoding = description.get("decoding") or {}
        settings |= {key: decoding[key] for key in ASKED if key in decoding}
        settings |= self.kind.options(description, self.against)
        return self.kind.scorer.from_config(settings, ScorerOptions(cache=cache), judge_model)


def find_sections(
    runs: Sequence[LoadedRun], named: str, model: JudgeModel | None, ask: bool
) -> tuple[list[Section], list[str]]:
    """The sections of a judge, and why other runs are left out.

    Args:
        runs: All runs.
        named: The judge as the user names it.
        model: The judge itself, where the user names a model that is here.
        ask: Whether it may be asked, so that it need not have judged before.

    Raises:
        UserError: no run was judged by it, or the name stands for several judges.
    """
    all_sections, left_out = _all_sections(runs)
    own = [section for section in all_sections if _is_called(section.judge, named, model)]
    kinds = {section.judge.sha256_of_facts: section.judge.label for section in own}
    if len(kinds) > 1:
        listed = ", ".join(f"{label} ({digest[:FEWEST_DIGITS]})" for digest, label in sorted(kinds.items()))
        raise UserError(f"several judges are called {named!r}: name one by its hash; there are {listed}")
    if own:
        others = {s.judge.label for s in all_sections if s not in own}
        left_out += [f"what {label} judged is left out" for label in sorted(others)]
        return own, left_out
    if ask and all_sections:
        return [replace(section, stored=False) for section in all_sections], left_out
    known = ", ".join(sorted({f"{s.judge.label} ({s.judge.sha256_of_facts[:8]})" for s in all_sections}))
    raise UserError(
        f"nothing in these records was judged by {named!r}; their judges: {known or 'none'}"
        + ("; --ask-a asks a model now, named as in eval --judge" if all_sections else "")
    )


def _all_sections(runs: Sequence[LoadedRun]) -> tuple[list[Section], list[str]]:
    """Every judged metric of every table, and the tables that were judged with another prompt."""
    by_key: dict[GroupKey, list[LoadedRun]] = {}
    sections, left_out = [], []
    for run in runs:
        if run.record.audio_control:  # its answers are no answers to the clips, so nothing is ranked by them
            left_out.append(f"{run.name} on {run.record.task}: a control without the speech")
        else:
            by_key.setdefault(group_key(run.record), []).append(run)
    for key in sorted(by_key):
        for part in split_by_judge(by_key[key]):
            judges = judges_of(part[0].record)
            kinds = {metric: kind for metric, judge in judges.items() if (kind := _kind(metric, judge))}
            asked_alike = [metric for metric, kind in kinds.items() if _asked_as_today(judges[metric], kind)]
            if len(asked_alike) < len(kinds):
                left_out.append(
                    f"{key[0]} was judged with another prompt, or its replies read otherwise, than today: "
                    "rba-bench rescore --judge renews it"
                )
            group = BoardGroup(key, part, "") if asked_alike else None
            sections += [
                Section(group, group.judges[metric], metric, kinds[metric])
                for metric in asked_alike
                if group is not None
            ]
    return sections, left_out


def _kind(metric: str, judge: ColumnJudge) -> Kind | None:
    if judge.kind == RULES:
        return RULES_GIVE if metric == RULES_GIVE.metric else None
    return kind_of(metric, judge.scorer)


def _asked_as_today(judge: ColumnJudge, kind: Kind) -> bool:
    """Whether two judges would be compared, and not two prompts or two ways to read a reply."""
    prompt = judge_prompts.prompt_fingerprint(*kind.scorer.templates)
    reading = judge.description.get("reading", judge_prompts.VERDICTS_VERSION)
    same = judge.description.get("prompt") == prompt and reading == judge_prompts.VERDICTS_VERSION
    return judge.kind == RULES or same


def _is_called(judge: ColumnJudge, named: str, model: JudgeModel | None) -> bool:
    """Whether a judge is meant by a name, a hash, or a model."""
    if model is not None:
        return _same_facts(judge.facts, judge_facts(model.identity()))
    wanted = plain(named).casefold()
    if address := parse_endpoint(named):
        return judge.kind == SERVED and str(judge.facts.get("model")) == address[1]
    names = [judge.name, judge.label, *judge.answered_as, *([RULES] if judge.kind == RULES else [])]
    hashes = (judge.sha256_of_facts, str(judge.facts.get("weights_sha256", "")))
    return wanted in {plain(name).casefold() for name in names} or (
        len(wanted) >= FEWEST_DIGITS and any(digest.startswith(wanted) for digest in hashes)
    )


def _same_facts(recorded: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    keys = ("kind", "model", "weights_sha256")
    return all(recorded.get(key) == facts.get(key) for key in keys)
