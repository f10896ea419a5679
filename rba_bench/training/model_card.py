"""The model card of a training run, from its `rba_run.json`: base, data, method, recipe, cost and use."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rba_bench import cards
from rba_bench.assets import known_license
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD
from rba_bench.speechlm.model_card import (
    CITATION,
    card_metadata,
    loading_section,
    remove_untrained_card,
    renew_card,
)
from rba_bench.training.options.presets import PRESETS


def write_run_card(out: Path, base: Path | None = None) -> bool:
    """Write or renew the card of a finished run.

    Args:
        out: folder of the run.
        base: folder of the base model, whose card states the licence.

    Returns:
        Whether the card is up to date now; a user's own README stays as it is.
    """
    from huggingface_hub.utils import yaml_dump

    run = cards.without_paths(read_json(out / RUN_RECORD))
    bases = [run["base"].partition("@")[0]] if run["base_revision"] else []
    license_ = known_license(run["base"])
    if license_ is None and base is not None:
        with suppress(UserError, OSError):  # no card, or no readable one
            stated = cards.front_matter(base / cards.CARD).get("license")
            license_ = stated if isinstance(stated, str) else None
    method, recipe = run["method"], yaml_dump(run["recipe"], sort_keys=False)
    about = PRESETS[method].about if method in PRESETS else "see the recipe"
    text = "\n\n".join(
        [
            f"# {cards.table_cell(run['base'])} aligned by {method}",
            "A speech language model: speech and text in, text out. It was trained to answer speech as a text LLM, the "
            f"teacher, answers the text. Method `{method}`: {about}.",
            _base_section(run),
            _data_section(run),
            _training_section(run),
            "<details>\n<summary>The recipe with every default filled in</summary>\n\n"
            f"```yaml\n{recipe.replace('```', '')}```\n\n</details>",
            loading_section(out),
            LIMITS,
            CITATION,
        ]
    )
    remove_untrained_card(out)
    return renew_card(out, card_metadata(bases, license_, ["alignment", method]), text)


def _base_section(run: Mapping[str, Any]) -> str:
    rows = [
        ("base", run["base"]),
        ("revision", run["base_revision"] or "not from the Hub"),
        ("files, SHA-256", run["base_sha256"]),
    ]
    for number, earlier in enumerate(run.get("lineage") or (), 1):
        method, steps, seed, sha256 = (earlier.get(key) for key in ("method", "steps", "seed", "sha256"))
        rows.append((f"earlier run {number}", f"{method}, {steps} steps, seed {seed}, SHA-256 {sha256}"))
    return f"## Base\n\n{cards.markdown_table(('property', 'value'), rows)}"


def _data_section(run: Mapping[str, Any]) -> str:
    # one or a list of: a folder, or a mapping with the folder as `path`
    named = run["recipe"]["alignment_set"]
    sources = named if isinstance(named, list) else [named]
    rows = []
    for source, data in zip(sources, run["data"]["sets"], strict=True):
        name = Path(source["path"] if isinstance(source, Mapping) else source).name
        origin = data.get("origin") or {}
        kinds = ", ".join(data["kinds"] or origin.get("kinds") or ["all"])
        makers = (origin.get("teacher", "not recorded"), origin.get("speech", "not recorded"))
        counts = (f"{data['train_groups']:,}", f"{data['clips']:,}")
        rows.append((name, data["sha256"], *counts, kinds, *makers))
    columns = ("set", "SHA-256", "training instructions", "clips", "kinds", "teacher", "speech")
    counts_by_reason = (run.get("clips_left_out") or {}).items()
    left_out = ", ".join(f"{reason} {n}" for reason, n in counts_by_reason if n) or "none"
    return f"## Alignment set\n\n{cards.markdown_table(columns, rows)}\n\nClips left out: {left_out}."


def _training_section(run: Mapping[str, Any]) -> str:
    machine = run["hardware"]
    hours = (run["wall_time_s"] + run.get("encoding_s", 0.0)) / 3600
    rows = [
        ("method", run["method"]),
        ("optimiser steps", run["steps"]),
        ("seed", run["seed"]),
        ("hardware", f"{machine['processes']} x {machine['name']} ({machine['device']})"),
        ("hours", f"{hours:.2f}"),
        ("clips per second", run["samples_per_s"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("finished", run["created"]),
    ]
    if validations := run.get("validations"):
        first, last = validations["history"][0], validations["history"][-1]
        change = f"{first[1]:.4g} at step {first[0]}, {last[1]:.4g} at step {last[0]}"
        rows.append((f"held-out {validations['metric']}", change))
    return f"## Training\n\n{cards.markdown_table(('property', 'value'), rows)}"


LIMITS = """\
## Limits

The model was trained on speech like that of its alignment set, and not on other languages, accents, noises or lengths,
unless the base was. It answers as its teacher does, including the teacher's mistakes. A score below is valid only for
the protocol that it names. The licence follows from the base, the alignment set and the teacher's terms: state it in
the front matter if it is missing there."""
