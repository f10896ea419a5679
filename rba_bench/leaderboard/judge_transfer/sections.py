"""Which runs a judge has judged, and how it was asked: one section for each table of a board that it stands on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import VERSUS, baseline_of
from rba_bench.evaluation.records import UNSCORED, Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.pairwise import PairwiseJudge
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.leaderboard.board_groups import BoardGroup, GroupKey, group_key
from rba_bench.leaderboard.judges import RULES, SERVED, ColumnJudge, judges_of, split_by_judge
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.judging import JudgeModel, judge_facts
from rba_bench.untrusted import plain

PAIRWISE = "pairwise"
WIN_RATE = "win_rate"
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
    """Runs of one table whose win rate one judge gave.

    Attributes:
        group: The runs, with the labels of a board.
        judge: Who judged them.
        metric: The win rate: `win_rate`, `win_rate_vs_sft`.
        stored: Whether the records hold verdicts of the judge that is to be replaced.
    """

    group: BoardGroup
    judge: ColumnJudge
    metric: str
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
        """Whether there is an answer, and one to compare it with."""
        return sample.status not in UNSCORED and bool(baseline_of(sample, self.against))

    def scorer(self, judge_model: JudgeModel, cache: Path) -> PairwiseJudge:
        """The task's own way to ask, with another judge.

        Where rules judged there is none: then all the log-probabilities that servers give are read, as a small judge
        has many likelier first tokens than the two identifiers.
        """
        settings: dict[str, Any] = {"lc": "none", "top_logprobs": MOST_LOGPROBS}
        if not self.by_rules:
            decoding = self.judge.description.get("decoding") or {}
            settings |= {key: decoding[key] for key in ASKED if key in decoding}
            settings |= {"against": self.against} if self.against else {}
        return PairwiseJudge.from_config(settings, ScorerOptions(cache=cache), judge_model)


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
    all_sections, left_out = _judged_in_pairs(runs)
    own = [section for section in all_sections if _is_called(section.judge, named, model)]
    kinds = {section.judge.sha256_of_facts: section.judge.label for section in own}
    if len(kinds) > 1:
        listed = ", ".join(f"{label} ({digest[:FEWEST_DIGITS]})" for digest, label in sorted(kinds.items()))
        raise UserError(f"several judges are called {named!r}: name one by its hash; there are {listed}")
    if own:
        others = {s.judge.label for s in all_sections if s not in own}
        left_out += [f"win rates judged by {label} are left out" for label in sorted(others)]
        return own, left_out
    if ask and all_sections:
        return [Section(s.group, s.judge, s.metric, stored=False) for s in all_sections], left_out
    known = ", ".join(sorted({f"{s.judge.label} ({s.judge.sha256_of_facts[:8]})" for s in all_sections}))
    raise UserError(
        f"no win rate in these records was judged by {named!r}; judges of win rates: {known or 'none'}"
        + ("; --ask-a asks a model now, named as in eval --judge" if all_sections else "")
    )


def _judged_in_pairs(runs: Sequence[LoadedRun]) -> tuple[list[Section], list[str]]:
    """Every win rate of every table, and the tables that have none or were judged with another prompt."""
    by_key: dict[GroupKey, list[LoadedRun]] = {}
    sections, left_out = [], []
    for run in runs:
        if run.record.audio_control:  # its answers are no answers to the clips, so nothing is ranked by them
            left_out.append(f"{run.name} on {run.record.task}: a control without the speech")
        else:
            by_key.setdefault(group_key(run.record), []).append(run)
    for key in sorted(by_key):
        for part in split_by_judge(by_key[key]):
            found = [
                (metric, judge)
                for metric, judge in judges_of(part[0].record).items()
                if _is_win_rate(metric, judge)
            ]
            usable = [(metric, judge) for metric, judge in found if _same_prompt(judge)]
            if len(usable) < len(found):
                left_out.append(
                    f"{key[0]} was judged with another prompt than today's: rba-bench rescore renews it"
                )
            group = BoardGroup(key, part, "") if usable else None
            sections += [
                Section(group, group.judges[metric], metric) for metric, _ in usable if group is not None
            ]
    return sections, left_out


def _is_win_rate(metric: str, judge: ColumnJudge) -> bool:
    return metric.partition(VERSUS)[0] == WIN_RATE and judge.scorer.partition(VERSUS)[0] in (PAIRWISE, RULES)


def _same_prompt(judge: ColumnJudge) -> bool:
    expected = judge_prompts.prompt_fingerprint(*PairwiseJudge.templates)
    return judge.kind == RULES or judge.description.get("prompt") == expected


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
