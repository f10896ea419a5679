"""Languages written in another way: the first task that is suggested is the one that was meant."""

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import task_registry
from rba_bench.evaluation.sources.language_pairs import FLEURS, tasks_meant

WRITTEN = {
    "fleurs_cmn_hans_cn_en": "fleurs_zh_en",
    "fleurs_en_us_cmn_hans_cn": "fleurs_en_zh",
    "fleurs_zh-CN_en": "fleurs_zh_en",
    "fleurs_zho_Hans_eng_Latn": "fleurs_zh_en",
    "fleurs_de_DE_en_US": "fleurs_de_en",
    "fleurs_deu_eng": "fleurs_de_en",
    "fleurs_german_english": "fleurs_de_en",
    "fleurs_de_to_en": "fleurs_de_en",
    "fleurs_de2en": "fleurs_de_en",
    "FLEURS_DE_EN": "fleurs_de_en",
    "fleurs-de-en": "fleurs_de_en",
    "fleurs_pt_br_en": "fleurs_pt_en",
    "fleurs_en_ca_es": "fleurs_en_ca",
    "fleurs_es_419_en": "fleurs_es_en",
    "fleurs_yue_hant_hk_en": "fleurs_yue_en",
    "fleurs_northern_sotho_en": "fleurs_nso_en",
    "fleurs_jp_en": "fleurs_ja_en",
    "fleurs_ast_es_en": "fleurs_ast_en",
    "covost2_en_zh_cn": "covost2_en_zh-CN",
    "covost2_en_zh": "covost2_en_zh-CN",
    "covost2_en_cn": "covost2_en_zh-CN",
    "covost2_zh_CN_en": "covost2_zh-CN_en",
    "covost2_en_sv_SE": "covost2_en_sv-SE",
    "covost2_sv_en": "covost2_sv-SE_en",
    "covost_en_de": "covost2_en_de",
    "covost-2_en_de": "covost2_en_de",
    "covost_v2_eng_deu": "covost2_en_de",
    "CoVoST2_en_DE": "covost2_en_de",
    "covost2_en_es": "covost2_es_en",  # the other direction is not in the data set
    "covost2_en_fa_IR": "covost2_en_fa",
    "mustc_de_en": "mustc_en_de",
    "must_c_en_pt_br": "mustc_en_pt",
    "mustc_deu": "mustc_en_de",
    "asr_covost2_zh": "asr_covost2_zh-CN",
    "asr_covost2_sv_SE": "asr_covost2_sv-SE",
    "asr_fleurs_cmn_hans_cn": "asr_fleurs_zh",
    "asr_fleurs_english": "asr_fleurs_en",
    "fleurs_asr_deu": "asr_fleurs_de",
    "covost_asr_de_DE": "asr_covost2_de",
    "asr_tur": "asr_covost2_tr",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_direction_that_the_codes_mean_is_suggested_first(name):
    assert tasks_meant(name)[0] == WRITTEN[name]


def test_every_language_is_found_by_its_configuration_and_by_its_name():
    for code, (configuration, english) in FLEURS.items():
        if code != "en":
            assert tasks_meant(f"fleurs_{configuration}_en_us")[0] == f"fleurs_{code}_en", code
            assert tasks_meant(f"fleurs_en_{english.replace(' ', '_')}")[0] == f"fleurs_en_{code}", code


def test_one_language_means_both_directions():
    assert tasks_meant("covost2_de") == ["covost2_en_de", "covost2_de_en"]


@pytest.mark.parametrize(
    "name",
    [
        "fleurs",
        "covost2_xx_en",
        "covost2_de_fr",
        "fleurs_en_en",
        "mustc_de_fr",
        "triviaqa_de",
        "zzz",
        "",
        "asr",
        "a" * 500,
    ],
)
def test_what_means_no_task_gives_none(name):
    assert tasks_meant(name) == []


@pytest.mark.parametrize("name", ["fleurs_cmn_hans_cn_en", "covost2_en_zh_cn", "covost2_en_zh"])
def test_the_message_names_it_first(name):
    with pytest.raises(
        UserError, match=f"unknown task '{name}'; did you mean {WRITTEN[name]}( or |\\?)"
    ) as caught:
        task_registry.resolve_tasks([name], track="full")
    assert "\n" not in str(caught.value)


def test_suggestions_do_not_mind_capitals():
    with pytest.raises(UserError, match="did you mean triviaqa or"):
        task_registry.resolve_tasks(["TRIVIAQA"])
