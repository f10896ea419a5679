"""The card of a training run's checkpoint, from its `rba_run.json`: base, data, method, recipe, cost, how to use it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rba_bench import cards
from rba_bench.assets import WEIGHTS
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD
from rba_bench.speechlm import model_card as common
from rba_bench.training.options.presets import PRESETS


def write_run_card(out: Path, base: Path | None = None) -> bool:
    """Write or renew the card of a finished run.

    Args:
        out: its folder.
        base: folder of the base model, whose card states the licence.

    Returns:
        Whether the folder has a card of ours now; a README without our marks stays as it is.
    """
    run = cards.without_paths(read_json(out / RUN_RECORD))
    bases = [run["base"].partition("@")[0]] if run["base_revision"] else []
    license_ = "apache-2.0" if run["base"] in WEIGHTS else (common.licence_of(base) if base else None)
    front = common.metadata(bases, license_, ["alignment", run["method"]])
    common.drop_bare_card(out)
    return common.renew_card(out, front, _text(run, out))


def _text(run: Mapping[str, Any], out: Path) -> str:
    method, base = run["method"], run["base"]
    about = PRESETS[method].about if method in PRESETS else "see the recipe"
    return "\n\n".join(
        [
            f"# {cards.cell(base)} aligned by {method}",
            "A speech language model: speech and text in, text out. It was trained to answer speech as a text LLM, the "
            f"teacher, answers the text. Method `{method}`: {about}.",
            _base(run),
            _data(run),
            _training(run),
            _recipe(run),
            common.loading(out),
            LIMITS,
            common.CITATION,
        ]
    )


def _base(run: Mapping[str, Any]) -> str:
    rows = [
        ("base", run["base"]),
        ("revision", run["base_revision"] or "not from the Hub"),
        ("files, SHA-256", run["base_sha256"]),
    ]
    for number, one in enumerate(run.get("lineage") or (), 1):
        made = f"{one.get('method')}, {one.get('steps')} steps, seed {one.get('seed')}, SHA-256 {one.get('sha256')}"
        rows.append((f"run before, {number}", made))
    return f"## Base\n\n{cards.table(('what', 'value'), rows)}"


def _data(run: Mapping[str, Any]) -> str:
    rows = []
    for name, one in zip(_names(run["recipe"]["alignment_set"]), run["data"]["sets"], strict=True):
        origin = one.get("origin") or {}
        kinds = ", ".join(one["kinds"] or origin.get("kinds") or ["all"])
        made = (origin.get("teacher", "not recorded"), origin.get("speech", "not recorded"))
        rows.append((name, one["sha256"], f"{one['train_groups']:,}", f"{one['clips']:,}", kinds, *made))
    columns = ("set", "SHA-256", "instructions trained on", "clips", "kinds", "teacher", "speech")
    left_out = (
        ", ".join(f"{name} {n}" for name, n in (run.get("clips_left_out") or {}).items() if n) or "none"
    )
    return f"## Alignment set\n\n{cards.table(columns, rows)}\n\nClips left out: {left_out}."


def _names(chosen: Any) -> list[str]:
    """What the sets of a recipe are called: the recipe has one or several, each a folder or a folder with options."""
    listed = chosen if isinstance(chosen, list) else [chosen]
    return [Path(one["path"] if isinstance(one, Mapping) else one).name for one in listed]


def _training(run: Mapping[str, Any]) -> str:
    machine = run["hardware"]
    hours = (run["wall_time_s"] + run.get("encoding_s", 0.0)) / 3600
    rows = [
        ("method", run["method"]),
        ("optimiser steps", run["steps"]),
        ("seed", run["seed"]),
        ("hardware", f"{machine['processes']} x {machine['name']} ({machine['device']})"),
        ("hours", f"{hours:.2f}"),
        ("clips a second", run["samples_per_s"]),
        *_validation(run.get("validations")),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("finished", run["created"]),
    ]
    return f"## Training\n\n{cards.table(('what', 'value'), rows)}"


def _validation(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found:
        first, last = found["history"][0], found["history"][-1]
        yield (
            f"held-out {found['metric']}",
            f"{first[1]:.4g} at step {first[0]}, {last[1]:.4g} at step {last[0]}",
        )


def _recipe(run: Mapping[str, Any]) -> str:
    from huggingface_hub.utils import yaml_dump

    recipe = yaml_dump(run["recipe"], sort_keys=False)
    summary = "<details>\n<summary>The recipe with every default filled in</summary>"
    return f"{summary}\n\n```yaml\n{recipe.replace('```', '')}```\n\n</details>"


LIMITS = """\
## Limits

The model knows speech of the kind in its alignment set: other languages, accents, noises and lengths were not trained
on unless the base knew them. It answers as its teacher does, with the teacher's mistakes. Scores, where there are some
below, hold for the protocol they name and for no other. The licence follows from the base, the alignment set and the
teacher's terms: state it in the front matter if it is missing there."""
