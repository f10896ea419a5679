"""The card of an alignment set: its contents and origin, and front matter with which `load_dataset(DIR)` reads it.

The card is computed from the manifest and the parquet files alone, so equal sets have equal cards; figures need
matplotlib (`card_media`). The hash of the set does not include the card.

Shards mix rows of both splits. Each config is therefore a filter on the column `split`: `default` has the rows for
training, `validation` the held-out rows, `all` both.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rba_bench import cards
from rba_bench.assets import WEIGHTS
from rba_bench.audio.alignment_set import SEALED, AlignmentSet
from rba_bench.audio.card_media import write_media
from rba_bench.audio.set_statistics import SetStatistics, read_statistics
from rba_bench.errors import UserError
from rba_bench.progress import say

SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6, "1M<n<10M": 10**7}
REQUIRED_COUNTS = {"groups", "clips", "hours"}
LONGEST_LIST = 32  # entries of a list in the card, such as checksums; the manifest has all of them
# What `rba-bench synth` writes
SYNTHESIS_KEYS = {"teacher", "tts", "recipe", "sampling", "seeds", "versions", "filters"}
RENEWED = ("dataset_info", "configs", "size_categories")


def write_set_card(alignment: AlignmentSet) -> bool:
    """Write or renew the card of a finished set.

    Args:
        alignment: as `AlignmentSet.open` gives it; its files are read for their columns, and for ten clips.

    Returns:
        Whether the card is up to date now; a user's own README, or one that cannot be edited, stays as it is.
    """
    if not cards.may_renew(alignment.path):
        return False
    statistics = read_statistics(alignment)
    if not REQUIRED_COUNTS.issubset(alignment.manifest.get("counts") or {}):
        alignment = AlignmentSet(alignment.path, _counted_manifest(alignment, statistics))
    manifest = cards.without_paths(alignment.manifest)
    origin = [_synthesis(manifest)] if SYNTHESIS_KEYS.issubset(manifest) else []
    if not origin and SEALED in manifest:
        origin = [_sealing(manifest[SEALED], manifest.get("imported"))]
    rows = [(name, alignment.manifest["checksums"][name]) for name in alignment.names]
    checksums = f"The hash of the set is `{alignment.sha256}`.\n\n"
    checksums += cards.markdown_table(("file", "SHA-256"), rows[:LONGEST_LIST])
    if len(rows) > LONGEST_LIST:
        checksums += f"\n\n{len(rows) - LONGEST_LIST:,} more are in `manifest.json`."
    media = write_media(alignment, statistics)
    sections = [f"# {_title(manifest)}", INTRODUCTION, _contents(manifest), *media, *origin, LOADING]
    if alignment.has_turns:
        sections.append(DIALOGUES)
    text = "\n\n".join([*sections, f"## Checksums\n\n{checksums}", LIMITS])
    metadata = _metadata(alignment, manifest, statistics)
    try:
        return cards.write_card(alignment.path, metadata, {"set": text}, renewed=RENEWED)
    except UserError as error:  # the set itself is complete
        say(f"the card is not renewed: {error}")
        return False


def _counted_manifest(alignment: AlignmentSet, statistics: SetStatistics) -> dict[str, Any]:
    """The manifest of another tool, with counts taken from the shards."""
    counts = {"groups": statistics.groups, "clips": statistics.clips, "hours": round(statistics.hours, 4)}
    splits = dict(sorted(statistics.labels["split"].items()))
    return {**alignment.manifest, "counts": {**counts, "clips_by_split": splits}}


def _metadata(
    alignment: AlignmentSet, manifest: Mapping[str, Any], statistics: SetStatistics
) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from datasets import Audio, Features

    languages = {name for column in ("source_lang", "target_lang") for name in statistics.labels[column]}
    schemas = [pq.read_schema(shard) for shard in alignment.shards]
    shared = [name for name in schemas[0].names if all(name in schema.names for schema in schemas)]
    stated = Features.from_arrow_schema(schemas[0])
    features = Features({name: stated[name] for name in shared})
    features["audio"] = Audio(decode=False)  # it stays encoded
    same = all(schema.names == shared for schema in schemas)
    configs = list(_configs(alignment, None if same else shared))
    clips = manifest["counts"]["clips"]
    shipped_teacher = SYNTHESIS_KEYS.issubset(manifest) and str(manifest["teacher"]["name"]) in WEIGHTS
    return {
        "pretty_name": _title(manifest),
        "license": "apache-2.0" if shipped_teacher else None,
        "language": sorted(name for name in languages if re.fullmatch("[a-z]{2,3}", name)) or None,
        "task_categories": ["audio-text-to-text"],
        "tags": ["speech", "spoken-instructions", "rba-bench", *(["synthetic"] if "tts" in manifest else [])],
        "size_categories": [next((name for name, limit in SIZES.items() if clips < limit), "n>10M")],
        "dataset_info": [
            {"config_name": config["config_name"], "features": features._to_yaml_list()} for config in configs
        ],
        "configs": configs,
    }


def _configs(alignment: AlignmentSet, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """The configs that `load_dataset` accepts by name; `columns` are the only ones to read, None for all."""
    counts = alignment.manifest["counts"]
    held_out = (counts.get("clips_by_split") or counts.get("groups_by_split") or {}).get("validation", 0)
    below = "shards/" if all(name.startswith("shards/") for name in alignment.names) else "**/"
    for name, split in (("default", "train"), ("validation", "validation"), ("all", None)):
        if name == "validation" and not held_out:
            continue
        files = [{"split": split or "train", "path": f"{below}*.parquet"}]
        rows = {} if split is None else {"filters": [[["split", "==", split]]]}
        yield {"config_name": name, "data_files": files, **rows, **({"columns": columns} if columns else {})}


def _title(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    return f"Alignment set of {counts['groups']:,} instructions in {counts['clips']:,} clips"


INTRODUCTION = """\
Spoken instructions with the answers of a text LLM (the teacher), to align a speech language model: one row per clip.
Made for rba-bench (`rba-bench train --set alignment_set=DIR`), and readable by any tool that reads parquet."""

LOADING = """\
## Loading

