"""Effects of a new judge where they are known, since the verdicts are drawn; and what is said of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rba_bench.leaderboard.judge_transfer.effects import all_effects, families
from rba_bench.leaderboard.judge_transfer.judged_pairs import JudgedPairs
from rba_bench.leaderboard.judge_transfer.kinds import KINDS, PAIRS
from rba_bench.leaderboard.judge_transfer.preparing import _told_name
from rba_bench.leaderboard.judge_transfer.report import SectionResult, report_page
from rba_bench.leaderboard.judge_transfer.sentences import verdict

N_ITEMS, MODELS = 150, 5
NO_KIN: dict[str, list[bool]] = {"a": [False] * MODELS, "b": [False] * MODELS}
QUALITY = np.linspace(0.3, 0.7, MODELS)
NOTHING = np.zeros(N_ITEMS * MODELS)


def drawn_pairs(
    b_quality: np.ndarray = QUALITY,
    front: float = 0.0,
    shift: np.ndarray = NOTHING,
    seed: int = 0,
    noise: float = 0.06,
) -> JudgedPairs:
    """Preferences of A around QUALITY and of B around `b_quality`; of B, the answer in front gets `front` more.

    Args:
        shift: What B adds to each pair.
    """
    rng = np.random.default_rng(seed)
    model = np.tile(np.arange(MODELS), N_ITEMS)
    hard = np.repeat(rng.normal(scale=0.05, size=N_ITEMS), MODELS)

    def judged(quality: np.ndarray, bias: float, more: np.ndarray) -> np.ndarray:
        means = quality[model] + hard + more + rng.normal(scale=noise, size=len(model))
        orders = np.column_stack([means - bias, means + bias]) + rng.normal(scale=0.02, size=(len(model), 2))
        return np.clip(orders, 0.0, 1.0)

    a, b = judged(QUALITY, 0.0, NOTHING), judged(b_quality, front, shift)
    return JudgedPairs(
        labels=[f"model-{place}" for place in range(MODELS)],
        model=model,
        item=np.repeat(np.arange(N_ITEMS), MODELS),
        clusters=[f"item-{item // 2}" for item in np.repeat(np.arange(N_ITEMS), MODELS)],
        a=a.mean(axis=1),
        b=b.mean(axis=1),
        a_votes=a,
        b_votes=b,
        by_rule=np.zeros(len(model), dtype=bool),
        doublings=np.random.default_rng(seed + 1).normal(size=len(model)),
    )


def effects(pairs: JudgedPairs, kin: dict[str, list[bool]] = NO_KIN) -> dict[str, Any]:
    return all_effects(pairs, kin)


def test_a_known_bias_for_the_answer_in_front_is_recovered():
    found = effects(drawn_pairs(front=0.1))["votes"]
    assert found["b"]["position_bias"].low < 0.1 < found["b"]["position_bias"].high < 0.11
    assert not found["a"]["position_bias"].excludes(0.0)
    assert found["difference"]["position_bias"].excludes(0.0)
    assert found["difference"]["consistency"].value < 0


def test_a_known_price_of_length_is_recovered_as_the_difference_of_slopes():
    plain = drawn_pairs(noise=0.05)
    slope = effects(drawn_pairs(shift=0.03 * plain.doublings))["length"]
    assert slope["difference"]["slope"].low < 0.03 < slope["difference"]["slope"].high
    assert slope["difference"]["slope"].excludes(0.0) and not slope["a"]["slope"].excludes(0.0)
    assert not effects(plain)["length"]["difference"]["slope"].excludes(0.0)


def test_what_a_judge_gives_its_family_is_told_from_what_it_gives_all():
    """B gives everybody 0.05 more, and models 1 and 2 another 0.1."""
    model = np.tile(np.arange(MODELS), N_ITEMS)
    kin = {"a": [False] * MODELS, "b": [place in (1, 2) for place in range(MODELS)]}
    pairs = drawn_pairs(shift=0.05 + 0.1 * np.isin(model, (1, 2)))
    gain = effects(pairs, kin)["self_preference"]["b"]["gain"]
    assert gain.low < 0.1 < gain.high and gain.low > 0.08
    of_a = effects(drawn_pairs(shift=-0.1 * np.isin(model, (1, 2))), {"a": kin["b"], "b": kin["a"]})
    assert of_a["self_preference"]["a"]["gain"].low > 0.08, "what B takes from them, A had given"
    assert not any(
        effects(drawn_pairs(seed=seed), kin)["self_preference"]["b"]["gain"].low > 0.02 for seed in range(5)
    )
    assert "gain" not in effects(pairs, {"a": [False] * MODELS, "b": [True] * MODELS})["self_preference"]["b"]


def test_win_rates_and_their_paired_difference():
    pairs = drawn_pairs(b_quality=QUALITY - 0.1)
    rows = effects(pairs)["scores"]
    assert sorted(row["model"] for row in rows) == sorted(pairs.labels)
    for row in rows:
        mine = pairs.model == pairs.labels.index(row["model"])
        assert row["a"].value == pytest.approx(pairs.a[mine].mean())
        assert row["difference"].value == pytest.approx((pairs.b - pairs.a)[mine].mean())
        assert row["difference"].low < -0.05 < 0 and row["difference"].excludes(0.0)
        assert row["difference"].high - row["difference"].low < (row["a"].high - row["a"].low) * 1.7


def test_orders_that_both_find_are_kept_and_a_swap_is_seen():
    same = effects(drawn_pairs())["order_of_models"]
    assert same["tau"].value == 1.0 and not same["reversed"] and not same["lost"]
    assert ["model-4", "model-0"] in same["kept"]
    swapped = effects(drawn_pairs(b_quality=QUALITY[[0, 1, 2, 4, 3]]))
    assert swapped["order_of_models"]["reversed"] == [["model-4", "model-3"]]
    assert "`model-4` below `model-3`, where A had the opposite" in verdict(swapped, PAIRS)[0]
    blind = effects(drawn_pairs(b_quality=np.full(MODELS, 0.5)))
    assert blind["order_of_models"]["kept"] == [] and len(blind["order_of_models"]["lost"]) >= 8
    assert (
        "cannot take the place" in verdict(blind, PAIRS)[0]
        or "does not tell apart" in verdict(blind, PAIRS)[0]
    )


def test_equal_models_are_hardly_ever_put_in_order():
    flat = np.full(MODELS, 0.5)
    ordered = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pairs = drawn_pairs(b_quality=flat, seed=seed)
        pairs = JudgedPairs(
            **{**vars(pairs), "a": np.clip(0.5 + rng.normal(scale=0.2, size=len(pairs.a)), 0, 1)}
        )
        order = effects(pairs)["order_of_models"]
        ordered += bool(order["kept"] or order["reversed"] or order["lost"])
    assert ordered <= 3


def test_pairs_decided_by_rule_count_in_win_rates_and_not_in_agreement():
    pairs = drawn_pairs()
    ruled = np.arange(len(pairs)) % 4 == 0
    a, b = (np.where(ruled, 0.0, values) for values in (pairs.a, pairs.b))
    found = effects(JudgedPairs(**{**vars(pairs), "a": a, "b": b, "by_rule": ruled}))
    assert found["agreement"]["n"] == (~ruled).sum() == 562
    assert sum(row["n"] for row in found["scores"]) == len(pairs)
    assert sum(sum(row.values()) for row in found["agreement"]["table"].values()) == 562


def test_a_judge_without_orders_has_no_position_bias():
    pairs = drawn_pairs()
    found = effects(JudgedPairs(**{**vars(pairs), "a_votes": np.full((len(pairs), 2), np.nan)}))
    assert "a" not in found["votes"] and "difference" not in found["votes"] and "b" in found["votes"]
    assert "raw_where_consistent" not in found["agreement"]


def test_few_pairs_and_one_model_are_no_fault():
    pairs = drawn_pairs()
    for keep in (pairs.item < 1, pairs.model == 0, pairs.item < 3):
        part = pairs.where(keep)
        found = effects(part)
        assert found["agreement"]["n"] == len(part) and verdict(found, PAIRS)
    nothing_judged = JudgedPairs(**{**vars(pairs), "by_rule": np.ones(len(pairs), dtype=bool)})
    assert "decided by rule" in verdict(effects(nothing_judged), PAIRS)[1]


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_one_answer_equal_votes_and_nothing_are_no_fault_and_no_nan(kind):
    pairs = drawn_pairs()
    kin = {"a": [True] + [False] * 4, "b": [False] * 4 + [True]}
    counts = dict.fromkeys(
        ("items", "models", "pairs", "by_rule", "a_stored", "a_asked", "a_failed", "b_failed"), 1
    )
    facts = {
        "a": "a",
        "b": "b",
        "seed": 0,
        "n_pairs": 1,
        "pairs_sha256": "ab" * 32,
        "left_out": [],
        "next": "",
    }
    ones, first = np.ones(len(pairs)), np.arange(len(pairs)) < 1
    for keep in (first, pairs.item < 2, pairs.model == 0, ~np.isfinite(ones), ones > 0):
        for changes in ({}, {"a": ones}, {"a": ones, "b": ones}, {"a": ones / 2, "b": ones / 2}):
            found = effects(JudgedPairs(**{**vars(pairs), **changes, "kind": kind}).where(keep), kin)
            said = verdict(found, kind, 0.25)
            assert said[0].endswith(".") and any("25 %" in sentence for sentence in said)
            page = report_page(facts, [SectionResult("t", kind, said, counts, found, {})])
            assert "nan" not in page and "inf" not in page


def test_a_judge_of_one_grade_is_not_proof_against_the_other():
    pairs = drawn_pairs()
    flat = effects(JudgedPairs(**{**vars(pairs), "a": np.ones(len(pairs)), "kind": KINDS["rating"]}))
    assert flat["agreement"]["weighted_kappa"].value == pytest.approx(0.0)
    assert verdict(flat, KINDS["rating"])[0].startswith("A tells no two models apart")


def test_ratings_are_shown_on_their_own_scale():
    pairs = JudgedPairs(
        **{**vars(drawn_pairs(shift=np.full(N_ITEMS * MODELS, 0.1))), "kind": KINDS["rating"]}
    )
    found = effects(pairs)
    mean = {row["model"]: row["a"].value for row in found["scores"]}
    assert mean["model-0"] == pytest.approx(1 + 4 * pairs.a[pairs.model == 0].mean())
    assert found["agreement"]["mean_difference"].value == pytest.approx(4 * (pairs.b - pairs.a).mean())
    assert found["agreement"]["mean_distance"].value == pytest.approx(4 * np.abs(pairs.b - pairs.a).mean())


def test_of_many_equal_scores_none_is_named_as_different():
    """One in twenty p-values of equal scores is below 0.05; named is what stays below it after Holm."""

    def differing(*p_values: float) -> str:
        found = effects(drawn_pairs())
        [row] = [row for row in found["scores"] if row["model"] == "model-0"]
        found["scores"] = [{**row, "difference": replace(row["difference"], p=p)} for p in p_values]
        return next(sentence for sentence in verdict(found, PAIRS) if " of 20 models" in sentence)

    assert differing(0.03, *[0.3] * 19).startswith("No difference between the win rates of 20 models")
    assert "those of 2 of 20 models differ" in differing(0.002, 0.03, 0.001, *[0.3] * 17)


def test_a_family_is_told_from_the_name_and_not_from_the_folder_above():
    assert _told_name("openai:https://api.openai.com/v1#gpt-audio-1.5") == "gpt-audio-1.5"
    assert _told_name("Qwen/Qwen2-Audio-7B") == "Qwen/Qwen2-Audio-7B"
    judge, model = map(_told_name, ("/home/somebody/llms/prometheus/", "/home/somebody/speech/runs/mine"))
    assert not families([judge]) & families([model])


def test_families_are_words_that_name_a_maker():
    assert families(["gpt-4.1-2025-04-14"]) & families(["openai:https://x/v1#gpt-audio-1.5"]) == {"gpt"}
    assert families(["SmolLM2-135M-Instruct.Q4_1.gguf"]) & families(["text:asset:smollm2-135m-instruct"]) == {
        "smollm"
    }
    assert not families(["my-judge"]) & families(["base", "sft", "constant", "small-base"])


def test_a_page_shows_hostile_names_as_text():
    pairs = drawn_pairs()
    labels = ["<script>alert(1)</script>", "a|b", "[x](javascript:y)", "`tick`", "line\nbreak"]
    found = effects(JudgedPairs(**{**vars(pairs), "labels": labels}))
    counts = dict.fromkeys(
        ("items", "models", "pairs", "by_rule", "a_stored", "a_asked", "a_failed", "b_failed"), 1
    )
    section = SectionResult("task<b>", PAIRS, verdict(found, PAIRS), counts, found, {})
    facts = {
        "a": "A\n# x",
        "b": "<i>",
        "seed": 0,
        "n_pairs": 1,
        "pairs_sha256": "ab" * 32,
        "left_out": ["<u>"],
        "next": "",
    }
    page = report_page(facts, [section])
    assert not any(mark in page for mark in ("<script", "<b>", "<i>", "<u>", "](javascript", "\n# x"))
    assert "a\\|b" in page
