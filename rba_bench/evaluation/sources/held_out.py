"""In-domain tests on the held-out part of an alignment set: by topic, and over voices.

`topics` takes the same number of held-out instructions from every topic, one clip of each. The answers to beat are the
teacher's, stored in the set, or those of a run. `consistency` takes held-out instructions in the same number of voices
each, to measure whether the answer depends on the speaker: all voices of one instruction share a cluster, and the
scorer `consistency` compares their answers.

Which instructions, and which of an instruction's voices, is chosen by hash of seed and words, so a set that is
synthesised again gives the same choice.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.assets import load_world
from rba_bench.audio.alignment_set import MANIFEST, AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines, tables
from rba_bench.evaluation.sources.source import DATA_DIR_VARIABLE, LoadedSet, Place, check_options
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

PER_TOPIC, TOPICS_SEED = 200, 1234
TEACHER, RUN = "teacher", "run"
N_INSTRUCTIONS, N_VOICES, CONSISTENCY_SEED = 500, 4, 1234
COLUMNS = ("id", "topic", "instruction", "prompt", "source_lang", "target_lang", "voice")
SPLITS = ("test", "validation")  # held out; the first that has rows, unless the task names one


def open_set(folder: str, task: str, place: Place) -> AlignmentSet:
    """The alignment set of a task: the folder it names, else `DATA_DIR/<task>` or `DATA_DIR`.

    Raises:
        MissingPrerequisite: there is none.
        UserError: it is damaged.
    """
    if folder:
        return AlignmentSet.open(Path(folder))
    if place.data_dir is not None:
        for path in (place.data_dir / task, place.data_dir):
            if (path / MANIFEST).is_file():
                return AlignmentSet.open(path)
    raise MissingPrerequisite(
        f"no alignment set: name its folder (with {MANIFEST}) by --data-dir or {DATA_DIR_VARIABLE}; "
        "make one with `rba-bench synth --out DIR`"
    )


def rows_of_split(alignment: AlignmentSet, kind: str, split: str = "") -> tuple[str, list[AlignmentRow]]:
    """The split, and its rows of one kind.

    Args:
        alignment: The set.
        kind: `instruct`, `qa` or `s2tt`.
        split: "" for the first of SPLITS that has such rows.

    Raises:
        UserError: there are none.
    """
    of_kind = [row for row in alignment.rows() if row.kind == kind]
    if any(row.turns for row in of_kind):
        raise UserError(
            f"{alignment.path} has dialogues, and this task asks one turn: use a set without the column `turns`"
        )
    for name in (split,) if split else SPLITS:
        if rows := [row for row in of_kind if row.split == name]:
            return name, rows
    present = ", ".join(sorted({row.split for row in of_kind})) or "none"
    raise UserError(
        f"{alignment.path} holds no items of kind {kind} in the split {split or ' or '.join(SPLITS)}; "
        f"splits there: {present}"
    )


def _document(row: AlignmentRow, **more: Any) -> documents.Document:
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


def load_topics(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The chosen items with answers to beat.

    Args:
        options: `versus`: `teacher`, or `run` for the run that `--baseline` names; `set`: folder of the alignment set
            (else it is looked for in the data folder); `split`; `per_topic`; `seed`.
        place: Data folder, and `options["baseline"]`.

    Raises:
        UserError: unknown options, no held-out instructions, or a baseline beside `versus: teacher`.
        MissingPrerequisite: no alignment set, or no baseline.
    """
    values = check_options(options, versus=TEACHER, set="", split="", per_topic=PER_TOPIC, seed=TOPICS_SEED)
    _check_baseline(str(values["versus"]), place)
    alignment = open_set(str(values["set"]), "rba_topics", place)
    split, rows = rows_of_split(alignment, "instruct", str(values["split"]))
    seed = int(values["seed"])
    topics = _choose_by_topic(rows, int(values["per_topic"]), seed)
    counts = {topic: len(members) for topic, members in topics.items()}
    if short := {topic: n for topic, n in counts.items() if n < int(values["per_topic"])}:
        say(
            f"rba_topics: fewer than {values['per_topic']} held-out instructions in "
            + ", ".join(f"{topic} ({n})" for topic, n in short.items())
        )
    items = [_document(row, baseline=row.response) for members in topics.values() for row in members]
    found = {"repo": "alignment set", "revision": alignment.sha256, "split": split}
    origin = {**found, "seed": seed, "topics": counts}
    teacher = alignment.manifest.get("teacher")
    facts = teacher if isinstance(teacher, dict) else {}
    name, weights = Path(str(facts.get("path", ""))).name, str(facts.get("weights_sha256", ""))[:12]
    baseline_name = " ".join(part for part in ("teacher", name, weights) if part)
    return baselines.with_baseline(items, origin, place, baseline_name)


