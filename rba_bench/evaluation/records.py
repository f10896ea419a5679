"""The files of a run: `samples.jsonl`, one `Sample` a line, and `run.json`, a `RunRecord`.

    <out>/<model>/<run id>/samples.jsonl   appended while running, so a kill loses at most one batch; sorted at the end
    <out>/<model>/<run id>/timing.jsonl    what each batch cost; apart, so that equal answers make equal samples
    <out>/<model>/<run id>/run.json        written once, when every item has been answered and scored

Published samples are packed: `samples.jsonl.gz`. Beside a published record there may be `submission.json` and
`attestation.json`, see `leaderboard.provenance`; no run writes them.

A record may be somebody else's file, so everything in it is checked: its names become paths and headings.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from rba_bench.errors import UserError
from rba_bench.files import check_name, read_jsonl
from rba_bench.untrusted import (
    MAX_JSON,
    MAX_TEXT,
    parse_untrusted_json,
    plain,
    read_untrusted_file,
    unpack_gzip,
)

SCHEMA_VERSION = 2  # 1 had the latency in each sample, and no judge but the rules of the micro world
RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"
TIMING_FILE = "timing.jsonl"
PACKED_FILE = SAMPLES_FILE + ".gz"  # as published: text compresses tenfold
MARK_FILE = "submission.json"  # this record was sent in by somebody
ATTESTATION_FILE = "attestation.json"  # the model of this very record gave its answers again
BESIDE = {MARK_FILE: 2**20, ATTESTATION_FILE: MAX_JSON}  # largest size of each, in bytes

Status = Literal["ok", "empty", "truncated", "error", "not_heard", "no_reply", "judge_failed"]
STATUSES: tuple[Status, ...] = ("ok", "empty", "truncated", "error", "not_heard", "no_reply", "judge_failed")
UNSCORED: tuple[Status, ...] = ("not_heard", "no_reply")  # no failure of the model: such an item has no score
UNANSWERED: tuple[Status, ...] = ("error", *UNSCORED)  # asked again by `--retry-errors`


Name = Annotated[str, AfterValidator(check_name)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]
# Hexadecimal digits are no path and no markup; `leaderboard verify` checks that they are the hash of the clip.
ClipHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}\z")]
Moment = Annotated[
    str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\z")
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Sample(_Record):
    """One item as asked, answered and scored.

    Attributes:
        doc_id: Position of the item in the test set.
        id: Name of the item in the test set.
        kind: `instruct`, `chat`, `qa`, `s2tt`, `asr` or `ifeval`.
        group: What breakdowns and macro averages go by: the topic, or the direction (`de-en`) of a translation.
        cluster: Items with equal text share it (one sentence in several voices); intervals draw them together.
        prompt: Text sent beside the audio.
        instruction: What is spoken.
        played_sha256: Hash of the clip that was played instead of the item's own (`--audio shuffle`), "" if none was.
        response: Raw text of the model, with its thinking and what marks it, if it writes any.
        extracted: The part of the response that was scored: what follows the thinking, up to the end of the turn.
        baseline: Stored answer the response is compared with in a win rate.
        extra: JSON text of further facts that the scorer needs, "" if none.
        heard: Transcript by the recogniser of a cascade, "" for other models.
        reasoning: Thinking that a server sent apart from the response (`reasoning_content`); never scored.
        scores: Per metric a number, or the row of sufficient statistics of a corpus metric. A metric that could not
            be computed for this item (clip not decoded, no reply, judge failed) is absent.
        judge: Votes of the judge with reasons, None where no judge is asked.
        status: `ok`; `empty` and `truncated` answers are scored as they are; `error`: the model failed (out of memory,
            too long for it, refused by its content filter), which is scored as an empty answer. No failures of the
            model, so without scores: `not_heard`, the clip holds no usable sound; `no_reply`, the server gave no usable
            reply; `judge_failed`, the answer is there but the judge said nothing of use.
        error: Why the item is not `ok`, "" if it is.
        seed: Seed of the generation of this very item.
        latency_s: Of schema 1; now in `timing.jsonl`.
    """

    doc_id: int
    id: str
    kind: str
    group: str
    cluster: str
    audio_sha256: ClipHash
    duration: float
    prompt: str
    instruction: str
    source_lang: str
    target_lang: str
    response: str
    extracted: str
    references: list[str]
    baseline: str = ""
    extra: str = ""
    heard: str = ""
    reasoning: str = ""
    played_sha256: ClipHash | Literal[""] = ""
    scores: dict[str, float | list[int]]
    judge: dict[str, Any] | None = None
    status: Status
    error: str = ""
    n_tokens: int
    seed: int
    latency_s: float | None = None

    @model_validator(mode="after")
    def _nothing_to_score(self) -> "Sample":
        if self.status in UNSCORED and (self.response or self.scores):
            raise ValueError(f"item {self.id} is {self.status}, yet has a response or scores")
        return self

    def line(self) -> str:
        """The sample as a line of `samples.jsonl`; what is empty is left out."""
        return json.dumps(self.values(), ensure_ascii=False) + "\n"

    def values(self) -> dict[str, Any]:
        """JSON values of the fields that differ from their defaults, and of all that have none."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(slots=True)
