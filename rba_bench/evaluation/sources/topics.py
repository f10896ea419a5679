"""Held-out instructions of an alignment set, the same number from every topic: the in-domain test of RBA.

One clip an instruction: which instructions of a topic, and which of an instruction's voices, is drawn by hash of seed
and words, so a set that is synthesised again gives the same draw. The answers to beat are the teacher's, stored in the
set, or those of a run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import MANIFEST, AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines, tables
from rba_bench.evaluation.sources.base import DATA_DIR_VARIABLE, Loaded, Place
from rba_bench.evaluation.sources.common import checked
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

SPLITS = ("test", "validation")  # held out; the first that has rows, unless the task names one
PER_TOPIC = 200
SEED = 1234
TEACHER, RUN = "teacher", "run"


def load(options: Mapping[str, Any], place: Place) -> Loaded:
    """The drawn items with answers to beat.

    Args:
        options: `versus`: `teacher`, or `run` for the run that `--baseline` names; `set`: folder of the alignment set
            (else it is looked for in the data folder); `split`; `per_topic`; `seed`.
        place: Data folder, and `options["baseline"]`.

    Raises:
        UserError: unknown options, no held-out instructions, or a baseline beside `versus: teacher`.
        MissingPrerequisite: no alignment set, or no baseline.
    """
    chosen = checked(options, versus=TEACHER, set="", split="", per_topic=PER_TOPIC, seed=SEED)
    _check(str(chosen["versus"]), place)
    alignment = AlignmentSet.open(_folder(str(chosen["set"]), place))
    split, rows = _held_out(alignment, str(chosen["split"]))
    drawn = _draw(rows, int(chosen["per_topic"]), int(chosen["seed"]))
    counts = {topic: len(members) for topic, members in drawn.items()}
    short = {topic: n for topic, n in counts.items() if n < int(chosen["per_topic"])}
    if short:
        say(
            f"rba_topics: fewer than {chosen['per_topic']} held-out instructions in "
            + ", ".join(f"{topic} ({n})" for topic, n in short.items())
        )
    items = [_document(row) for members in drawn.values() for row in members]
    origin = {
        "repo": "alignment set",
        "revision": alignment.sha256,
        "split": split,
        "seed": int(chosen["seed"]),
        "topics": counts,
    }
    return baselines.compared(items, origin, place, _teacher(alignment))


def _check(versus: str, place: Place) -> None:
    given = place.options.get("baseline")
    if versus not in (TEACHER, RUN):
        raise UserError(f"unknown `versus: {versus}` in dataset_kwargs; known: {TEACHER}, {RUN}")
    if versus == TEACHER and given not in (None, baselines.NONE):
        raise UserError(
            "rba_topics_vs_teacher compares with the teacher: leave --baseline out, or take rba_topics"
        )
    if versus == RUN and given is None:
        raise MissingPrerequisite(
            "rba_topics compares with a run of the base or the SFT model on the same items: make it with "
            f"`rba-bench eval --task rba_topics --baseline {baselines.NONE} --model BASE ...` and name its folder with "
            "--baseline RUN (rba_topics_vs_teacher needs none)"
        )


def _teacher(alignment: AlignmentSet) -> str:
    told = alignment.manifest.get("teacher")
    told = told if isinstance(told, dict) else {}
    name, weights = Path(str(told.get("path", ""))).name, str(told.get("weights_sha256", ""))[:12]
    return " ".join(part for part in ("teacher", name, weights) if part)


def _folder(named: str, place: Place) -> Path:
    if named:
        return Path(named)
    if place.data_dir is not None:
        for folder in (place.data_dir / "rba_topics", place.data_dir):
            if (folder / MANIFEST).is_file():
                return folder
    raise MissingPrerequisite(
        f"no alignment set: name its folder (with {MANIFEST}) by --data-dir or {DATA_DIR_VARIABLE}; "
        "make one with `rba-bench synth --out DIR`"
    )


def _held_out(alignment: AlignmentSet, wanted: str) -> tuple[str, list[AlignmentRow]]:
    rows = [row for row in alignment.rows() if row.kind == "instruct"]
    for split in (wanted,) if wanted else SPLITS:
        if members := [row for row in rows if row.split == split]:
            return split, members
    present = ", ".join(sorted({row.split for row in rows})) or "none"
    raise UserError(
        f"{alignment.path} holds no instructions in the split {wanted or ' or '.join(SPLITS)}; splits there: {present}"
    )


def _draw(rows: Sequence[AlignmentRow], per_topic: int, seed: int) -> dict[str, list[AlignmentRow]]:
    """Per topic, in alphabetical order, one clip of each drawn instruction."""
    clips: dict[str, dict[str, AlignmentRow]] = {}
    for row in rows:
        said = clips.setdefault(row.topic, {})
        other = said.get(row.instruction)
        if other is None or _voice_rank(row, seed) < _voice_rank(other, seed):
            said[row.instruction] = row
    return {
        topic: [
            said[text] for text in sorted(said, key=lambda t: stable_seed("rba_topics", seed, t))[:per_topic]
        ]
        for topic, said in sorted(clips.items())
    }


def _voice_rank(row: AlignmentRow, seed: int) -> int:
    return stable_seed("rba_topics voice", seed, row.instruction, row.voice)


def _document(row: AlignmentRow) -> dict[str, Any]:
    ref = row.audio
    path = str(Path(ref.path).resolve())
    return documents.make(
        id=row.id,
        kind="chat",
        clip=tables.Clip(ref.sha256, ref.sampling_rate, ref.duration, path, ref.row),
        instruction=row.instruction,
        prompt=row.prompt,
        topic=row.topic,
        voice=row.voice,
        source_lang=row.source_lang,
        target_lang=row.target_lang,
        baseline=row.response,
    )
