"""Language codes as data sets write them, and the languages of FLEURS: short codes, configurations, English names."""

from rba_bench.errors import UserError

ALIASES = {
    "cmn": "zh", "zho": "zh", "yue": "zh", "jpn": "ja", "kor": "ko", "eng": "en", "deu": "de", "fra": "fr", "spa": "es",
}  # fmt: skip


def base_language(code: str) -> str:
    """Two-letter language of `code`: `zh-CN`, `zh_cn`, `cmn_hans_cn` are all `zh`. Unknown codes stay."""
    head = code.strip().lower().replace("_", "-").split("-")[0]
    return ALIASES.get(head, head)


TRANSLATE = "Translate the speech into {language}. Write only the translation."

# Short code: configuration of FLEURS, English name. The configurations are all 102 of `google/fleurs`.
FLEURS: dict[str, tuple[str, str]] = {
    "af": ("af_za", "Afrikaans"), "am": ("am_et", "Amharic"), "ar": ("ar_eg", "Arabic"),
    "as": ("as_in", "Assamese"), "ast": ("ast_es", "Asturian"), "az": ("az_az", "Azerbaijani"),
    "be": ("be_by", "Belarusian"), "bg": ("bg_bg", "Bulgarian"), "bn": ("bn_in", "Bengali"),
    "bs": ("bs_ba", "Bosnian"), "ca": ("ca_es", "Catalan"), "ceb": ("ceb_ph", "Cebuano"),
    "ckb": ("ckb_iq", "Sorani Kurdish"), "zh": ("cmn_hans_cn", "Chinese"), "cs": ("cs_cz", "Czech"),
    "cy": ("cy_gb", "Welsh"), "da": ("da_dk", "Danish"), "de": ("de_de", "German"),
    "el": ("el_gr", "Greek"), "en": ("en_us", "English"), "es": ("es_419", "Spanish"),
    "et": ("et_ee", "Estonian"), "fa": ("fa_ir", "Persian"), "ff": ("ff_sn", "Fula"),
    "fi": ("fi_fi", "Finnish"), "fil": ("fil_ph", "Filipino"), "fr": ("fr_fr", "French"),
    "ga": ("ga_ie", "Irish"), "gl": ("gl_es", "Galician"), "gu": ("gu_in", "Gujarati"),
    "ha": ("ha_ng", "Hausa"), "he": ("he_il", "Hebrew"), "hi": ("hi_in", "Hindi"),
    "hr": ("hr_hr", "Croatian"), "hu": ("hu_hu", "Hungarian"), "hy": ("hy_am", "Armenian"),
    "id": ("id_id", "Indonesian"), "ig": ("ig_ng", "Igbo"), "is": ("is_is", "Icelandic"),
    "it": ("it_it", "Italian"), "ja": ("ja_jp", "Japanese"), "jv": ("jv_id", "Javanese"),
    "ka": ("ka_ge", "Georgian"), "kam": ("kam_ke", "Kamba"), "kea": ("kea_cv", "Kabuverdianu"),
    "kk": ("kk_kz", "Kazakh"), "km": ("km_kh", "Khmer"), "kn": ("kn_in", "Kannada"),
    "ko": ("ko_kr", "Korean"), "ky": ("ky_kg", "Kyrgyz"), "lb": ("lb_lu", "Luxembourgish"),
    "lg": ("lg_ug", "Ganda"), "ln": ("ln_cd", "Lingala"), "lo": ("lo_la", "Lao"),
    "lt": ("lt_lt", "Lithuanian"), "luo": ("luo_ke", "Luo"), "lv": ("lv_lv", "Latvian"),
    "mi": ("mi_nz", "Maori"), "mk": ("mk_mk", "Macedonian"), "ml": ("ml_in", "Malayalam"),
    "mn": ("mn_mn", "Mongolian"), "mr": ("mr_in", "Marathi"), "ms": ("ms_my", "Malay"),
    "mt": ("mt_mt", "Maltese"), "my": ("my_mm", "Burmese"), "nb": ("nb_no", "Norwegian"),
    "ne": ("ne_np", "Nepali"), "nl": ("nl_nl", "Dutch"), "nso": ("nso_za", "Northern Sotho"),
    "ny": ("ny_mw", "Nyanja"), "oc": ("oc_fr", "Occitan"), "om": ("om_et", "Oromo"),
    "or": ("or_in", "Oriya"), "pa": ("pa_in", "Punjabi"), "pl": ("pl_pl", "Polish"),
    "ps": ("ps_af", "Pashto"), "pt": ("pt_br", "Portuguese"), "ro": ("ro_ro", "Romanian"),
    "ru": ("ru_ru", "Russian"), "sd": ("sd_in", "Sindhi"), "sk": ("sk_sk", "Slovak"),
    "sl": ("sl_si", "Slovenian"), "sn": ("sn_zw", "Shona"), "so": ("so_so", "Somali"),
    "sr": ("sr_rs", "Serbian"), "sv": ("sv_se", "Swedish"), "sw": ("sw_ke", "Swahili"),
    "ta": ("ta_in", "Tamil"), "te": ("te_in", "Telugu"), "tg": ("tg_tj", "Tajik"),
    "th": ("th_th", "Thai"), "tr": ("tr_tr", "Turkish"), "uk": ("uk_ua", "Ukrainian"),
    "umb": ("umb_ao", "Umbundu"), "ur": ("ur_pk", "Urdu"), "uz": ("uz_uz", "Uzbek"),
    "vi": ("vi_vn", "Vietnamese"), "wo": ("wo_sn", "Wolof"), "xh": ("xh_za", "Xhosa"),
    "yo": ("yo_ng", "Yoruba"), "yue": ("yue_hant_hk", "Cantonese"), "zu": ("zu_za", "Zulu"),
}  # fmt: skip
_SHORT = {config: code for code, (config, _) in FLEURS.items()}


def short(code: str) -> str:
    """The short code of a language: `zh-CN`, `cmn_hans_cn` and `zh` are `zh`; `sv-SE` is `sv`.

    Raises:
        UserError: no language of that code is known.
    """
    language = _SHORT.get(code, code.split("-")[0])
    if language not in FLEURS:
        raise UserError(f"unknown language {code!r}; known: {', '.join(sorted(FLEURS))}")
    return language


def english_name(code: str) -> str:
    """English name of a language, as prompts say it. Raises UserError as `short` does."""
    return FLEURS[short(code)][1]
