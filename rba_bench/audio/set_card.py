"""The card of an alignment set: what made it, what is in it, and front matter with which `load_dataset(DIR)` reads it.

The card follows from manifest and parquet files alone, so that equal sets have equal cards. It is no part of the set's
identity.

Shards mix the rows of both splits. So a config is a filter on the column `split`: `default` holds the rows to train
on, `validation` those that are held out, `all` both.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rba_bench import cards
from rba_bench.assets import WEIGHTS
from rba_bench.audio.alignment_set import SEALED, AlignmentSet
from rba_bench.errors import UserError
from rba_bench.progress import say

if TYPE_CHECKING:
    from datasets import Features

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
LEAST = {"groups", "clips", "hours"}  # counts that every card has
LISTED = 32  # shards whose checksums stand in the card; the manifest has all
SYNTHESISED = {
    "teacher",
    "tts",
    "recipe",
    "sampling",
    "seeds",
    "versions",
    "filters",
}  # what `rba-bench synth` says
RENEWED = ("dataset_info", "configs", "size_categories")


def write_set_card(alignment: AlignmentSet) -> bool:
    """Write or renew the card of a finished set.

    Args:
        alignment: as `AlignmentSet.open` gives it; its files are read for their columns.

    Returns:
        Whether the folder has a card of ours now; a README without our marks, or one that cannot be edited, stays as
        it is.
    """
    whole = AlignmentSet(alignment.path, _with_counts(alignment))
    try:
        return cards.write_card(whole.path, _metadata(whole), {"set": _text(whole)}, renewed=RENEWED)
    except UserError as error:  # the set is finished all the same
        say(f"the card is not renewed: {error}")
        return False


def _with_counts(alignment: AlignmentSet) -> dict[str, Any]:
    """The manifest, with the least counts if it has none: another tool may have written it."""
    import pyarrow.parquet as pq

    if LEAST.issubset(alignment.manifest.get("counts") or {}):
        return alignment.manifest
    groups: set[str] = set()
    splits: Counter[str] = Counter()
    seconds = 0.0
    for shard in alignment.shards:
        table = pq.read_table(shard, columns=["group_id", "duration", "split"])
        groups.update(table["group_id"].to_pylist())
        splits.update(table["split"].to_pylist())
        seconds += sum(table["duration"].to_pylist())
    counts = {"groups": len(groups), "clips": splits.total(), "hours": round(seconds / 3600, 4)}
    return {**alignment.manifest, "counts": {**counts, "clips_by_split": dict(sorted(splits.items()))}}


def _metadata(alignment: AlignmentSet) -> dict[str, Any]:
    manifest = cards.without_paths(alignment.manifest)
    features, columns = _features(alignment)
    configs = list(_configs(alignment, columns))
    infos = [
        {"config_name": config["config_name"], "features": features._to_yaml_list()} for config in configs
    ]
    clips = manifest["counts"]["clips"]
    return {
        "pretty_name": _title(manifest),
        "license": "apache-2.0" if _teacher(manifest) in WEIGHTS else None,
        "language": cards.languages(*_languages(alignment)) or None,
        "task_categories": ["audio-text-to-text"],
        "tags": ["speech", "spoken-instructions", "rba-bench", *(["synthetic"] if "tts" in manifest else [])],
        "size_categories": [next((name for limit, name in SIZES if clips < limit), "n>10M")],
        "dataset_info": infos,
        "configs": configs,
    }


def _configs(alignment: AlignmentSet, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """What `load_dataset` can be asked for by name."""
    counts = alignment.manifest["counts"]
    held_out = (counts.get("clips_by_split") or counts.get("groups_by_split") or {}).get("validation", 0)
    below = "shards/" if all(name.startswith("shards/") for name in alignment.names) else "**/"
    for name, wanted in (("default", "train"), ("validation", "validation"), ("all", None)):
        if name == "validation" and not held_out:
            continue
        files = [{"split": wanted or "train", "path": f"{below}*.parquet"}]
        rows = {} if wanted is None else {"filters": [[["split", "==", wanted]]]}
        yield {"config_name": name, "data_files": files, **rows, **({"columns": columns} if columns else {})}


def _features(alignment: AlignmentSet) -> "tuple[Features, list[str] | None]":
    """What the files have in common, and its names where some file has more; audio stays encoded."""
    import pyarrow.parquet as pq
    from datasets import Audio, Features

    schemas = [pq.read_schema(shard) for shard in alignment.shards]
    shared = [name for name in schemas[0].names if all(name in schema.names for schema in schemas)]
    features = Features.from_arrow_schema(schemas[0])
    features = Features({name: features[name] for name in shared})
    features["audio"] = Audio(decode=False)
    same = all(schema.names == shared for schema in schemas)
    return features, None if same else shared


def _languages(alignment: AlignmentSet) -> Iterator[set[str]]:
    import pyarrow.parquet as pq

    for column in ("source_lang", "target_lang"):
        languages: set[str] = set()
        for shard in alignment.shards:
            languages.update(pq.read_table(shard, columns=[column])[column].unique().to_pylist())
        yield {name for name in languages if name}


def _teacher(manifest: Mapping[str, Any]) -> str:
    return str(manifest["teacher"]["name"]) if SYNTHESISED.issubset(manifest) else ""


def _title(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    return f"Alignment set of {counts['groups']:,} instructions in {counts['clips']:,} clips"


def _text(alignment: AlignmentSet) -> str:
    manifest = cards.without_paths(alignment.manifest)
    origin = _sealed(manifest) if SEALED in manifest else []
    if SYNTHESISED.issubset(manifest):
        origin = _synthesised(manifest)
    parts = [
        f"# {_title(manifest)}",
        INTRODUCTION,
        _contents(manifest),
        *origin,
        LOADING,
        _integrity(alignment),
        LIMITS,
    ]
    return "\n\n".join(parts)


INTRODUCTION = """\
Spoken instructions with the answers of a text LLM (the teacher), to align a speech language model: one row a clip.
Made for rba-bench (`rba-bench train --set alignment_set=DIR`); any tool that reads parquet reads it."""

LOADING = """\
## Loading

