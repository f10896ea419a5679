"""Any alignment set, finished or still being made, opened to be looked at."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rba_bench.assets import resolve_alignment_set
from rba_bench.audio.alignment_set import MANIFEST, SCHEMA_VERSION, AlignmentSet
from rba_bench.audio.set_statistics import KEPT
from rba_bench.errors import UserError
from rba_bench.files import is_below, read_json
from rba_bench.outputs import read_signature
from rba_bench.synthesis.filters import ANSWER_REASONS, INSTRUCTION_REASONS
from rba_bench.synthesis.shards import DONE, SHARDS
from rba_bench.synthesis.speech import CLIP_REASONS
from rba_bench.synthesis.texts.text_rules import REASONS as TEXT_REASONS

STAGES = ("synth", "import")  # that make alignment sets
MEANINGS = {
    "instructions": {**TEXT_REASONS, **INSTRUCTION_REASONS},
    "answers": {**TEXT_REASONS, **ANSWER_REASONS},
    "clips": CLIP_REASONS,
}


def open_set(path: Path | str) -> tuple[AlignmentSet, str]:
    """Open a set without hashing its shards.

    Args:
        path: Its folder, or `asset:NAME`.

    Returns:
        The set, and how far it is ("" where it is finished). Of an unfinished one, the shards that are finished; its
        manifest has the parts `filters` and `checksums`, as far as they are known.

    Raises:
        UserError: there is no alignment set, it is damaged, or nothing of it is finished.
    """
    folder = resolve_alignment_set(path)
    signature = None if (folder / MANIFEST).is_file() else read_signature(folder)
    if signature is None or signature["stage"] not in STAGES:
        return AlignmentSet.open(folder, verify=False), ""
    markers = {marker["name"]: marker for marker in _markers(folder)}
    parts = {
        name: marker for name, marker in markers.items() if name.startswith("part-") and marker.get("rows")
    }
    if not parts:
        raise UserError(f"no clip of {folder} is finished yet: look again when its first shard is")
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "unfinished",
        "filters": _filters(markers),
        "checksums": {
            f"{SHARDS}/{name}.parquet": str(marker.get("sha256")) for name, marker in parts.items()
        },
    }
    return AlignmentSet(folder, manifest), _progress(signature["config"], manifest["filters"])


def _markers(folder: Path) -> Iterator[dict[str, Any]]:
    """Markers of finished files that are still there; one that is being replaced is passed over."""
    for path in sorted((folder / DONE).glob("*.json")):
        try:
            marker = read_json(path)
        except (OSError, ValueError):
            continue
        name = path.stem
        if isinstance(marker, dict) and is_below(name):
            shard = folder / SHARDS / f"{name}.parquet"
            if not name.startswith("part-") or shard.is_file():
                yield {**marker, "name": name}


def _filters(markers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Decisions so far, as a manifest lists them."""
    found: dict[str, Counter[str]] = {part: Counter() for part in MEANINGS}
    for name, marker in markers.items():
        if name.startswith("filter-"):
            for part in ("instructions", "answers"):
                found[part].update(marker.get(part) or {})
        elif name.startswith("part-"):
            found["clips"][KEPT] += int(marker.get("rows") or 0)
            found["clips"].update(clip["reason"] for clip in marker.get("dropped") or ())
    return {
        part: {
            KEPT: reasons[KEPT],
            "dropped": {
                reason: {"n": n, "meaning": MEANINGS[part].get(reason, "")}
                for reason, n in sorted(reasons.items())
                if reason != KEPT
            },
        }
        for part, reasons in found.items()
        if reasons
    }


def _progress(config: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
    """How far an unfinished set is."""
    wanted = config.get("n_instructions")
    usable = (filters.get("answers") or {}).get(KEPT)
    if isinstance(wanted, int) and usable is not None:
        return (
            f"unfinished: {usable:,} of {wanted:,} instructions are there; of these, what is spoken is shown"
        )
    return "unfinished: what is finished so far is shown"
