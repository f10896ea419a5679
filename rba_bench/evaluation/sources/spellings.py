"""Which task somebody meant who wrote a language in another way: `fleurs_cmn_hans_cn_en`, `covost2_en_zh`, `mustc_deu`.

Data sets, tokenizers and translation models write languages as ISO 639-1, 639-2 or 639-3, as locales (`pt_BR`,
`zho_Hans`) or by name. All of these are read; the names of the tasks themselves stay one for each.
"""

import re
from collections.abc import Iterator, Sequence

from rba_bench.evaluation.sources import directions
from rba_bench.evaluation.sources.languages import FLEURS

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
_CORPORA: tuple[tuple[str, ...], ...] = (
    ("covost", "2"),
    ("covost", "v2"),
    ("covost2",),
    ("covost",),
    ("fleurs",),
    ("fleur",),
    ("must", "c"),
    ("mustc",),
)
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
_IN_COVOST2 = {
    code.split("-")[0]: code for code in directions.COVOST2_TO_ENGLISH + directions.COVOST2_FROM_ENGLISH
}


def meant(name: str) -> list[str]:
    """Names of tasks that exist and are what `name` means, likeliest first; [] where it means none."""
    words = [
        word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])2(?=[a-z])", "_", name.lower())) if word
    ]
    transcribing = bool(_TRANSCRIBING & set(words))
    words = [word for word in words if word not in _TRANSCRIBING]
    corpora: list[tuple[str, ...]] = [("covost2",), ("fleurs",)] if transcribing else []
    for start in _CORPORA:
        if tuple(words[: len(start)]) == start:
            corpora, words = [start], words[len(start) :]
            break
    spoken = [word for word in words if word not in _FILLERS]
    readings = sorted(_readings(spoken), key=lambda reading: reading[1])
    if any(len(languages) == 2 and not distance for languages, distance in readings):
        readings = [reading for reading in readings if len(reading[0]) == 2]  # de_fr is no German of France
    found: list[str] = []
    for languages, _ in readings:
        for start in corpora:
            corpus = (
                "covost2"
                if start[0].startswith("covost")
                else "mustc"
                if start[0].startswith("must")
                else "fleurs"
            )
            found += [task for task in _tasks(corpus, languages, transcribing) if _exists(task)]
    return list(dict.fromkeys(found))


def _tasks(corpus: str, languages: Sequence[str], transcribing: bool) -> Iterator[str]:
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


def _exists(task: str) -> bool:
    return directions.dataset_kwargs(task) is not None


def _readings(words: Sequence[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """All ways to read words as one or two languages, each with its distance from what is written."""
    if not words:
        yield (), 0
        return
    for length in (1, 2, 3):
        if len(words) < length or (found := _language(tuple(words[:length]))) is None:
            continue
        for rest, distance in _readings(words[length:]):
            if len(rest) < 2 and found[0] not in rest:
                yield (found[0], *rest), found[1] + distance


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