class ScoredItem:
    """What boards need of a sample: which item it is, and its scores; see `Sample`."""

    doc_id: int
    group: str
    cluster: str
    audio_sha256: str
    target_lang: str
    scores: dict[str, float | list[int]]


_SAMPLES = TypeAdapter(list[Sample])
_SCORED_ITEMS = TypeAdapter(list[ScoredItem])


class MetricValue(_Record):
    """A score with its 95 % interval and all that is needed to compute it again from the samples.

    Attributes:
        aggregation: Name in `rba_bench.metrics.aggregate`: `mean`, `bleu`, `chrf++`, `error_rate`.
        macro: True if the score is the unweighted mean over the samples' `group`s.
        scale: Largest possible value: 1 for rates, 100 for BLEU and chrF++.
        breakdown: The same score for every group alone.
        n_missing: Items without this score: the clip could not be decoded, the server gave no reply, the judge failed,
            or there was nothing to compare with; `n` counts the others.
        mean_length: Of a win rate, mean length of the scored answers, in characters; None for other metrics.
        baseline_mean_length: Of a win rate, mean length of the answers to beat.
    """

    value: float
    low: float
    high: float
    stderr: float
    n: int
    method: str
    aggregation: str
    macro: bool
    scale: float
    signature: str
    higher_is_better: bool = True
    n_missing: int = 0
    mean_length: float | None = None
    baseline_mean_length: float | None = None
    breakdown: dict[str, "MetricPart"] = Field(default_factory=dict)


class MetricPart(_Record):
    """Score of one group of items."""

    value: float
    low: float
    high: float
    n: int


class Timing(_Record):
    """How fast the answers came.

    Attributes:
        generation_s: Wall time of answering, in seconds; of several processes, the slowest one's.
        audio_s: Seconds of audio answered. Answers found in the cache count in neither.
        rtfx: Seconds of audio answered per second of wall time.
        samples_per_s: Answers per second of wall time.
        seconds: Wall time by stage: `features`, `encoder`, `decoder` (where the model tells), `io` (waiting for
            clips), `other`, and `judge`, which is not part of `generation_s`.
        shares: The same as shares of their sum.
    """

    generation_s: float
    audio_s: float
    rtfx: float
    samples_per_s: float
    seconds: dict[str, float] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)


class Rescoring(_Record):
    """Facts of a record before its scores were computed again from the kept responses.

    Attributes:
        at: When that was.
        rba_bench: Version of the code that scored.
        judge: Judge that was asked again, "" where the earlier votes were kept, `none` where they were left out.
        from_version: Version of the task before.
        from_protocol: Protocol hash before.
        from_samples: Hash of `samples.jsonl` before.
    """

    at: Moment
    rba_bench: str
    judge: str
    from_version: Name
    from_protocol: Hash
    from_samples: Hash


class ExploitTable(_Record):
    """What answers without any knowledge would score: lists of candidates, denials, echoes, empty answers.

    Attributes:
        n: Questions of the task that the strategies were tried on.
        scores: Per strategy the mean score under each metric, in [0, 1].
    """

    n: int
    scores: dict[str, dict[str, float]]


