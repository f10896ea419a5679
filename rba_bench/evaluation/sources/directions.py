"""Names of the translation and transcription tasks, and the YAML that each name stands for. Imports nothing heavy.

    covost2_en_de, covost2_zh-CN_en     CoVoST 2, codes as the data set writes them
    fleurs_en_de, fleurs_sw_hi          FLEURS joined on `id`: any two of its 102 languages
    mustc_en_de                         MuST-C
    asr_fleurs_de, asr_covost2_de       transcription of the same clips

The shipped YAMLs are `yaml_text(name)` for every name in `SHIPPED`, and `group_text(name)` for every name in `GROUPS`.
Other pairs of FLEURS need no file of their own: `task_file` writes one when a run asks for it.
"""

import re
from pathlib import Path

from rba_bench.evaluation.sources.languages import FLEURS
from rba_bench.files import write_atomic

COVOST2_FROM_ENGLISH = (
    "ar", "ca", "cy", "de", "et", "fa", "id", "ja", "lv", "mn", "sl", "sv-SE", "ta", "tr", "zh-CN",
)  # fmt: skip
COVOST2_TO_ENGLISH = (
    "ar", "ca", "cy", "de", "es", "et", "fa", "fr", "id", "it", "ja", "lv", "mn", "nl", "pt", "ru", "sl",
    "sv-SE", "ta", "tr", "zh-CN",
)  # fmt: skip
# The languages of Tables 6 and 7 of the paper (arXiv 2509.03526 v1).
FLEURS_TO_ENGLISH = (
    "ar", "cy", "de", "el", "es", "fa", "fr", "hi", "it", "ja", "pt", "ta", "uk", "vi", "zh",
)  # fmt: skip
FLEURS_FROM_ENGLISH = ("de", "zh", "es", "fr", "it")
MUSTC_TARGETS = (
    "ar", "cs", "de", "es", "fa", "fr", "it", "ja", "nl", "pt", "ro", "ru", "tr", "vi", "zh",
)  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {
    "covost2_en_x": tuple(f"covost2_en_{code}" for code in COVOST2_FROM_ENGLISH),
    "covost2_x_en": tuple(f"covost2_{code}_en" for code in COVOST2_TO_ENGLISH),
    "fleurs_x_en": tuple(f"fleurs_{code}_en" for code in FLEURS_TO_ENGLISH),
    "fleurs_en_x": tuple(f"fleurs_en_{code}" for code in FLEURS_FROM_ENGLISH),
    "mustc_en_x": tuple(f"mustc_en_{code}" for code in MUSTC_TARGETS),
    "asr_fleurs": tuple(f"asr_fleurs_{code}" for code in sorted(("en", *FLEURS_TO_ENGLISH))),
    "asr_covost2": tuple(f"asr_covost2_{code}" for code in sorted(("en", *COVOST2_TO_ENGLISH))),
}
SHIPPED = tuple(name for members in GROUPS.values() for name in members)

PAIR = re.compile(r"fleurs_([a-z]{2,3})_([a-z]{2,3})")
FLEURS_LANGUAGE = re.compile(r"asr_fleurs_([a-z]{2,3})")
_METRICS = {"_translation.yaml": ("bleu", "chrf++"), "_asr.yaml": ("wer", "cer")}


def dataset_kwargs(name: str) -> dict[str, str] | None:
    """What the task of this name loads, None if no such task can be made."""
    if pair := PAIR.fullmatch(name):
        heard, wanted = pair.groups()
        known = heard in FLEURS and wanted in FLEURS and heard != wanted
        return {"source": "fleurs", "pair": f"{FLEURS[heard][0]}-{FLEURS[wanted][0]}"} if known else None
    if (spoken := FLEURS_LANGUAGE.fullmatch(name)) and spoken[1] in FLEURS:
        return {"source": "asr", "corpus": "fleurs", "spoken": FLEURS[spoken[1]][0]}
    if name not in SHIPPED:
        return None
    corpus, _, rest = name.partition("_")
    if corpus == "asr":
        corpus, _, language = rest.partition("_")
        return {"source": "asr", "corpus": corpus, "spoken": language}
    return {"source": corpus, "direction": rest}


def benchmark(name: str) -> str:
    """The folder under `tasks/` that a task or group belongs to."""
    return name.split("_")[0]


def yaml_text(name: str, shared: str = "..") -> str | None:
    """The task's YAML file, None if no task of this name can be made.

    Args:
        name: Name of the task.
        shared: Folder of `_translation.yaml` and `_asr.yaml`, absolute or relative to the file.
    """
    loaded = dataset_kwargs(name)
    if loaded is None:
        return None
    options = "".join(f"  {key}: {value}\n" for key, value in loaded.items())
    return (
        f"include: {shared}/{_shared(name)}\n"
        f"task: {name}\n"
        f"dataset_kwargs:\n{options}"
        f"metadata:\n  version: 2\n  benchmark: {benchmark(name)}\n  track: full\n"
    )


def group_text(name: str) -> str:
    """A group's YAML file: the unweighted mean over its tasks. Raises KeyError for an unknown group."""
    members = "".join(f"  - {member}\n" for member in GROUPS[name])
    metrics = "".join(
        f"  - metric: {metric}\n    aggregation: mean\n    weight_by_size: false\n"
        for metric in _METRICS[_shared(name)]
    )
    return (
        f"group: {name}\ntask:\n{members}aggregate_metric_list:\n{metrics}"
        f"metadata:\n  version: 2\n  benchmark: {benchmark(name)}\n  track: full\n"
    )


def task_file(name: str, tasks_dir: Path, folder: Path) -> Path | None:
    """Write the YAML of a task that is not shipped into `folder`; None if no task of this name can be made.

    Args:
        name: Such as `fleurs_sw_hi`.
        tasks_dir: Folder of the shipped tasks, whose `_translation.yaml` the file includes.
        folder: Where to put it.
    """
    text = yaml_text(name, str(tasks_dir.resolve()))
    if text is None:
        return None
    path = folder / f"{name}.yaml"
    write_atomic(path, text)
    return path


def _shared(name: str) -> str:
    return "_asr.yaml" if benchmark(name) == "asr" else "_translation.yaml"
