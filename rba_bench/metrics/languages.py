"""Language codes as data sets write them, reduced to the two letters that tokenizers and normalisers know."""

ALIASES = {
    "cmn": "zh",
    "zho": "zh",
    "yue": "zh",
    "jpn": "ja",
    "kor": "ko",
    "eng": "en",
    "deu": "de",
    "fra": "fr",
    "spa": "es",
}


def base_language(code: str) -> str:
    """Two-letter language of `code`: `zh-CN`, `zh_cn`, `cmn_hans_cn` are all `zh`. Unknown codes stay."""
    head = code.strip().lower().replace("_", "-").split("-")[0]
    return ALIASES.get(head, head)
