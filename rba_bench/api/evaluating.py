"""`rba_bench.evaluate` and what it returns: a run with its scores and samples."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.api import tables
from rba_bench.api.calling import call_context, optional_path
from rba_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from rba_bench.evaluation.records import RunRecord, Sample

HEADINGS = ("task", "metric", "value", "95 % interval", "n", "not ok")
LONGEST_NAME = 60  # characters of a model's name in a message


@dataclass(frozen=True)
class Score:
    """The value of a metric with its interval and counts.

    Attributes:
        value: The score, in units of `scale`.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Items with a score.
        n_missing: Items without a score: undecodable audio, no reply from a server, no verdict from a judge.
        scale: Largest possible value: 1 for rates, 100 for BLEU and chrF++.
        higher_is_better: False for error rates.
        method: How the interval was computed.
    """

    value: float
    low: float
    high: float
    n: int
    n_missing: int
    scale: float
    higher_is_better: bool
    method: str

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}"


class Samples:
    """The items of a run with prompt, response and scores; read from disk and verified when first used.

    `len(samples)`, `samples[0]` and iteration give dictionaries with the fields of `docs/formats.md`, and `task`.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    @cached_property
    def _all(self) -> "list[tuple[str, Sample]]":
        from rba_bench.leaderboard.loaded_runs import load_checked_run

        runs = [load_checked_run(folder) for folder in self._folders]
        return [(run.record.task, sample) for run in runs for sample in run.samples]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (_sample_fields(task, sample) for task, sample in self._all)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _sample_fields(*self._all[index])

    def to_pandas(self) -> "pd.DataFrame":
        """One line for each item, in the order of the test sets, with scores in columns `score.<metric>`.

        Raises:
            MissingPrerequisite: pandas is not installed.
            UserError: the samples on disk do not belong to the run.
        """
        rows = []
        for sample in self:
            scores = sample.pop("scores")
            rows.append({**sample, **{f"score.{name}": value for name, value in scores.items()}})
        return tables.data_frame(rows)

    def __repr__(self) -> str:
        return f"Samples({len(self)} items)"


class Run:
    """One model on one or several tasks.

    Attributes:
        paths: Folders of the run records, one for each task and protocol.
        path: The only folder, or the folder that holds all of them.
        model: Name of the model.
        results: For each task and metric a `Score`. Sampled decoding is a task of its own (`micro_covost2_sampled`).
        samples: All items, see `Samples`.
    """

    def __init__(self, records: "Sequence[tuple[Path, RunRecord]]") -> None:
        self._records = {record.task: record for _, record in records}
        self.paths = tuple(folder for folder, _ in records)
        self.path = self.paths[0] if len(self.paths) == 1 else Path(os.path.commonpath(self.paths))
        self.model = str(records[0][1].model["name"])
        self.results: dict[str, dict[str, Score]] = {
            task: {
                name: Score(**{field: getattr(value, field) for field in Score.__dataclass_fields__})
                for name, value in record.metrics.items()
            }
            for task, record in self._records.items()
        }
        self.samples = Samples(self.paths)

    @property
    def partial(self) -> bool:
        """Whether `limit` cut a test set; leaderboards refuse such runs."""
        return any(record.partial for record in self._records.values())

    def record(self, task: str) -> dict[str, Any]:
        """Content of the task's `run.json`: protocol, data, model, hardware, versions, timing and more.

        Raises:
            UserError: the run has no such task.
        """
        if task not in self._records:
            raise UserError(f"this run has no task {task!r}; it has {', '.join(self._records)}")
        return self._records[task].model_dump(mode="json")

    def to_pandas(self) -> "pd.DataFrame":
        """The scores, one line for each task and metric. Raises MissingPrerequisite if pandas is not installed."""
        return tables.data_frame(
            [
                {"model": self.model, "task": task, "metric": name, **asdict(score)}
                for task, scores in self.results.items()
                for name, score in scores.items()
            ]
        )

    def summary(self) -> str:
        """The scores as text."""
        return tables.text_table(*self._table())

    def _table(self) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
        """Title, headings and rows of the scores."""
        from rba_bench.evaluation.records import describe_failures

        controls = sorted({record.audio_control for record in self._records.values()} - {""})
        title = self.model + "".join(f" (control without the speech: {control})" for control in controls)
        title += " (partial: the test sets were cut)" if self.partial else ""
        rows: list[tuple[str, ...]] = [
            (
                task,
                name,
                f"{score.value:.4g}",
                f"{score.low:.4g} .. {score.high:.4g}",
                str(score.n),
                describe_failures(self._records[task].statuses),
            )
            for task, scores in self.results.items()
            for name, score in scores.items()
        ]
        return title, HEADINGS, rows

    def __repr__(self) -> str:
        return f"Run({self.model!r}, tasks={list(self.results)}, path={str(self.path)!r})"

    def _repr_html_(self) -> str:
        return tables.html_table(*self._table())