def _check_baseline(versus: str, place: Place) -> None:
    baseline = place.options.get("baseline")
    if versus not in (TEACHER, RUN):
        raise UserError(f"unknown `versus: {versus}` in dataset_kwargs; known: {TEACHER}, {RUN}")
    if versus == TEACHER and baseline not in (None, baselines.NONE):
        raise UserError(
            "rba_topics_vs_teacher compares with the teacher: leave --baseline out, or take rba_topics"
        )
    if versus == RUN and baseline is None:
        raise MissingPrerequisite(
            "rba_topics compares with a run of the base or the SFT model on the same items: make it with "
            f"`rba-bench eval --task rba_topics --baseline {baselines.NONE} --model BASE ...` and name its folder with "
            "--baseline RUN (rba_topics_vs_teacher needs none)"
        )


def _choose_by_topic(
    rows: Sequence[AlignmentRow], per_topic: int, seed: int
) -> dict[str, list[AlignmentRow]]:
    """Per topic, in alphabetical order, one clip of each chosen instruction."""

    def voice_rank(row: AlignmentRow) -> int:
        return stable_seed("rba_topics voice", seed, row.instruction, row.voice)

    topics: dict[str, dict[str, AlignmentRow]] = {}
    for row in rows:
        clips = topics.setdefault(row.topic, {})
        previous = clips.get(row.instruction)
        if previous is None or voice_rank(row) < voice_rank(previous):
            clips[row.instruction] = row
    by_topic = {}
    for topic, clips in sorted(topics.items()):
        texts = sorted(clips, key=lambda text: stable_seed("rba_topics", seed, text))
        by_topic[topic] = [clips[text] for text in texts[:per_topic]]
    return by_topic


def load_consistency(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The chosen clips, voices of one instruction together.

    Args:
        options: `n_instructions` (500), `n_voices` (4), `seed`; of an alignment set `set` (its folder, else it is
            looked for in the data folder), `split` and `kind` (`instruct`); or `micro`, a micro test set.
        place: Data folder.

    Raises:
        UserError: unknown options, or no instruction in so many voices.
        MissingPrerequisite: no alignment set.
    """
    sizes = {"n_instructions": N_INSTRUCTIONS, "n_voices": N_VOICES, "seed": CONSISTENCY_SEED}
    values = check_options(options, micro="", set="", split="", kind="instruct", **sizes)
    if int(values["n_voices"]) < 2 or int(values["n_instructions"]) < 1:
        raise UserError("speaker consistency needs n_voices of at least 2 and n_instructions of at least 1")
    cluster = documents.text_cluster
    if values["micro"]:
        name = str(values["micro"])
        file = load_world("testsets").load_testset(name) / f"{documents.SPLIT}.parquet"
        items = [
            documents.make_document(
                kind="chat", clip=clip, cluster=cluster(row["prompt"], row["instruction"]), **row
            )
            for row, clip in tables.parquet_rows([file], COLUMNS)
        ]
        origin = {"repo": name, "revision": "local"}
    else:
        alignment = open_set(str(values["set"]), "speaker_consistency", place)
        split, rows = rows_of_split(alignment, str(values["kind"]), str(values["split"]))
        items = [_document(row, cluster=cluster(row.prompt, row.instruction)) for row in rows]
        origin = {"repo": "alignment set", "revision": alignment.sha256, "split": split}
    clips, n = _choose_voices(items, values)
    facts = {"instructions": n, "voices": int(values["n_voices"]), "seed": int(values["seed"])}
    return LoadedSet(clips, {**origin, **facts})


def _choose_voices(
    items: Iterable[documents.Document], chosen: Mapping[str, Any]
) -> tuple[list[documents.Document], int]:
    """Clips of the chosen instructions, and the number of these instructions."""
    n_voices, n_instructions, seed = (int(chosen[name]) for name in ("n_voices", "n_instructions", "seed"))
    groups: dict[str, dict[str, documents.Document]] = {}
    for item in items:
        groups.setdefault(item["cluster"], {}).setdefault(item["voice"], item)
    complete = [cluster for cluster, voices in groups.items() if len(voices) >= n_voices]
    if not complete:
        most = max((len(voices) for voices in groups.values()), default=0)
        raise UserError(
            f"no instruction there is spoken in {n_voices} voices (at most {most}): synthesise the set with more voices"
        )
    if len(complete) < n_instructions:
        say(
            f"speaker_consistency: {len(complete)} instructions in {n_voices} voices, {n_instructions} are asked for"
        )
    complete.sort(key=lambda cluster: stable_seed("consistency", seed, cluster))
    clusters = complete[:n_instructions]
    clips = []
    for cluster in clusters:
        by_hash = sorted(groups[cluster], key=lambda voice: stable_seed("consistency", seed, cluster, voice))
        clips += [groups[cluster][voice] for voice in sorted(by_hash[:n_voices])]
    return clips, len(clusters)
