"""Held-out instructions, each in the same number of voices: does the answer depend on who asks?

Which instructions, and which of an instruction's voices, is drawn by hash of seed and words, so a set that is
synthesised again gives the same draw. All voices of one instruction share a cluster; the finisher `consistency`
compares their answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import held_out, tables
from rba_bench.evaluation.sources.base import Loaded, Place
from rba_bench.evaluation.sources.common import checked
from rba_bench.files import sha256_bytes
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

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
    alignment = held_out.open_set(str(chosen["set"]), "speaker_consistency", place)
    split, rows = held_out.rows(alignment, str(chosen["kind"]), str(chosen["split"]))
    items = [held_out.document(row, cluster=_cluster(row.prompt, row.instruction)) for row in rows]
    return items, {"repo": "alignment set", "revision": alignment.sha256, "split": split}


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
