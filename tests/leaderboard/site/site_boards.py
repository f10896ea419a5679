"""Boards whose pages are tested, made of invented records."""

import json
from pathlib import Path

from rba_bench.leaderboard.board_groups import group_runs
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.site.facts import Setting, settings_of
from tests.leaderboard.attested import attest, mark
from tests.leaderboard.board_records import qa_samples, translation_samples, write_run

HOSTILE = '<img src=x onerror="document.title=1">\u202e</script><script>alert(1)</script>'


def settings(
    root: Path, skills: dict[str, float], tasks: int = 1, baseline: str = "sft", n: int = 120
) -> list[Setting]:
    """Models of these skills on some tasks; equal skills give nearly equal answers."""
    for task in range(tasks):
        for seed, (model, skill) in enumerate(skills.items()):
            name = f"micro_task{task}"
            write_run(root, model, qa_samples(skill, n, seed), name, protocol_hash=f"{task:064x}")
    return load_settings(root, baseline)


def load_settings(root: Path, baseline: str = "sft") -> list[Setting]:
    runs = [load_checked_run(file.parent) for file in sorted(root.rglob("run.json"))]
    groups = group_runs(runs, baseline)
    return settings_of({f"section{place}": group for place, group in enumerate(groups)})


def write_board_records(root: Path) -> Path:
    """A task without and with noise, and a translation; a hostile name; records of every provenance.

    `rba` was reproduced, `rba-again` is a copy of it under another name, `base` has a score of each kind.
    """
    skills = {
        "sft": 0.5,
        "rba": 0.8,
        "rba-again": 0.8,
        "base": 0.45,
        HOSTILE: 0.3,
        "text": 1.2,
        "cascade": 0.4,
    }
    for seed, (model, skill) in enumerate(skills.items()):
        changes = model_changes(model)
        seed = 1 if model == "rba-again" else seed  # the same answers as rba
        write_run(
            root, model, qa_samples(skill, 60, seed), "micro_triviaqa", protocol_hash="ab" * 32, **changes
        )
        spec = {"task": "micro_triviaqa", "perturb": {"text": "noise=10dB"}}
        noisy = qa_samples(skill - 0.2, 60, seed)
        write_run(
            root, model, noisy, "micro_triviaqa", protocol_hash="ac" * 32, protocol_spec=spec, **changes
        )
        errors = translation_samples(max(0.02, 0.9 - skill), 40, seed)
        write_run(root, model, errors, "micro_covost2", "sampled", "ad" * 32, **changes)
    for folder in sorted((root / "rba").iterdir()):
        attest(folder, by="The maintainers")
    for folder in (root / "base").iterdir():
        record = json.loads((folder / "run.json").read_text())
        if record["task"] == "micro_covost2":
            attest(folder, by=HOSTILE)
        elif "perturb" in record["protocol_spec"]:
            mark(folder)
    return root


def model_changes(name: str) -> dict[str, object]:
    """What the record says of a model beside its name."""
    weights = "44" * 32 if name.startswith("rba") else f"{len(name):064x}"
    training = None
    if name in ("sft", "rba"):
        history = [[0, 3.0], [50, 2.0 - len(name) / 10], [100, 1.5]]
        training = {"method": name, "validations": {"metric": "loss", "history": history}}
    model = {"name": name, "spec": name, "weights_sha256": weights, "training": training}
    speed = 20.0 + 10 * len(name)
    timing = {"generation_s": 90 / speed, "audio_s": 90.0, "rtfx": speed, "samples_per_s": 60.0}
    return {"model": model, "timing": timing, "created": f"2026-11-{10 + len(name) % 15}T10:00:00+00:00"}
