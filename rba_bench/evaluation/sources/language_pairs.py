"""Translation and transcription tasks: their languages, names and YAML files, and other spellings of their names.

    covost2_en_de, covost2_zh-CN_en     CoVoST 2, codes as the data set writes them
    fleurs_en_de, fleurs_sw_hi          FLEURS joined on `id`: any two of its 102 languages
    mustc_en_de                         MuST-C
    asr_fleurs_de, asr_covost2_de       transcription of the same clips

The shipped YAMLs are `yaml_text(name)` for every name in `SHIPPED`, and `group_text(name)` for every name in `GROUPS`.
Other pairs of FLEURS need no file of their own: `task_file` writes one when a run asks for it.

Data sets, tokenizers and translation models write languages as ISO 639-1, 639-2 or 639-3, as locales (`pt_BR`,
`zho_Hans`) or by name. `tasks_meant` understands all of these (`fleurs_cmn_hans_cn_en`, `covost2_en_zh`, `mustc_deu`);
each task has one name. This module imports nothing heavy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.files import write_atomic
from rba_bench.metrics.languages import FLEURS, TRANSLATE, english_name, short

__all__ = ["FLEURS", "TRANSCRIBE", "TRANSLATE", "english_name", "fleurs_config", "short", "task_prompt"]

TRANSCRIBE = "Transcribe the {language} speech. Write only the transcript."


def fleurs_config(code: str) -> str:
    """Configuration of FLEURS for a language code or a configuration. Raises UserError as `short` does."""
    return FLEURS[short(code)][0]


def task_prompt(template: str, code: str, options: Mapping[str, Any]) -> str:
    """The prompt of a task: `template`, or the task's own `task_prompt` option, with `{language}` filled in."""
    return str(options.get("prompt") or template).replace("{language}", english_name(code))


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


def dataset_kwargs(name: str) -> dict[str, str] | None:
    """What the task of this name loads, None if no such task can be made."""
    if pair := PAIR.fullmatch(name):
        source, target = pair.groups()
        exists = source in FLEURS and target in FLEURS and source != target
        return {"source": "fleurs", "pair": f"{FLEURS[source][0]}-{FLEURS[target][0]}"} if exists else None
    if (spoken := FLEURS_LANGUAGE.fullmatch(name)) and spoken[1] in FLEURS:
        return {"source": "asr", "corpus": "fleurs", "spoken": FLEURS[spoken[1]][0]}
    if name not in SHIPPED:
        return None
    corpus, _, rest = name.partition("_")
    if corpus == "asr":
        corpus, _, language = rest.partition("_")
        return {"source": "asr", "corpus": corpus, "spoken": language}
    return {"source": corpus, "direction": rest}


def benchmark_of(name: str) -> str:
    """The folder under `tasks/` that a task or group belongs to."""
    return name.split("_")[0]


def yaml_text(name: str, shared: str = "..") -> str | None:
    """The task's YAML file, None if no task of this name can be made.

    Args:
        name: Name of the task.
        shared: Folder of `_translation.yaml` and `_asr.yaml`, absolute or relative to the file.
    """
    kwargs = dataset_kwargs(name)
    if kwargs is None:
        return None
    options = "".join(f"  {key}: {value}\n" for key, value in kwargs.items())
    return (
        f"include: {shared}/{'_asr.yaml' if benchmark_of(name) == 'asr' else '_translation.yaml'}\n"
        f"task: {name}\n"
        f"dataset_kwargs:\n{options}"
        f"metadata:\n  version: 2\n  benchmark: {benchmark_of(name)}\n  track: full\n"
    )