class RunRecord(_Record):
    """One model on one task under one protocol. Only records with equal `protocol_hash` may share a table.

    Attributes:
        protocol: `greedy`, `sampled` or `custom`.
        protocol_spec: What `protocol_hash` is the hash of: task YAML, prompt, decoding, metric signatures, judge.
        data: `source`, `n_items`, `items_sha256` (texts) and `audio_set_sha256` (encoded clips), all of the *whole*
            test set.
        model: `name`, `spec` as asked for, identity with `weights_sha256`, and `training` (its `rba_run.json`) or None.
        statuses: Number of samples per status, zeros included. Older records also count `unparsed`, which no sample
            ever was.
        partial: True if `limit` cut the test set; boards refuse such a record.
        exploits: Of tasks that ask questions, see `rba_bench.evaluation.scoring`; None in older records.
        finish: What judges and other scorers report of themselves: agreement, order bias, calls.
        samples_sha256: Hash of `samples.jsonl`.
        rescored: Each time that `rba-bench rescore` changed something, oldest first. Hardware, versions and timing stay
            those of the answers.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    run_id: Name
    task: Name
    task_version: Name
    benchmark: Name
    track: Name
    protocol: Name
    protocol_hash: Hash
    protocol_spec: dict[str, Any]
    decoding: dict[str, Any]
    judge: dict[str, Any] | None
    data: dict[str, Any]
    model: dict[str, Any]
    seeds: dict[str, int]
    n: int
    limit: int | None
    partial: bool
    metrics: dict[Name, MetricValue]
    statuses: dict[Status, int]
    timing: Timing
    hardware: dict[str, Any]
    versions: dict[str, str]
    finish: dict[str, Any] = Field(default_factory=dict)
    exploits: ExploitTable | None = None
    samples_sha256: Hash
    created: Moment
    rescored: list[Rescoring] = Field(default_factory=list)

    @property
    def audio_control(self) -> str:
        """Name of the control that took the speech away, such as `silence`; "" for a run with the items' clips."""
        entry = self.protocol_spec.get("audio")
        return plain(entry.get("text") if isinstance(entry, Mapping) else entry) if entry else ""

    @field_validator("statuses", mode="before")
    @classmethod
    def _without_retired(cls, value: Any) -> Any:
        """Records used to count a status that was never set."""
        return {k: v for k, v in value.items() if k != "unparsed" or v} if isinstance(value, dict) else value

    @field_validator("model")
    @classmethod
    def _named(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Every table shows the name, and the spec decides what a row is."""
        for key in ("name", "spec"):
            if not isinstance(value.get(key), str) or not value[key].strip():
                raise ValueError(f"model.{key} is missing")
        return value

    @field_validator("data")
    @classmethod
    def _hashed(cls, value: dict[str, Any]) -> dict[str, Any]:
        """What tells one test set from another."""
        n_items = value.get("n_items")
        if not isinstance(n_items, int) or isinstance(n_items, bool) or n_items < 1:
            raise ValueError("data.n_items is no number of items")
        for key in ("items_sha256", "audio_set_sha256"):
            check_hash(value.get(key), f"data.{key}")
        return value


def check_hash(value: object, name: str) -> str:
    """`value` if it is a hex SHA-256. Raises ValueError naming it otherwise."""
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{name} is no SHA-256")
    return value


def status_counts(samples: Sequence[Sample]) -> dict[Status, int]:
    """Number of samples of every status, zeros included."""
    counts = Counter(sample.status for sample in samples)
    return {status: counts[status] for status in STATUSES}


def describe_failures(statuses: Mapping[Status, int]) -> str:
    """Number of items that are not `ok`, by status: `3 (empty 1, not_heard 2)`."""
    counts = {status: statuses.get(status, 0) for status in STATUSES if status != "ok"}
    listed = ", ".join(f"{status} {count}" for status, count in counts.items() if count)
    return f"{sum(counts.values())} ({listed})" if listed else "0"


def read_record(path: Path | str) -> RunRecord:
    """The record in a run folder or a `run.json`.

    Raises:
        UserError: no record there, or not one of this schema.
    """
    return read_record_bytes(path)[0]


def read_record_bytes(path: Path | str) -> tuple[RunRecord, bytes]:
    """The same with the content of the file."""
    file = Path(path)
    file = file / RUN_FILE if file.is_dir() else file
    try:
        data = read_untrusted_file(file)
        return RunRecord.model_validate(parse_untrusted_json(data), strict=True), data
    except FileNotFoundError as error:
        raise UserError(
            f"no run record at {file}: the run has not finished, repeat its command to resume"
        ) from error
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"{file} is not a run record of schema {SCHEMA_VERSION}: {first_fault(error)}"
        ) from error


def read_samples(path: Path | str) -> list[Sample]:
    """All samples of a run folder or a `samples.jsonl`, in the order of the test set. A torn last line is left out.

    Raises:
        UserError: a line is not a sample.
    """
    file = Path(path)
    file = file / SAMPLES_FILE if file.is_dir() else file
    try:
        samples = {sample.doc_id: sample for sample in map(Sample.model_validate, read_jsonl(file))}
    except (ValidationError, ValueError) as error:
        raise UserError(f"{file} is damaged: {first_fault(error)}") from error
    return [samples[doc_id] for doc_id in sorted(samples)]


def first_fault(error: Exception) -> str:
    """The first fault of a file, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return plain(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return plain(error)


def pack_samples(data: bytes) -> bytes:
    """Samples as published; the same bytes in, the same bytes out."""
    return gzip.compress(data, compresslevel=9, mtime=0)


_PACKED_HEAD = pack_samples(b"")[:10]


def packed_as_published(folder: Path, data: bytes) -> bytes:
    """`data`, the samples in a run folder, as they are published.

    To pack takes as long as to read and check. A packed file in the folder is taken if it is headed as `pack_samples`
    does it (best compression, no name, no time), holds these samples and nothing behind them, and is no larger.
    """
    with suppress(FileNotFoundError, UserError, zlib.error):
        packed = read_untrusted_file(folder / PACKED_FILE, len(data))
        if packed.startswith(_PACKED_HEAD):
            unpacker = zlib.decompressobj(wbits=31)
            same = unpacker.decompress(packed, len(data) + 1) == data
            if same and unpacker.eof and not unpacker.unused_data:
                return packed
    return pack_samples(data)


def sample_bytes(folder: Path) -> bytes:
    """Lines of the samples in a run folder, unpacked. Raises UserError where they are missing or damaged."""
    packed = folder / PACKED_FILE
    with suppress(FileNotFoundError):
        return read_untrusted_file(folder / SAMPLES_FILE, MAX_TEXT)
    try:
        return unpack_gzip(read_untrusted_file(packed, MAX_TEXT), packed)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has a {RUN_FILE} but no {SAMPLES_FILE}; both are needed") from error


def read_beside(folder: Path) -> dict[str, bytes]:
    """The files of `BESIDE` in a run folder, by name. Raises UserError for a link, or one that is too large."""
    found = {}
    for name, limit in BESIDE.items():
        with suppress(FileNotFoundError):
            found[name] = read_untrusted_file(folder / name, limit)
    return found


def parse_samples(data: bytes, folder: Path) -> Iterator[Sample]:
    """The samples in those lines, in their order. Raises UserError for a line that is none."""
    try:
        for line in data.split(b"\n"):
            if line.strip():
                yield Sample.model_validate(parse_untrusted_json(line), strict=True)
    except ValueError as error:
        raise UserError(f"{folder}: {SAMPLES_FILE} is damaged: {first_fault(error)}") from error


def parse_checked_samples(data: bytes) -> list[Sample]:
    """The samples in lines that `parse_samples` has read before, several times faster.

    Raises:
        ValueError: a line is no sample. What else `parse_samples` refuses (a key that occurs twice) is not seen.
    """
    return _SAMPLES.validate_json(_json_array(data), strict=True)


def parse_checked_items(data: bytes) -> list[ScoredItem]:
    """The same without the texts, faster again."""
    return _SCORED_ITEMS.validate_json(_json_array(data), strict=True)


def _json_array(lines: bytes) -> bytes:
    return b"[" + b",".join([line for line in lines.split(b"\n") if line.strip()]) + b"]"
