"""What exactly was asked and how it was scored, as JSON and as one hash.

Two records may share a table only if their protocol hashes are equal. So everything that changes a score without being
the model or the data goes in (task YAML, prompt, decoding, what counts as the answer, metric signatures, judge), and
all else stays out: the seed, which is a replicate, and file paths.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rba_bench.evaluation.decoding import Settings
from rba_bench.evaluation.registry import TaskSpec
from rba_bench.evaluation.scoring import signatures
from rba_bench.files import sha256_json
from rba_bench.textlm import replies

TASK_KEYS = (
    "output_type", "test_split", "process_docs", "description", "doc_to_text", "doc_to_audio", "doc_to_target",
    "gen_prefix", "num_fewshot", "repeats", "filter_list", "process_results", "metric_list",
)  # fmt: skip


def protocol_spec(
    spec: TaskSpec,
    settings: Settings,
    docs: Iterable[Mapping[str, Any]],
    finish: Sequence[Mapping[str, Any]] = (),
    perturb: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The protocol as JSON values.

    Args:
        spec: The task.
        settings: Its decoding, as resolved from `generation_kwargs`.
        docs: The whole test set; its kind, target languages and prompts matter here.
        finish: How each finisher describes itself (judge, prompts, decoding).
        perturb: What is done to every clip: the chain in canonical form, and the version of what its names mean.
        baseline: Name and hash of the answers to beat, where the task has any.
    """
    kinds, langs, prompts = set(), set(), set()
    for doc in docs:
        kinds.add(doc["kind"])
        langs.add(doc["target_lang"])
        prompts.add(doc["prompt"])
    wording = sha256_json(sorted(prompts)) if prompts != {""} else ""
    asked_for = {"prompts": wording, "finish": list(finish), "perturb": perturb, "baseline": baseline}
    return {
        "task": spec.name,
        "version": spec.version,
        "yaml": {key: spec.config[key] for key in TASK_KEYS if key in spec.config},
        "decoding": {"name": settings.protocol, **asdict(settings.decoding), "until": list(settings.until)},
        "answer": replies.RULE,
        "metrics": signatures(kinds.pop(), sorted(langs)),
        "judge": (spec.config.get("metadata") or {}).get("judge"),
        **{name: value for name, value in asked_for.items() if value},
    }


def protocol_hash(spec: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a protocol."""
    return sha256_json(spec)
