"""Held-out instructions, each in the same number of voices: does the answer depend on who asks?

Which instructions, and which of an instruction's voices, is drawn by hash of seed and words, so a set that is
synthesised again gives the same draw. All voices of one instruction share a cluster; the finisher `consistency`
compares their answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import MANIFEST, AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import tables
from rba_bench.evaluation.sources.base import DATA_DIR_VARIABLE, Loaded, Place
from rba_bench.evaluation.sources.common import checked
from rba_bench.files import sha256_bytes
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

SPLITS = ("test", "validation")  # held out; the first that has instructions, unless the task names one
N_INSTRUCTIONS, N_VOICES, SEED = 500, 4, 1234
COLUMNS = ("id", "topic", "instruction", "prompt", "source_lang", "target_lang", "voice")


def load(options: Mapping[str, Any], place: Place) -> Loaded:
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
        seed=SEED,
    )
    if int(chosen["n_voices"]) < 2 or int(chosen["n_instructions"]) < 1:
        raise UserError("speaker consistency needs n_voices of at least 2 and n_instructions of at least 1")
    if chosen["micro"]:
        items, origin = _micro(str(chosen["micro"])), {"repo": str(chosen["micro"]), "revision": "local"}
    else:
        items, origin = _aligned(chosen, place)
    drawn, groups = _draw(items, chosen)
    facts = {"instructions": groups, "voices": int(chosen["n_voices"]), "seed": int(chosen["seed"])}
    return Loaded(drawn, {**origin, **facts})


def _micro(name: str) -> list[dict[str, Any]]:
    from rba_bench.micro import testsets

    file = testsets.load(name) / f"{documents.SPLIT}.parquet"
    return [
        documents.make(kind="chat", clip=clip, cluster=_cluster(row["prompt"], row["instruction"]), **row)
        for row, clip in tables.rows([file], COLUMNS)
    ]


def _aligned(chosen: Mapping[str, Any], place: Place) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    alignment = AlignmentSet.open(_folder(str(chosen["set"]), place))
    rows = [row for row in alignment.rows() if row.kind == chosen["kind"]]
    wanted = str(chosen["split"])
    for split in (wanted,) if wanted else SPLITS:
        if held_out := [row for row in rows if row.split == split]:
            origin = {"repo": "alignment set", "revision": alignment.sha256, "split": split}
            return [_document(row) for row in held_out], origin
    present = ", ".join(sorted({row.split for row in rows})) or "none"
    raise UserError(
        f"{alignment.path} holds no items of kind {chosen['kind']} in the split {wanted or ' or '.join(SPLITS)}; "
        f"splits there: {present}"
    )


def _folder(named: str, place: Place) -> Path:
    if named:
        return Path(named)
    if place.data_dir is not None:
        for folder in (place.data_dir / "speaker_consistency", place.data_dir):
            if (folder / MANIFEST).is_file():
                return folder
    raise MissingPrerequisite(
        f"no alignment set: name its folder (with {MANIFEST}) by --data-dir or {DATA_DIR_VARIABLE}; "
        "make one with `rba-bench synth --out DIR`"
    )


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
        cluster=_cluster(row.prompt, row.instruction),
    )


def _cluster(prompt: str, instruction: str) -> str:
    return sha256_bytes(f"{prompt} {instruction}".strip().encode())[:12]


def _draw(items: Iterable[Mapping[str, Any]], chosen: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
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