```python
from datasets import Audio, load_dataset

train = load_dataset("DIR", split="train")  # the rows to train on
held_out = load_dataset("DIR", "validation", split="validation")  # held-out instructions, if there are any
both = load_dataset("DIR", "all", split="train")  # all rows; the column `split` names the split of each
train = train.cast_column("audio", Audio())  # decodes the clips (needs torchcodec); else bytes
```

Rows of one instruction in several voices have the same `group_id`. `prompt` is text that the model reads beside the
audio; it is empty for spoken instructions."""

DIALOGUES = """\
Rows with `turns` end a dialogue: `turns` holds the earlier exchanges in order (what the user said, what the teacher
answered, and the clip of the user's words where there is one); `instruction`, `response` and `audio` are those of the
last turn."""

LIMITS = """\
## Limits and licence

The answers were written by a model and were not checked by people. The licence of the text follows from the teacher's
terms for its output; recordings have licences of their own. State the licence in the front matter before you publish
the set."""


def _contents(manifest: Mapping[str, Any]) -> str:
    counts = dict(manifest["counts"])
    rows = [("instructions", f"{counts.pop('groups'):,}"), ("clips", f"{counts.pop('clips'):,}")]
    rows.append(("hours of speech", f"{counts.pop('hours'):.2f}"))
    counts.pop("clips_by_voice", None)  # the voices are listed below
    for name, tally in counts.items():
        text = f"{len(tally)} kinds" if isinstance(tally, Mapping) else f"{tally:,}"
        if isinstance(tally, Mapping) and len(tally) <= LONGEST_LIST:
            text = ", ".join(f"{key or 'none'} {number:,}" for key, number in tally.items())
        rows.append((name.replace("_", " "), text))
    return f"## Contents\n\n{cards.markdown_table(('content', 'number'), rows)}"


def _synthesis(manifest: Mapping[str, Any]) -> str:
    teacher, tts, recipe = manifest["teacher"], manifest["tts"], manifest["recipe"]
    rows = [
        ("teacher", teacher["name"]),
        ("teacher's weights, SHA-256", teacher.get("weights_sha256", "unknown")),
        ("pre-query template, SHA-256", teacher["template_sha256"]),
        *(
            (f"sampling, {part}", ", ".join(f"{name} {value}" for name, value in options.items()))
            for part, options in manifest["sampling"].items()
        ),
        ("speech", f"{tts['engine']} {tts['version']}"),
        ("voices", f"{len(tts['voices'])}: {', '.join(tts['voices'])}" if tts["voices"] else "as recorded"),
        ("signal-to-noise ratio in dB", " to ".join(map(str, recipe.get("snr_db") or ["none"]))),
        ("seed", manifest["seeds"]["seed"]),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())),
    ]
    kept: list[tuple[object, ...]] = []
    for part, counts in manifest["filters"].items():
        kept.append((part, "kept", f"{counts['kept']:,} of {counts['n']:,}", ""))
        for name, reason in counts["dropped"].items():
            if reason["n"]:
                kept.append((part, name, f"{reason['n']:,}", reason["meaning"]))
    made = cards.markdown_table(("property", "value"), rows)
    filtered = cards.markdown_table(("filtered", "reason", "number", "meaning"), kept)
    return f"## How it was made\n\n{made}\n\n## Filters\n\n{filtered}"


def _sealing(seal: Mapping[str, Any], imported: Mapping[str, Any] | None) -> str:
    rows = [("checked by", f"rba-bench {seal['rba_bench']}")]
    if "clips_heard" in seal:
        rows.append(("clips decoded", f"{seal['clips_heard']:,} of {seal['clips']:,}, none bad"))
    text = "The parquet files were made by another tool; rba-bench checked them and left them as they are."
    if imported is not None:
        text = (
            "A published set, imported by `rba-bench synth import`: clips as 16 kHz mono FLAC, words tidied, entries "
            "without a usable clip or text left out. Its licence is that of the published set."
        )
        rows.append(("layout", imported["layout"]))
        rows += [
            (f"left out, {reason}", f"{found['n']:,}: {found['meaning']}")
            for reason, found in imported["dropped"].items()
            if found["n"]
        ]
    return f"## How it was made\n\n{text}\n\n{cards.markdown_table(('property', 'value'), rows)}"