def evaluate(
    model: str | os.PathLike[str] | None = None,
    tasks: str | Sequence[str] | None = None,
    *,
    track: str | None = None,
    out: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    judge: str | None = None,
    baseline: str | None = None,
    perturb: str = "",
    audio: str = "",
    seed: int = 1234,
    batch_size: int = 32,
    batch_seconds: float | None = None,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    pad: bool = False,
    encoder_cache: str | os.PathLike[str] | None = None,
    language: str | None = None,
    template: Mapping[str, Any] | None = None,
    trust: bool = False,
    retry_errors: bool = False,
    cache: bool = True,
    progress: bool = True,
) -> Run:
    """Score a SpeechLM on spoken tasks; the options are those of `rba-bench eval`. The same call resumes.

    Args:
        model: Checkpoint (folder, `Checkpoint` or Hub id), `openai:URL#NAME`, `cascade:WHISPER+LLM`, `text:LLM`, or a
            system of the micro track; None for the newest checkpoint under `runs/`.
        tasks: Tasks, groups, benchmarks or YAML files; None for all of the micro or the small track.
        track: Track of the tasks; None for that of the named tasks, else that of the model.
        out: Folder for runs and for cached responses; None for `runs/eval`.
        limit: Number of items per task; marks the run as partial.
        judge: Judge model instead of the one that the tasks name; `none` leaves judged metrics out.
        baseline: File or run with baseline responses, instead of the one that the tasks name.
        perturb: Perturbation of every clip, such as `noise=10dB,telephone`.
        audio: Control run without the speech: `silence`, `shuffle` (another item's clip) or `first=1s`.
        seed: Random seed for sampled decoding.
        batch_size: Largest number of clips in a batch.
        batch_seconds: Largest amount of audio in a batch, in seconds; None for 12 s times `batch_size`.
        device: Torch device; None for a GPU if there is one.
        data_dir: Local copies of data sets, instead of the Hub.
        pad: Pad clips as the model's processor does, not to the longest of a batch.
        encoder_cache: Folder in which encoder states are cached.
        language: Language of the speech, for Whisper in a cascade; None to detect it.
        template: Variables of the model's chat template, such as `{"enable_thinking": False}`.
        trust: Run Python code that comes with models and task files.
        retry_errors: Repeat the items that failed in an earlier attempt.
        cache: Use the cached responses of other runs in `out`.
        progress: Show progress on stderr.

    Raises:
        UserError: an unknown task, or an option that is not valid.
        MissingPrerequisite: the model, data, weights or a key is missing.
        RbaError: too few items were answered for a run record.
    """
    from rba_bench.evaluation.plan import OUT, make_request
    from rba_bench.textlm.chat import check_template_variables

    folder = Path(out) if out is not None else OUT
    with call_context(progress):
        from rba_bench.evaluation.runner import evaluate as run
        from rba_bench.leaderboard.compare_runs import record_folder

        request = make_request(
            [tasks] if isinstance(tasks, str) else tasks,
            None if model is None else os.fspath(model),
            track, out=folder, limit=limit, judge=judge, baseline=baseline, perturb=perturb, audio=audio,
            seed=seed, batch_size=batch_size, batch_seconds=batch_seconds, device=device,
            data_dir=optional_path(data_dir), pad=pad, encoder_cache=optional_path(encoder_cache), language=language,
            template=check_template_variables(template or {}), trust=trust, retry_errors=retry_errors, use_cache=cache,
        )  # fmt: skip
        records = run(request)
        return Run([(record_folder(folder, record), record) for record in records])


def load_run(path: str | os.PathLike[str]) -> Run:
    """A finished run from disk; no library that runs models is needed.

    Args:
        path: A run folder, its `run.json`, or a folder with the runs of one model, such as `runs/eval/sft`.

    Raises:
        UserError: there is no finished run, it is damaged, or the folder holds runs of several models or several runs
            of one task.
    """
    from rba_bench.leaderboard.compare_runs import run_headers

    headers = run_headers(Path(path))
    models = sorted({str(record.model["name"])[:LONGEST_NAME] for _, record in headers})
    if len(models) > 1:
        raise UserError(f"{path} holds runs of several models ({', '.join(models)}): name the folder of one")
    tasks = [record.task for _, record in headers]
    if repeated := sorted({task for task in tasks if tasks.count(task) > 1}):
        raise UserError(f"{path} holds several runs of {', '.join(repeated)}: name one run folder")
    return Run(headers)


def _sample_fields(task: str, sample: "Sample") -> dict[str, Any]:
    # latency_s: of records before schema 2
    return {"task": task, **sample.model_dump(mode="json", exclude={"latency_s"})}
