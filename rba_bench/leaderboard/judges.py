"""Which judge gave the scores of a column, and how runs are kept apart whose judges only share a name.

A protocol hash holds what a judge is asked (prompts, decoding, how replies are read) and what is known of the judge:
the weights of a local one, version and name of rules, of a served one no more than the name. Three things can differ
unseen behind a served name: an alias that moves to other weights (servers say in each answer which model gave it, and
records keep that), a second server that calls other weights by the same name (nobody can see that; the board says that
the weights are not known), and the version of the server. Runs whose judges answered under different names never share
a table, and a run of which several models judged one column is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.metric import metrics_of
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.scorers.registry import JUDGES
from rba_bench.files import sha256_json
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.tables import SHORT
from rba_bench.textlm.judging import JudgeModel, judge_facts
from rba_bench.untrusted import plain

RULES = "rules"
UNKNOWN = "unknown"
SERVED = "endpoint"  # kind of a judge behind a server, in a protocol
LONGEST_NAME = 80  # characters of a judge's name in a heading
LONGEST_ALIAS = 8  # models that a served judge answered as; more of them are no judge


@dataclass(frozen=True)
class ColumnJudge:
    """The judge of a metric in one record.

    Attributes:
        scorer: Entry of the protocol: `pairwise`, `pairwise_vs_sft`, `rating`; `rules` for rules in the package.
        kind: `rules`, `endpoint` (behind a server), or another kind for weights on a disk.
        name: What it was called, as it may be shown; "" where a record does not say.
        answered_as: What the server said that answered; () where it or the record does not say.
        facts: What the protocol says of the judge, and by which two judges are told apart.
        description: All that the protocol says of how it was asked: prompt, decoding, reading.
    """

    scorer: str
    kind: str
    name: str
    answered_as: tuple[str, ...]
    facts: Mapping[str, Any]
    description: Mapping[str, Any]

    @classmethod
    def of_model(cls, model: JudgeModel, answered_as: Sequence[str] = ()) -> "ColumnJudge":
        """A judge that is here, before it has judged any column."""
        facts = judge_facts(model.identity())
        return cls(
            "",
            str(facts.get("kind")),
            plain(facts.get("model") or model.name, LONGEST_NAME),
            tuple(answered_as),
            facts,
            facts,
        )

    @property
    def sha256(self) -> str:
        """Hash of judge, prompt, decoding and reading, and of the model that answered."""
        return sha256_json([dict(self.description), list(self.answered_as)])

    @property
    def sha256_of_facts(self) -> str:
        """Hash of the judge alone, however it was asked."""
        return sha256_json(dict(self.facts))

    @property
    def label(self) -> str:
        """For headings: `gpt-4o, answered as gpt-4o-2024-08-06`, `SmolLM2.gguf, weights 0a1b2c3d`."""
        parts = [self.name] if self.name else []
        if self.kind == SERVED:
            others = [
                plain(name, LONGEST_NAME) for name in self.answered_as if name != self.facts.get("model")
            ]
            parts += [f"answered as {' and '.join(others)}"] if others else []
        elif self.kind != RULES and "weights_sha256" in self.facts:
            parts.append(f"weights {plain(self.facts['weights_sha256'])[:SHORT]}")
        return ", ".join(parts) or UNKNOWN

    @property
    def legend(self) -> str:
        """A sentence about it, beyond the label."""
        if self.kind == RULES:
            return f"{self.label}: rules in the package"
        prompt, said = (_mapping(self.description.get(key)) for key in ("prompt", "decoding"))
        asked = ", ".join(
            f"{key} {said[key]}" for key in ("temperature", "max_tokens", "top_logprobs") if key in said
        )
        served = " (served: its weights are not known)" if self.kind == SERVED else ""
        version, text_hash = (plain(prompt.get(key, "-")) for key in ("version", "sha256"))
        return (
            f"{self.label}{served}, prompt {version} {text_hash[:SHORT]}, {plain(asked) or 'decoding unknown'}, "
            f"hash of judge, prompt and decoding {self.sha256[:SHORT]}"
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def same_judge(a: ColumnJudge | None, b: ColumnJudge | None) -> bool:
    """Whether two records have a score from one judge, asked in one way; a record may not say who answered."""
    if a is None or b is None:
        return a is b
    answers_differ = bool(a.answered_as and b.answered_as) and a.answered_as != b.answered_as
    return not answers_differ and sha256_json(dict(a.description)) == sha256_json(dict(b.description))


def judges_of(record: RunRecord) -> dict[str, ColumnJudge]:
    """The judge of each judged metric of a record."""
    judges: dict[str, ColumnJudge] = {}
    if record.judge:
        rules = _rules(record.judge)
        judges |= {metric.name: rules for metric in metrics_of("instruct") if metric.name in record.metrics}
    for entry in judge_entries(record):
        judge = _of_entry(record, entry)
        base, mark, against = judge.scorer.partition(VERSUS)
        names = [f"{metric.name}{mark}{against}" for metric in metrics_of(base)]
        judges |= {name: judge for name in names if name in record.metrics}
    return {name: judges[name] for name in record.metrics if name in judges}


def judge_entries(record: RunRecord) -> Iterator[Mapping[str, Any]]:
    """The entries of `protocol_spec.finish` in which a model judges; those of another form are passed over."""
    entries = record.protocol_spec.get("finish")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and str(entry.get("name")).partition(VERSUS)[0] in JUDGES:
            yield entry


def _rules(judge: Mapping[str, Any]) -> ColumnJudge:
    name = plain(f"{judge.get('name', judge)} {judge.get('version', '')}".strip(), LONGEST_NAME)
    return ColumnJudge(RULES, RULES, name, (), judge, judge)


def _of_entry(record: RunRecord, entry: Mapping[str, Any]) -> ColumnJudge:
    scorer, facts = str(entry["name"]), entry.get("judge")
    facts = facts if isinstance(facts, Mapping) else {"name": str(facts)} if facts else {}
    report = _mapping(record.finish.get(scorer))
    name = facts.get("model") or facts.get("name") or report.get("judge_name") or ""
    models = _mapping(report.get("answered_by")).get("model")
    answered_as = sorted({str(model) for model in models}) if isinstance(models, list) else []
    kind = str(facts.get("kind", UNKNOWN))
    return ColumnJudge(
        scorer, kind, plain(name, LONGEST_NAME), tuple(answered_as[:LONGEST_ALIAS]), facts, entry
    )


def check_one_judge(run: LoadedRun) -> None:
    """Raises UserError where the votes of one column come from several models behind one name."""
    for metric, judge in judges_of(run.record).items():
        if len(judge.answered_as) > 1:
            names = " and ".join(plain(name, LONGEST_NAME) for name in judge.answered_as)
            raise UserError(
                f"{run.folder}: {metric} mixes judges, as {judge.name} answered as {names}: judge it again by one of "
                "them under its own name, rba-bench rescore RUN --judge openai:URL#NAME"
            )


def split_by_judge(runs: Sequence[LoadedRun]) -> list[list[LoadedRun]]:
    """Runs of one protocol, parted where the judge of a metric answered as different models.

    A run that does not say who answered stays with the others where these agree, else it stands apart.

    Raises:
        UserError: one run mixes judges within a column.
    """
    for run in runs:
        check_one_judge(run)
    versions = [_answered(run.record) for run in runs]
    known = sorted({version for version in versions if version})
    if len(known) < 2:
        return [list(runs)]
    parts = [[run for run, version in zip(runs, versions, strict=True) if version == each] for each in known]
    unknown = [run for run, version in zip(runs, versions, strict=True) if not version]
    return [*parts, *([unknown] if unknown else [])]


def _answered(record: RunRecord) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each judge answered as, of those that say so."""
    judges = {judge.scorer: judge.answered_as for judge in judges_of(record).values()}
    return tuple(sorted((scorer, models) for scorer, models in judges.items() if models))


def group_judges(runs: Sequence[LoadedRun]) -> dict[str, ColumnJudge]:
    """The judge of each judged metric of runs that share a table: by the record that says most about it."""
    judges: dict[str, ColumnJudge] = {}
    for run in sorted(runs, key=lambda run: (run.name, run.record.run_id)):
        for metric, judge in judges_of(run.record).items():
            best = judges.get(metric)
            if best is None or (len(judge.answered_as), bool(judge.name)) > (
                len(best.answered_as),
                bool(best.name),
            ):
                judges[metric] = judge
    return judges