```python
from datasets import Audio, load_dataset

train = load_dataset("DIR", split="train")  # the rows to train on
held_out = load_dataset("DIR", "validation", split="validation")  # instructions that are held out, if there are any
both = load_dataset("DIR", "all", split="train")  # every row; the column `split` tells them apart
train = train.cast_column("audio", Audio())  # decodes clips, with torchcodec; without, they stay bytes
```

`group_id` joins the voices of one instruction. `prompt` is text that stands beside the audio, "" for spoken
instructions."""

LIMITS = """\
## Limits and licence

The answers are what a model wrote, not what a person checked. Text has the licence that the teacher's terms give its
output, and recordings have their own: state the licence in the front matter before you publish the set."""


def _contents(manifest: Mapping[str, Any]) -> str:
    counts = dict(manifest["counts"])
    rows = [("instructions", f"{counts.pop('groups'):,}"), ("clips", f"{counts.pop('clips'):,}")]
    rows.append(("hours of speech", f"{counts.pop('hours'):.2f}"))
    counts.pop("clips_by_voice", None)  # the voices stand below
    for name, tally in counts.items():
        if isinstance(tally, Mapping):
            shown = ", ".join(f"{key or 'none'} {number:,}" for key, number in tally.items())
            rows.append((name.replace("_", " "), shown if len(tally) <= LISTED else f"{len(tally)} kinds"))
        else:
            rows.append((name.replace("_", " "), f"{tally:,}"))
    return f"## Contents\n\n{cards.table(('what', 'how many'), rows)}"


def _synthesised(manifest: Mapping[str, Any]) -> list[str]:
    teacher, tts, recipe = manifest["teacher"], manifest["tts"], manifest["recipe"]
    sampling = manifest["sampling"]
    rows = [
        ("teacher", teacher["name"]),
        ("its weights, SHA-256", teacher.get("weights_sha256", "unknown")),
        ("pre-query template, SHA-256", teacher["template_sha256"]),
        *(
            (f"sampling, {part}", ", ".join(f"{k} {v}" for k, v in how.items()))
            for part, how in sampling.items()
        ),
        ("speech", f"{tts['engine']} {tts['version']}"),
        ("voices", f"{len(tts['voices'])}: {', '.join(tts['voices'])}" if tts["voices"] else "as recorded"),
        ("noise, signal to noise in dB", " to ".join(map(str, recipe.get("snr_db") or ["none"]))),
        ("seed", manifest["seeds"]["seed"]),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())),
    ]
    return [f"## How it was made\n\n{cards.table(('what', 'value'), rows)}", _filters(manifest["filters"])]


def _filters(filters: Mapping[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for part, counts in filters.items():
        rows.append((part, "kept", f"{counts['kept']:,} of {counts['n']:,}", ""))
        dropped = counts["dropped"].items()
        rows += [(part, name, f"{why['n']:,}", why["meaning"]) for name, why in dropped if why["n"]]
    return f"## Filters\n\n{cards.table(('of', 'reason', 'how many', 'meaning'), rows)}"


def _sealed(manifest: Mapping[str, Any]) -> list[str]:
    seal = manifest[SEALED]
    rows = [("checked by", f"rba-bench {seal['rba_bench']}")]
    if "clips_heard" in seal:
        rows.append(("clips decoded", f"{seal['clips_heard']:,} of {seal['clips']:,}, none bad"))
    text = "The parquet files were made by another tool; rba-bench checked them and left them as they are."
    return [f"## How it was made\n\n{text}\n\n{cards.table(('what', 'value'), rows)}"]


def _integrity(alignment: AlignmentSet) -> str:
    names = alignment.names
    rows = [(name, alignment.manifest["checksums"][name]) for name in names[:LISTED]]
    more = f"\n\n{len(names) - LISTED:,} more stand in `manifest.json`." if len(names) > LISTED else ""
    listed = cards.table(("file", "SHA-256"), rows)
    return f"## Checksums\n\nThe set's identity is `{alignment.sha256}`.\n\n{listed}{more}"
