"""Held-out instructions of an alignment set, the same number from every topic: the in-domain test of RBA.

One clip an instruction: which instructions of a topic, and which of an instruction's voices, is drawn by hash of seed
and words, so a set that is synthesised again gives the same draw. The answers to beat are the teacher's, stored in the
set, or those of a run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.sources import baselines, held_out
from rba_bench.evaluation.sources.base import Loaded, Place
from rba_bench.evaluation.sources.common import checked
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

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
    alignment = held_out.open_set(str(chosen["set"]), "rba_topics", place)
    split, rows = held_out.rows(alignment, "instruct", str(chosen["split"]))
    drawn = _draw(rows, int(chosen["per_topic"]), int(chosen["seed"]))
    counts = {topic: len(members) for topic, members in drawn.items()}
    short = {topic: n for topic, n in counts.items() if n < int(chosen["per_topic"])}
    if short:
        say(
            f"rba_topics: fewer than {chosen['per_topic']} held-out instructions in "
            + ", ".join(f"{topic} ({n})" for topic, n in short.items())
        )
    items = [held_out.document(row, baseline=row.response) for members in drawn.values() for row in members]
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
