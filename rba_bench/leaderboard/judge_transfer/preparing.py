"""The work of a transfer: the request, the runs, sections and answers that it comes to, and both judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rba_bench import outputs
from rba_bench.assets import is_asset
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.judge import choose_judge_model
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.files import folder_name
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.judge_transfer import judging
from rba_bench.leaderboard.judge_transfer.effects import families
from rba_bench.leaderboard.judge_transfer.pair_set import Pair, choose_pairs, set_sha256
from rba_bench.leaderboard.judge_transfer.sections import Section, find_sections
from rba_bench.leaderboard.judges import RULES, ColumnJudge, judges_of
from rba_bench.leaderboard.loaded_runs import LoadedRun, find_runs, load_checked_run, without_copies
from rba_bench.leaderboard.tables import SHORT
from rba_bench.leaderboard.verify import refuse_faulty
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.judging import JudgeModel, judge_facts
from rba_bench.untrusted import plain

STAGE = "judge"
N_PAIRS = 400


@dataclass(frozen=True)
class TransferRequest:
    """What the user asks for.

    Attributes:
        records: Run folders, or folders of them.
        old: Judge A: its name or hash in the records, or a model.
        new: Judge B, a model as `eval --judge` takes it.
        pairs: Most answers of each table.
        seed: Random seed of their choice.
        ask_a: Ask A about answers on which the records hold no verdict of it.
        reanchor: Let B judge all answers, and write records and a board.
        out: Folder, None to choose it by the request.
        task: YAML of a task that is not shipped, for `reanchor`.
        data_dir: Folder with the tables of length control, for `reanchor`.
        device: Torch device of local judges.
        batch_size: Questions per batch of local judges.
    """

    records: Sequence[Path]
    old: str
    new: str
    pairs: int = N_PAIRS
    seed: int = 0
    ask_a: bool = False
    reanchor: bool = False
    out: Path | None = None
    task: Path | None = None
    data_dir: Path | None = None
    device: str | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class Work:
    """A request with its models, sections and answers.

    Attributes:
        runs: All runs that were named.
        sections: Tables with a metric that A has judged.
        names: Of the sections.
        pairs: The chosen answers of each section.
        left_out: What is not compared, and why.
        old_model: Judge A where it is here, to be asked or only to be recognised.
        new_model: Judge B.
    """

    request: TransferRequest
    runs: list[LoadedRun]
    sections: list[Section]
    names: list[str]
    pairs: list[list[Pair]]
    left_out: list[str]
    old_model: JudgeModel | None
    new_model: JudgeModel

    @property
    def all_pairs(self) -> list[Pair]:
        """Of all sections."""
        return [pair for pairs in self.pairs for pair in pairs]

    def config(self) -> dict[str, Any]:
        """What decides the content of the folder, `reanchor` aside, which only adds to it."""
        asked = self.old_model if self.request.ask_a else None
        return {
            "from": [section.judge.sha256 for section in self.sections],
            "asked": judge_facts(asked.identity(), with_address=True) if asked else None,
            "to": judge_facts(self.new_model.identity(), with_address=True),
            "pairs": set_sha256(self.all_pairs),
            "records": sorted([run.record.run_id, run.record.samples_sha256] for run in self.runs),
        }


def prepare(request: TransferRequest) -> Work:
    """Load and verify the records, find what A has judged, and choose the answers.

    Raises:
        UserError: no record there, one at fault, or none judged by A.
        MissingPrerequisite: a judge is not here.
    """
    folders = find_runs(request.records, request.out)
    runs = without_copies([load_checked_run(folder) for folder in folders])
    refuse_faulty(runs)
    options = ScorerOptions(Path(), None, request.data_dir, request.device or "auto", request.batch_size)
    new_model = choose_judge_model({}, replace(options, judge=request.new))
    old = request.old
    is_file = parse_endpoint(old) is None and Path(old).exists()
    old_model = None
    if old != RULES and (request.ask_a or is_asset(old) or is_file):
        old_model = choose_judge_model({}, replace(options, judge=old))
    can_ask = request.ask_a and old_model is not None
    sections, left_out = find_sections(runs, old, old_model, can_ask)

    def chosen(section: Section) -> list[Pair]:
        def usable(sample: Sample) -> bool:
            return can_ask or judging.has_stored_verdict(section, sample)

        return choose_pairs(section, request.pairs, request.seed, usable)

    compared = {id(run) for section in sections for run in section.group.runs}
    others = [
        run
        for run in runs
        if id(run) not in compared and judges_of(run.record) and not run.record.audio_control
    ]
    left_out += [f"{run.name} on {run.record.task}: A gave no verdict that can be compared" for run in others]
    if any(_same_judge(section.judge, new_model) for section in sections):
        left_out.append("A and B are one judge: what differs is its own noise")
    return Work(
        request, runs, sections, _names(sections), [*map(chosen, sections)], left_out, old_model, new_model
    )


def _same_judge(judge: ColumnJudge, model: JudgeModel) -> bool:
    return judge.kind != RULES and dict(judge.facts) == judge_facts(model.identity())


def _names(sections: Sequence[Section]) -> list[str]:
    """Task of each section with what was done to its clips, and metric and hashes where that is not enough."""
    tasks = [_task_title(s.group) for s in sections]
    short = [task + (f" {s.metric}" if s.against else "") for task, s in zip(tasks, sections, strict=True)]
    names = [
        name if short.count(name) == 1 else f"{task} {s.metric}"
        for name, task, s in zip(short, tasks, sections, strict=True)
    ]
    return [
        name if names.count(name) == 1
        else f"{name} {s.group.protocol_hash[:SHORT]}.{s.group.data_hash[:SHORT]}.{s.judge.sha256[:SHORT]}"
        for name, s in zip(names, sections, strict=True)
    ]  # fmt: skip


def _task_title(group: BoardGroup) -> str:
    return f"{group.task} ({group.perturbation})" if group.perturbation else group.task


def default_folder(work: Work) -> Path:
    """`runs/judge/A-to-B-<id>`, the id from everything that decides the content."""
    names = (work.sections[0].judge.name or work.request.old, work.new_model.name)
    return outputs.run_folder(
        STAGE, folder_name("-to-".join(plain(name)[:40] for name in names)), work.config()
    )


def kin_of_judges(work: Work, section: Section) -> dict[str, list[bool]]:
    """Which models share a family or weights with judge A and with judge B."""
    identity = work.new_model.identity()
    judges = {
        "a": ([section.judge.name, *section.judge.answered_as], section.judge.facts.get("weights_sha256")),
        "b": ([work.new_model.name, str(identity.get("model", ""))], identity.get("weights_sha256")),
    }
    kin: dict[str, list[bool]] = {}
    for key, (names, weights) in judges.items():
        of_judge = families(map(_told_name, names)) if key == "b" or not section.by_rules else set()
        kin[key] = [
            bool(of_judge & families(_model_names(run)))
            or (weights is not None and weights in _model_weights(run))
            for run in section.group.runs
        ]
    return kin


def _model_names(run: LoadedRun) -> list[str]:
    model = run.record.model
    text = model.get("text")
    names = [model["name"], model["spec"], (model.get("training") or {}).get("base", "")]
    names += [text.get("model", "")] if isinstance(text, Mapping) else []
    return [_told_name(str(name)) for name in names]


def _told_name(spec: str) -> str:
    """What a name says of a model: of an address the name behind it, of a path no more than the last two parts."""
    return "/".join(spec.rpartition("#")[2].rstrip("/").split("/")[-2:])


def _model_weights(run: LoadedRun) -> list[object]:
    model = run.record.model
    text = model.get("text")
    return [model.get("weights_sha256"), *([text.get("weights_sha256")] if isinstance(text, Mapping) else [])]
