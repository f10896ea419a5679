"""Write down what every shipped task asks and how it is scored: `python dev/freeze_protocols.py`.

`tests/evaluation/test_frozen_protocols.py` compares. A protocol that changes without a new `metadata.version` fails
there; after raising the version, run this.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FILE = ROOT / "tests" / "evaluation" / "frozen_protocols.json"


def frozen() -> dict[str, Any]:
    """Version and hash of every shipped task: its YAML, data options, decoding, judges, and wording in the code."""
    from rba_bench.evaluation import task_registry
    from rba_bench.evaluation.plan import TASK_KEYS
    from rba_bench.evaluation.scorers import judge_prompts
    from rba_bench.evaluation.sources import language_pairs
    from rba_bench.files import sha256_json

    spoken = {name: getattr(language_pairs, name) for name in ("TRANSLATE", "TRANSCRIBE")}
    judged = {
        name: getattr(judge_prompts, name)
        for name in ("VERSION", "FIRST", "SECOND", "COMPARE_SYSTEM", "COMPARE", "RATE", "VERIFY")
    }
    found = {}
    for spec in task_registry.list_tasks():
        metadata = spec.config.get("metadata") or {}
        keys = (*TASK_KEYS, "dataset_kwargs", "generation_kwargs")
        facts = {key: spec.config[key] for key in keys if key in spec.config}
        facts["metadata"] = {key: metadata[key] for key in ("judge", "finish") if key in metadata}
        facts["wording"] = spoken if metadata.get("track") == "full" else {}
        facts["judges"] = judged if metadata.get("finish") else {}
        found[spec.name] = {"version": spec.version, "sha256": sha256_json(facts)}
    return dict(sorted(found.items()))


if __name__ == "__main__":
    from rba_bench.files import write_json

    write_json(FILE, frozen())
