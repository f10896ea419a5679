"""The held-out part of an alignment set, which several in-domain tests draw from.

Held-out instructions of an alignment set, the same number from every topic: the in-domain test of RBA.

One clip an instruction: which instructions of a topic, and which of an instruction's voices, is drawn by hash of seed
and words, so a set that is synthesised again gives the same draw. The answers to beat are the teacher's, stored in the
set, or those of a run.

Held-out instructions, each in the same number of voices: does the answer depend on who asks?

Which instructions, and which of an instruction's voices, is drawn by hash of seed and words, so a set that is
synthesised again gives the same draw. All voices of one instruction share a cluster; the finisher `consistency`
compares their answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.assets import load_world
from rba_bench.audio.alignment_set import MANIFEST, AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines, tables
from rba_bench.evaluation.sources.source import DATA_DIR_VARIABLE, Loaded, Place, checked
from rba_bench.files import sha256_bytes
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

SPLITS = ("test", "validation")  # held out; the first that has rows, unless the task names one


def open_set(named: str, task: str, place: Place) -> AlignmentSet:
    """The alignment set of a task: the folder it names, else `DATA_DIR/<task>` or `DATA_DIR`.

    Raises:
        MissingPrerequisite: there is none.
        UserError: it is damaged.
    """
    if named:
        return AlignmentSet.open(Path(named))
    if place.data_dir is not None:
        for folder in (place.data_dir / task, place.data_dir):
            if (folder / MANIFEST).is_file():
                return AlignmentSet.open(folder)
    raise MissingPrerequisite(
        f"no alignment set: name its folder (with {MANIFEST}) by --data-dir or {DATA_DIR_VARIABLE}; "
        "make one with `rba-bench synth --out DIR`"
    )


def rows_of_split(alignment: AlignmentSet, kind: str, wanted: str = "") -> tuple[str, list[AlignmentRow]]:
    """The split, and its rows of one kind.

    Args:
        alignment: The set.
        kind: `instruct`, `qa` or `s2tt`.
        wanted: Split; "" for the first of SPLITS that has such rows.

    Raises:
        UserError: there are none.
    """
    of_kind = [row for row in alignment.rows() if row.kind == kind]
    for split in (wanted,) if wanted else SPLITS:
        if members := [row for row in of_kind if row.split == split]:
            return split, members
    present = ", ".join(sorted({row.split for row in of_kind})) or "none"
    raise UserError(
        f"{alignment.path} holds no items of kind {kind} in the split {wanted or ' or '.join(SPLITS)}; "
        f"splits there: {present}"
    )


def document(row: AlignmentRow, **more: Any) -> dict[str, Any]:
    """A row as a spoken instruction; `more` as in `documents.make_document`."""
    ref = row.audio
    path = str(Path(ref.path).resolve())
    return documents.make_document(
        id=row.id,
        kind="chat",
        clip=tables.Clip(ref.sha256, ref.sampling_rate, ref.duration, path, ref.row),
        instruction=row.instruction,
        prompt=row.prompt,
        topic=row.topic,
        voice=row.voice,
        source_lang=row.source_lang,
        target_lang=row.target_lang,
        **more,
    )


PER_TOPIC = 200
TOPICS_SEED = 1234
TEACHER, RUN = "teacher", "run"


def load_topics(options: Mapping[str, Any], place: Place) -> Loaded:
    """The drawn items with answers to beat.

    Args:
        options: `versus`: `teacher`, or `run` for the run that `--baseline` names; `set`: folder of the alignment set
            (else it is looked for in the data folder); `split`; `per_topic`; `seed`.
        place: Data folder, and `options["baseline"]`.

    Raises:
        UserError: unknown options, no held-out instructions, or a baseline beside `versus: teacher`.
        MissingPrerequisite: no alignment set, or no baseline.
    """
    chosen = checked(options, versus=TEACHER, set="", split="", per_topic=PER_TOPIC, seed=TOPICS_SEED)
    _check(str(chosen["versus"]), place)
    alignment = open_set(str(chosen["set"]), "rba_topics", place)
    split, rows = rows_of_split(alignment, "instruct", str(chosen["split"]))
    drawn = _draw_topics(rows, int(chosen["per_topic"]), int(chosen["seed"]))
    counts = {topic: len(members) for topic, members in drawn.items()}
    short = {topic: n for topic, n in counts.items() if n < int(chosen["per_topic"])}
    if short:
        say(
            f"rba_topics: fewer than {chosen['per_topic']} held-out instructions in "
            + ", ".join(f"{topic} ({n})" for topic, n in short.items())
        )
    items = [document(row, baseline=row.response) for members in drawn.values() for row in members]
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


def _draw_topics(rows: Sequence[AlignmentRow], per_topic: int, seed: int) -> dict[str, list[AlignmentRow]]:
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


N_INSTRUCTIONS, N_VOICES, CONSISTENCY_SEED = 500, 4, 1234
COLUMNS = ("id", "topic", "instruction", "prompt", "source_lang", "target_lang", "voice")


def load_consistency(options: Mapping[str, Any], place: Place) -> Loaded:
    """The drawn clips, voices of one instruction together.

    Args:
        options: `n_instructions` (500), `n_voices` (4), `seed`; of an alignment set `set` (its folder, else it is
            looked for in the data folder), `split` and `kind` (`instruct`); or `micro`, a micro test set.
        place: Data folder.

    Raises:
        UserError: unknown options, or no instruction in so many voices.
        MissingPrerequisite: no alignment set.
    """
    chosen = checked(
        options,
        micro="",
        set="",
        split="",
        kind="instruct",
        n_instructions=N_INSTRUCTIONS,
        n_voices=N_VOICES,
        seed=CONSISTENCY_SEED,
    )
    if int(chosen["n_voices"]) < 2 or int(chosen["n_instructions"]) < 1:
        raise UserError("speaker consistency needs n_voices of at least 2 and n_instructions of at least 1")
    if chosen["micro"]:
        items, origin = _micro(str(chosen["micro"])), {"repo": str(chosen["micro"]), "revision": "local"}
    else:
        items, origin = _aligned(chosen, place)
    drawn, groups = _draw_voices(items, chosen)
    facts = {"instructions": groups, "voices": int(chosen["n_voices"]), "seed": int(chosen["seed"])}
    return Loaded(drawn, {**origin, **facts})


def _micro(name: str) -> list[dict[str, Any]]:
    file = load_world("testsets").load_testset(name) / f"{documents.SPLIT}.parquet"
    return [
        documents.make_document(
            kind="chat", clip=clip, cluster=_cluster(row["prompt"], row["instruction"]), **row
        )
        for row, clip in tables.rows([file], COLUMNS)
    ]


def _aligned(chosen: Mapping[str, Any], place: Place) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    alignment = open_set(str(chosen["set"]), "speaker_consistency", place)
    split, rows = rows_of_split(alignment, str(chosen["kind"]), str(chosen["split"]))
    items = [document(row, cluster=_cluster(row.prompt, row.instruction)) for row in rows]
    return items, {"repo": "alignment set", "revision": alignment.sha256, "split": split}


def _cluster(prompt: str, instruction: str) -> str:
    return sha256_bytes(f"{prompt} {instruction}".strip().encode())[:12]


def _draw_voices(
    items: Iterable[Mapping[str, Any]], chosen: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """Clips of the drawn instructions, and how many instructions these are."""
    n_voices, wanted, seed = (int(chosen[name]) for name in ("n_voices", "n_instructions", "seed"))
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for item in items:
        groups.setdefault(item["cluster"], {}).setdefault(item["voice"], dict(item))
    full = [cluster for cluster, voices in groups.items() if len(voices) >= n_voices]
    if not full:
        most = max((len(voices) for voices in groups.values()), default=0)
        raise UserError(
            f"no instruction there is spoken in {n_voices} voices (at most {most}): synthesise the set with more voices"
        )
    if len(full) < wanted:
        say(f"speaker_consistency: {len(full)} instructions in {n_voices} voices, {wanted} are asked for")
    picked = sorted(full, key=lambda cluster: stable_seed("consistency", seed, cluster))[:wanted]
    return [clip for cluster in picked for clip in _voices(groups[cluster], n_voices, seed)], len(picked)


def _voices(voices: Mapping[str, dict[str, Any]], n: int, seed: int) -> Sequence[dict[str, Any]]:
    picked = sorted(
        voices, key=lambda voice: stable_seed("consistency", seed, voices[voice]["cluster"], voice)
    )[:n]
    return [voices[voice] for voice in sorted(picked)]
