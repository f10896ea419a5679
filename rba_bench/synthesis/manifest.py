"""The manifest: where an alignment set comes from and what is in it, written last."""

import importlib.metadata
import platform
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rba_bench
from rba_bench.audio.alignment_set import MANIFEST, SCHEMA_VERSION
from rba_bench.audio.voices import BANKS
from rba_bench.files import read_jsonl, sha256_bytes, sha256_file, write_json
from rba_bench.synthesis.collect import ANSWERS, INSTRUCTIONS
from rba_bench.synthesis.filters import ANSWER_REASONS, INSTRUCTION_REASONS, KEPT
from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.synthesis.shards import Maker

_COUNTED = ("kind", "topic", "difficulty", "split", "voice", "source_lang", "target_lang", "noise_colour")
_PACKAGES = ("espeakng-loader", "numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers")


def write_manifest(
    recipe: SynthesisRecipe,
    teacher: dict[str, Any],
    template: str,
    maker: Maker,
    checksums: dict[str, str],
    out: Path,
) -> dict[str, Any]:
    """Describe the finished shards of `out`; `teacher` is its identity, `template` its pre-query template."""
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.resolved(),
        "teacher": {
            **teacher,
            "pre_query_template": template,
            "template_sha256": sha256_bytes(template.encode()),
        },
        "sampling": _sampling(recipe),
        "seeds": {
            "seed": recipe.seed,
            "rule": "stable_seed(purpose, seed, candidate index or group id, voice)",
        },
        "filters": {
            "instructions": _decisions(out / INSTRUCTIONS, INSTRUCTION_REASONS),
            "answers": _decisions(out / ANSWERS, ANSWER_REASONS),
        },
        "tts": {
            "engine": maker.name,
            "version": maker.version,
            "voices": [] if recipe.source else [voice.name for voice in BANKS[recipe.voice_bank]],
        },
        "asr": None,
        "counts": _counts(out, checksums),
        "versions": _versions(),
        "logs": {name: sha256_file(out / name) for name in (INSTRUCTIONS, ANSWERS) if (out / name).is_file()},
        "checksums": checksums,
    }
    if recipe.source is not None:
        kept = manifest["filters"]["answers"][KEPT]
        manifest["counts"]["left_out_speech"] = kept - manifest["counts"]["groups"]  # too long, or no sound
    write_json(out / MANIFEST, manifest)
    return manifest


def _sampling(recipe: SynthesisRecipe) -> dict[str, Any]:
    names = ("temperature", "top_p", "max_new_tokens")
    return {
        part: {name: getattr(recipe, f"{part}_{name}") for name in names}
        for part in ("instruction", "response")
    }


def _decisions(log: Path, meanings: dict[str, str]) -> dict[str, Any]:
    """How many were kept and dropped, by reason; every reason is listed, with 0 too."""
    reasons = Counter(record["reason"] for record in read_jsonl(log))
    dropped = {reason: {"n": reasons[reason], "meaning": meaning} for reason, meaning in meanings.items()}
    return {"n": reasons.total(), KEPT: reasons[KEPT], "dropped": dropped}


def _counts(out: Path, checksums: dict[str, str]) -> dict[str, Any]:
    """Groups, clips, hours and clips by label, counted on what is on disk."""
    import pyarrow.parquet as pq

    groups: set[str] = set()
    seconds, clips = 0.0, 0
    by: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for name in checksums:
        table = pq.read_table(out / name, columns=["group_id", "duration", *_COUNTED])
        groups.update(table["group_id"].to_pylist())
        seconds += sum(table["duration"].to_pylist())
        clips += table.num_rows
        for column in _COUNTED:
            by[column].update(str(value) for value in table[column].to_pylist())
    tallies = {f"clips_by_{column}": dict(sorted(counter.items())) for column, counter in by.items()}
    return {"groups": len(groups), "clips": clips, "hours": round(seconds / 3600, 4), **tallies}


def _versions() -> dict[str, str]:
    versions = {"rba_bench": rba_bench.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
