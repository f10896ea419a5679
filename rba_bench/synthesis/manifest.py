"""The manifest of a synthesised alignment set: where it comes from and what is in it. It is written last."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rba_bench
from rba_bench.audio.alignment_set import MANIFEST, schema_version
from rba_bench.cards import without_paths
from rba_bench.files import sha256_bytes, write_json
from rba_bench.machine import package_version
from rba_bench.synthesis.filtering import FilteredShard
from rba_bench.synthesis.filters import ANSWER_REASONS, INSTRUCTION_REASONS, KEPT
from rba_bench.synthesis.quality import QUALITY_REASONS
from rba_bench.synthesis.shards import MAKER
from rba_bench.synthesis.speaking import RowMaker
from rba_bench.synthesis.speech import CLIP_REASONS
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.texts.decontamination import BenchmarkIndex
from rba_bench.synthesis.texts.follow_ups import REASONS as FOLLOW_UP_REASONS
from rba_bench.synthesis.texts.text_rules import REASONS as TEXT_REASONS

MORE_REASONS = {**TEXT_REASONS, **FOLLOW_UP_REASONS, **QUALITY_REASONS}  # which only some sets have
_MEANINGS = {
    "instruction": {**MORE_REASONS, **INSTRUCTION_REASONS},
    "answer": {**MORE_REASONS, **ANSWER_REASONS},
}
_COUNTED = ("kind", "topic", "difficulty", "split", "voice", "source_lang", "target_lang", "noise_colour")
_PACKAGES = ("espeakng-loader", "numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers")


@dataclass(frozen=True)
class MoreFacts:
    """What not every set has.

    Attributes:
        dropped_clips: Clips that were left out, by reason.
        benchmarks: Test sets that nothing may repeat.
        models: Models that labelled or scored, by the manifest's key.
        source: Which data set the recordings come from.
        earlier_seconds: Duration of the clips of earlier turns of dialogues.
    """

    dropped_clips: Mapping[str, int]
    benchmarks: BenchmarkIndex | None = None
    models: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] | None = None
    earlier_seconds: float = 0.0


def write_manifest(
    recipe: SynthesisRecipe,
    teacher: Mapping[str, Any],
    template: str,
    maker: RowMaker,
    texts: Iterable[FilteredShard],
    checksums: dict[str, str],
    out: Path,
    facts: MoreFacts,
) -> dict[str, Any]:
    """Describe a finished set.

    Args:
        recipe: What it was made by.
        teacher: Identity of the teacher.
        template: Its pre-query template, "" where none was used.
        maker: Of the clips.
        texts: What became of the candidates.
        checksums: Of the shards of clips, by name relative to `out`.
        out: Folder of the set.
        facts: Of what not every set has.
    """
    versions = {"rba_bench": rba_bench.__version__, "maker": MAKER, "python": platform.python_version()}
    versions |= {package: package_version(package) or "absent" for package in _PACKAGES}
    templates = {"pre_query_template": template, "template_sha256": sha256_bytes(template.encode())}
    shards, counts = list(texts), count_clips(out, checksums)
    manifest: dict[str, Any] = {
        "schema_version": schema_version(recipe.turns > 1),
        "status": "complete",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.resolved(),
        "teacher": {**teacher, **templates},
        "sampling": {
            part: {
                name: getattr(recipe, f"{part}_{name}") for name in ("temperature", "top_p", "max_new_tokens")
            }
            for part in ("instruction", "response")
        },
        "seeds": {
            "seed": recipe.seed,
            "rule": "stable_seed(purpose, seed, candidate index or group id, voice)",
        },
        "filters": {
            "instructions": _count_decisions(shards, "instructions", INSTRUCTION_REASONS),
            "answers": _count_decisions(shards, "answers", ANSWER_REASONS),
            **_count_turns(shards, recipe.turns),
            **_count_clips_left_out(facts, counts["clips"]),
        },
        "tts": {"engine": maker.name, "version": maker.version, "voices": maker.voice_names()},
        "asr": maker.round_trip_facts(),
        **({} if facts.source is None else {"source": dict(facts.source)}),
        **without_paths(dict(facts.models)),
        **({} if facts.benchmarks is None else {"test_sets": _test_sets(facts.benchmarks)}),
        "counts": counts,
        "versions": versions,
        "checksums": checksums,
    }
    if recipe.turns > 1:
        counts |= {
            "turns": counts["clips"] * recipe.turns,
            "hours_of_earlier_turns": round(facts.earlier_seconds / 3600, 4),
        }
    if recipe.source is not None:
        kept = manifest["filters"]["answers"][KEPT]
        manifest["counts"]["left_out_speech"] = kept - manifest["counts"]["groups"]  # too long, or no sound
    write_json(out / MANIFEST, manifest)
    return manifest


def _count_decisions(
    shards: Iterable[FilteredShard], part: str, meanings: Mapping[str, str]
) -> dict[str, Any]:
    """How many were kept and dropped, by reason; every reason is listed, with 0 too."""
    reasons: Counter[str] = Counter()
    for shard in shards:
        reasons.update(getattr(shard, part))
    found = {reason: MORE_REASONS[reason] for reason in reasons if reason in MORE_REASONS}
    dropped = {
        reason: {"n": reasons[reason], "meaning": meaning}
        for reason, meaning in {**found, **meanings}.items()
    }
    return {"n": reasons.total(), KEPT: reasons[KEPT], "dropped": dropped}


def _count_turns(shards: Iterable[FilteredShard], turns: int) -> dict[str, Any]:
    """Of each turn of dialogues: how many reached it, how many went on, and what ended the others."""
    if turns == 1:
        return {}
    ended: Counter[tuple[str, ...]] = Counter()
    left, counts = 0, dict[str, Any]()
    for shard in shards:
        ended.update(shard.turns)
        left += shard.instructions.total()
    for turn in range(1, turns + 1):
        found = {place[1:]: n for place, n in sorted(ended.items()) if place[0] == str(turn)}
        dropped = {
            f"{part} {reason}": {"n": n, "meaning": _MEANINGS[part][reason]}
            for (part, reason), n in found.items()
        }
        going_on = left - sum(found.values())
        counts[f"turn {turn}"] = {"n": left, KEPT: going_on, "dropped": dropped}
        left = going_on
    return counts


def _test_sets(index: BenchmarkIndex) -> dict[str, Any]:
    """Number of texts of each test set that nothing may repeat, and why others could not be read."""
    return {"checked": index.checked, "not_checked": index.not_checked, "sha256": index.content_sha256}


def _count_clips_left_out(facts: MoreFacts, kept: int) -> dict[str, Any]:
    """What became of the clips that were made, where some were left out."""
    if not facts.dropped_clips:
        return {}
    dropped = {
        reason: {"n": n, "meaning": CLIP_REASONS[reason]} for reason, n in sorted(facts.dropped_clips.items())
    }
    return {"clips": {"n": kept + sum(facts.dropped_clips.values()), KEPT: kept, "dropped": dropped}}


def count_clips(out: Path, checksums: dict[str, str]) -> dict[str, Any]:
    """Groups, clips, hours and clips by label, counted on what is on disk."""
    import pyarrow.parquet as pq

    groups, clips, seconds = 0, 0, 0.0
    by: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for name in checksums:
        table = pq.read_table(out / name, columns=["group_id", "duration", *_COUNTED])
        groups += len(set(table["group_id"].to_pylist()))  # a group never lies in two shards
        seconds += sum(table["duration"].to_pylist())
        clips += table.num_rows
        for column in _COUNTED:
            by[column].update(str(value) for value in table[column].to_pylist())
    tallies = {f"clips_by_{column}": dict(sorted(counter.items())) for column, counter in by.items()}
    return {"groups": groups, "clips": clips, "hours": round(seconds / 3600, 4), **tallies}
