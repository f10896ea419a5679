"""Alias matching: what the normaliser must forgive and what it must not."""

import pytest

from rba_bench.metrics.qa import alias_match, exact_match, normalize


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("It's TWENTY-ONE colours, Mr. Smith!", "en", "it is 21 colors mister smith"),
        ("Die Straße, ÜBER uns!", "de", "die straße über uns"),
        ("L'été.", "fr", "l été"),
        ("猫がいる。", "ja", "猫 が い る"),
        ("  ", "en", ""),
    ],
)
def test_normal_form(text, lang, expected):
    assert normalize(text, lang) == expected


@pytest.mark.parametrize(
    ("response", "aliases", "exact", "alias"),
    [
        ("Paris.", ["paris"], 1, 1),
        ("The answer is Paris, of course.", ["Paris"], 0, 1),
        ("comparison", ["paris"], 0, 0),
        ("romeo", ["rome"], 0, 0),
        ("New York City", ["York New"], 0, 0),
        ("new big york", ["new york"], 0, 0),
        ("Seven", ["7"], 1, 1),
        ("seventeen", ["7"], 0, 0),
        ("grey", ["gray"], 1, 1),
        ("madrid", ["Paris", "Madrid"], 1, 1),
        ("", ["paris"], 0, 0),
        ("paris", ["(What?)", "london"], 0, 0),  # an alias that normalises to nothing matches nothing else
        ("(1969)", ["(1969)"], 1, 1),
        ("anything", ["..."], 0, 0),
    ],
)
def test_matching(response, aliases, exact, alias):
    assert exact_match(response, aliases) == exact
    assert alias_match(response, aliases) == alias


def test_language_decides_the_normaliser():
    assert exact_match("zwei", ["2"], "de") == 0.0
    assert exact_match("two", ["2"], "en") == 1.0
    assert alias_match("我住在北京市", ["北京"], "zh-CN") == 1.0
    assert alias_match("我住在京北市", ["北京"], "zh-CN") == 0.0


@pytest.mark.parametrize("aliases", [[], "paris"])
def test_alias_list_is_required(aliases):
    with pytest.raises(ValueError, match="non-empty list"):
        alias_match("paris", aliases)


@pytest.mark.parametrize(
    "text",
    [
        "½ ٣ ²",
        "\ud7ff ((",
        "1e309",
        "$ % .",
        "1,000,000.5.5",
        "thirty thousand thousand hundred",
        "<|audio|>",
        "\x00",
    ],
)
def test_ugly_responses_do_not_crash(text):
    assert alias_match(text, ["paris"]) == 0.0
