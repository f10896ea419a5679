"""The card of a spoken benchmark: origin, voices, what was dropped and why, and front matter for `load_dataset(DIR)`.

The card follows from the manifest alone, so equal benchmarks have equal cards.
"""

import re
from collections.abc import Mapping
from typing import Any

from rba_bench import cards
from rba_bench.audio.set_card import SIZES
from rba_bench.audio.spoken_benchmark import (
    BASELINES,
    DATA,
    DROPPED,
    TASKS,
    SpokenBenchmark,
    benchmark_schema,
)
from rba_bench.errors import UserError
from rba_bench.progress import say

RENEWED = ("dataset_info", "configs", "size_categories")


def write_benchmark_card(benchmark: SpokenBenchmark) -> None:
    """Write or renew the card; a README of the user's own stays as it is."""
    manifest = benchmark.manifest
    sections = (
        f"# {_title(manifest)}",
        _introduction(manifest),
        _contents(manifest),
        _made(manifest),
        _dropped(manifest),
        LIMITS,
        f"## Checksums\n\nThe hash of all clips and texts is `{benchmark.sha256}`.\n\n"
        + cards.markdown_table(("file", "SHA-256"), sorted(manifest["checksums"].items())),
    )
    try:
        cards.write_card(benchmark.path, _metadata(manifest), {"set": "\n\n".join(sections)}, renewed=RENEWED)
    except UserError as error:  # the set itself is complete
        say(f"the card is not renewed: {error}")


def _metadata(manifest: Mapping[str, Any]) -> dict[str, Any]:
    from datasets import Audio, Features

    features = Features.from_arrow_schema(benchmark_schema())
    features["audio"] = Audio(decode=False)  # it stays encoded
    clips, language = manifest["counts"]["clips"], manifest["language"]
    return {
        "pretty_name": _title(manifest),
        "license": None,  # that of the texts, which the file does not tell
        "language": [language] if re.fullmatch("[a-z]{2,3}", language) else None,
        "task_categories": ["audio-text-to-text"],
        "tags": ["speech", "benchmark", "rba-bench", "synthetic"],
        "size_categories": [next((name for name, limit in SIZES.items() if clips < limit), "n>10M")],
        "dataset_info": [{"config_name": "default", "features": features._to_yaml_list()}],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "test", "path": f"{DATA}/test-*.parquet"}]}
        ],
    }


def _title(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    return f"{manifest['name']}, spoken: {counts['texts_kept']:,} texts in {counts['clips']:,} clips"


def _introduction(manifest: Mapping[str, Any]) -> str:
    task = TASKS[manifest["kind"]]
    baseline = f" --baseline DIR/{BASELINES}/NAME.json" if len(manifest["systems"]) > 1 else ""
    other = " Other answers to beat are in the file that `--baseline` names." if baseline else ""
    return (
        f"A text benchmark, spoken by `rba-bench speak`. One row is one clip; `instruction` is what is said.{other}\n\n"
        f"```sh\nrba-bench eval --task {task} --data-dir DIR --model MODEL{baseline}\n```"
    )


def _contents(manifest: Mapping[str, Any]) -> str:
    counts, file = manifest["counts"], manifest["file"]
    rows = [
        ("texts in the file", f"{file['items']:,}"),
        ("texts used", f"{counts['texts']:,}"),
        ("texts with a clip", f"{counts['texts_kept']:,}"),
        ("clips", f"{counts['clips']:,}"),
        ("hours of speech", f"{counts['hours']:.2f}"),
        ("voices of each text", manifest["speech"]["per_text"]),
        ("answers to beat", ", ".join(manifest["systems"]) or "none"),
    ]
    return f"## Contents\n\n{cards.markdown_table(('content', 'number'), rows)}"


def _made(manifest: Mapping[str, Any]) -> str:
    speech, file = manifest["speech"], manifest["file"]
    recognizer = manifest["round_trip"]["recognizer"]
    wer = manifest["counts"]["wer"]
    rows = [
        ("file", file["name"]),
        ("file, SHA-256", file["sha256"]),
        ("layout", file["layout"]),
        ("speech", ", ".join(f"{name} {version}" for name, version in speech["engines"].items())),
        ("seed", speech["seed"]),
        ("longest clip", f"{manifest['max_seconds']:g} s"),
        ("recogniser", recognizer["name"] if recognizer else "none"),
    ]
    if recognizer:
        rows += [
            ("recogniser's weights, SHA-256", recognizer["weights_sha256"]),
            ("highest word error rate of a clip", f"{manifest['round_trip']['max_wer']:g}"),
            ("word error rate of the clips", _percent(wer["kept"])),
            ("word error rate with the dropped clips", _percent(wer["all"])),
        ]
    rows.append(("made with", ", ".join(f"{name} {text}" for name, text in manifest["versions"].items())))
    voices = [
        (voice, f"{of['clips']:,}", f"{of['kept']:,}", _percent(of["wer"]))
        for voice, of in manifest["counts"]["voices"].items()
    ]
    table = cards.markdown_table(("voice", "clips", "kept", "word error rate of all"), voices)
    return f"## How it was made\n\n{cards.markdown_table(('property', 'value'), rows)}\n\n{table}"


def _dropped(manifest: Mapping[str, Any]) -> str:
    dropped, kinds = manifest["counts"]["dropped"], manifest["counts"]["unspeakable"]
    rows = [(name, f"{of['n']:,}", of["meaning"]) for name, of in dropped["reasons"].items() if of["n"]] or [
        ("none", "0", "")
    ]
    parts = ", ".join(f"{kind} {n:,}" for kind, n in kinds.items())
    detail = f"\n\nTexts that cannot be said: {parts}." if parts else ""
    share = f"{dropped['n']:,} clips ({_percent(dropped['share'])}) were dropped; `{DROPPED}` names them."
    table = cards.markdown_table(("reason", "clips", "meaning"), rows)
    return f"## What was left out\n\n{share}\n\n{table}{detail}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


LIMITS = """\
## Limits and licence

Scores on these clips compare with each other, not with published scores of the text, or of recordings: texts that
cannot be said, and clips that a recogniser did not understand, are missing. The filter favours systems with the
same recogniser. The licence of the texts is that of the file; state it in the front matter before you publish the
set."""