def group_text(name: str) -> str:
    """A group's YAML file: the unweighted mean over its tasks. Raises KeyError for an unknown group."""
    from rba_bench.evaluation.metric import metrics_of

    members = "".join(f"  - {member}\n" for member in GROUPS[name])
    metrics = "".join(
        f"  - metric: {metric.name}\n    aggregation: mean\n    weight_by_size: false\n"
        for metric in metrics_of("asr" if benchmark_of(name) == "asr" else "s2tt")
    )
    return (
        f"group: {name}\ntask:\n{members}aggregate_metric_list:\n{metrics}"
        f"metadata:\n  version: 2\n  benchmark: {benchmark_of(name)}\n  track: full\n"
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


# Other codes of a language: ISO 639-2 and 639-3 (also of the main variety of a macrolanguage), withdrawn ones.
_CODES = (
    "af afr|am amh|ar ara arb arz|as asm|az aze azj|be bel|bg bul|bn ben|bs bos|ca cat|ckb ku kur|zh zho chi cmn|"
    "cs ces cze|cy cym wel|da dan|de deu ger|el ell gre|en eng|es spa|et est ekk|fa fas per pes|ff ful fuv|fi fin|"
    "fil tl tgl|fr fra fre|ga gle|gl glg|gu guj|ha hau|he heb iw|hi hin|hr hrv|hu hun|hy hye arm|id ind|ig ibo|"
    "is isl ice|it ita|ja jpn|jv jav|ka kat geo|kk kaz|km khm|kn kan|ko kor|ky kir|lb ltz|lg lug|ln lin|lo lao|"
    "lt lit|lv lav lvs|mi mri mao|mk mkd mac|ml mal|mn mon khk|mr mar|ms msa may zsm|mt mlt|my mya bur|nb no nor nob|"
    "ne nep npi|nl nld dut|ny nya|oc oci|om orm gaz|or ori ory|pa pan|pl pol|ps pus pbt|pt por|ro ron rum|ru rus|"
    "sd snd|sk slk slo|sl slv|sn sna|so som|sr srp|sv swe|sw swa swh|ta tam|te tel|tg tgk|th tha|tr tur|uk ukr|ur urd|"
    "uz uzb uzn|vi vie|wo wol|xh xho|yo yor|zu zul"
)
_NAMES = {
    "mandarin": "zh", "farsi": "fa", "castilian": "es", "tagalog": "fil", "kurdish": "ckb", "odia": "or",
    "deutsch": "de", "bokmal": "nb", "flemish": "nl", "chichewa": "ny", "gaelic": "ga",
}  # fmt: skip
_COUNTRIES = {
    "cn": "zh", "jp": "ja", "kr": "ko", "ua": "uk", "cz": "cs", "gr": "el", "vn": "vi", "dk": "da", "se": "sv",
    "ir": "fa",
}  # fmt: skip
_SCRIPTS = frozenset(
    {"hans", "hant", "latn", "cyrl", "arab", "deva", "jpan", "hang", "grek", "hebr", "beng", "taml"}
)
_REGION = re.compile(r"[a-z]{2}|\d{3}")
_CORPORA = {
    ("covost", "2"): "covost2", ("covost", "v2"): "covost2", ("covost2",): "covost2", ("covost",): "covost2",
    ("fleurs",): "fleurs", ("fleur",): "fleurs", ("must", "c"): "mustc", ("mustc",): "mustc",
}  # fmt: skip
_FILLERS = frozenset({"to", "into", "from", "2", "and", "s2tt", "st"})
_TRANSCRIBING = frozenset({"asr", "transcribe", "transcription"})
_ANY_REGION, _COUNTRY = 1, 2  # how far a reading is from what is written

_KNOWN: dict[tuple[str, ...], str] = {
    **{(code,): row.split()[0] for row in _CODES.split("|") for code in row.split()},
    **{(code,): code for code in FLEURS},
    **{tuple(config.split("_")): code for code, (config, _) in FLEURS.items()},
    **{tuple(name.lower().split()): code for code, (_, name) in FLEURS.items()},
    **{(name,): code for name, code in _NAMES.items()},
    ("zh", "hk"): "yue",
}
_IN_COVOST2 = {code.split("-")[0]: code for code in COVOST2_TO_ENGLISH + COVOST2_FROM_ENGLISH}


def tasks_meant(name: str) -> list[str]:
    """Names of tasks that exist and are what `name` means, likeliest first; [] where it means none."""
    spaced = re.sub(r"(?<=[a-z])2(?=[a-z])", "_", name.lower())
    words = [word for word in re.split(r"[^a-z0-9]+", spaced) if word]
    transcribing = bool(_TRANSCRIBING & set(words))
    words = [word for word in words if word not in _TRANSCRIBING]
    corpora = ["covost2", "fleurs"] if transcribing else []
    for start, corpus in _CORPORA.items():
        if tuple(words[: len(start)]) == start:
            corpora, words = [corpus], words[len(start) :]
            break
    spoken = [word for word in words if word not in _FILLERS]
    readings = sorted(_readings(spoken), key=lambda reading: reading[1])
    if any(len(languages) == 2 and not distance for languages, distance in readings):
        readings = [reading for reading in readings if len(reading[0]) == 2]  # de_fr is no German of France
    tasks: list[str] = []
    for languages, _ in readings:
        for corpus in corpora:
            names = _task_names(corpus, languages, transcribing)
            tasks += [task for task in names if dataset_kwargs(task) is not None]
    return list(dict.fromkeys(tasks))


def _task_names(corpus: str, languages: Sequence[str], transcribing: bool) -> Iterator[str]:
    """Names for languages in their order, then in the other order."""
    written = [_IN_COVOST2.get(code, code) if corpus == "covost2" else code for code in languages]
    if transcribing:
        if len(written) == 1:
            yield f"asr_{corpus}_{written[0]}"
    elif len(written) == 2:
        yield f"{corpus}_{written[0]}_{written[1]}"
        yield f"{corpus}_{written[1]}_{written[0]}"
    elif len(written) == 1:
        yield f"{corpus}_en_{written[0]}"
        yield f"{corpus}_{written[0]}_en"


def _readings(words: Sequence[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """All ways to read words as one or two languages, each with its distance from what is written."""
    if not words:
        yield (), 0
        return
    for length in (1, 2, 3):
        if len(words) < length or (language := _language(tuple(words[:length]))) is None:
            continue
        for rest, distance in _readings(words[length:]):
            if len(rest) < 2 and language[0] not in rest:
                yield (language[0], *rest), language[1] + distance


def _language(words: tuple[str, ...]) -> tuple[str, int] | None:
    """The language that words name together, and how far that is from what is written."""
    if words in _KNOWN:
        return _KNOWN[words], 0
    if len(words) == 1:
        country = _COUNTRIES.get(words[0])
        return (country, _COUNTRY) if country else None
    code = _KNOWN.get(words[:1])
    regions = words[2:] if words[1] in _SCRIPTS else words[1:]
    if code is None or len(regions) > 1 or not all(_REGION.fullmatch(region) for region in regions):
        return None
    return code, _ANY_REGION if regions else 0
