"""BLEU and chrF++ against sacrebleu itself, in four languages and on ugly input."""

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from rba_bench.errors import MissingPrerequisite
from rba_bench.metrics.aggregate import MacroScore, macro_rows, score_function
from rba_bench.metrics.bleu import (
    ChrfPP,
    CorpusBleu,
    bleu_tokenizer,
    corpus_score,
    sentence_bleu,
    sentence_chrf,
)

SENTENCES = {
    "en": [
        "The cat sat on the mat.",
        "It's 3:15 p.m., isn't it?",
        "A U.S. court (in Ohio) ruled on it.",
        "Yes.",
    ],
    "de": [
        "Die Katze saß auf der Matte.",
        "Es ist 15:15 Uhr, nicht wahr?",
        "Das kostet 1.000,50 Euro.",
        "Ja.",
    ],
    "zh": ["猫坐在垫子上。", "现在是下午3点15分，对吗？", "这要花一千欧元。", "是的。"],
    "ja": ["猫がマットの上に座りました。", "今は午後3時15分ですね。", "それは千ユーロかかります。", "はい。"],
}
HYPOTHESES = {
    "en": ["The cat sat on a mat.", "It is 3:15 pm, isn't it?", "A court in Ohio ruled.", ""],
    "de": ["Die Katze sitzt auf der Matte.", "Es ist 15:15 Uhr.", "Das kostet tausend Euro.", "Nein, ja."],
    "zh": ["猫坐在垫上。", "现在是3点15分，对吗？", "它要花一千欧元。", "不是。"],
    "ja": ["猫はマットに座った。", "今は午後3時です。", "それは千円かかります。", "はい。"],
}
ORACLE = {"en": "13a", "de": "13a", "zh": "zh", "ja": "ja-mecab"}


def total(metric, hypotheses, references):
    return np.sum([metric.statistics(h, r) for h, r in zip(hypotheses, references, strict=True)], axis=0)


@pytest.mark.parametrize("lang", sorted(SENTENCES))
def test_bleu_equals_sacrebleu(lang):
    metric = CorpusBleu(lang, n_references=1)
    oracle = sacrebleu.corpus_bleu(HYPOTHESES[lang], [SENTENCES[lang]], tokenize=ORACLE[lang])
    assert metric.score(total(metric, HYPOTHESES[lang], [[r] for r in SENTENCES[lang]])) == oracle.score
    assert 0 < oracle.score < 100


@pytest.mark.parametrize("lang", sorted(SENTENCES))
def test_chrf_equals_sacrebleu(lang):
    metric = ChrfPP(lang)
    oracle = sacrebleu.corpus_chrf(HYPOTHESES[lang], [SENTENCES[lang]], word_order=2)
    assert metric.score(total(metric, HYPOTHESES[lang], [[r] for r in SENTENCES[lang]])) == oracle.score
    assert 0 < oracle.score < 100


def test_several_references_and_random_text_equal_sacrebleu():
    rng = random.Random(0)
    words = ["the", "a", "cat", "dog", ",", ".", "sat", "ran", "it's", "3.5", "on", "mat", "(big)"]
    make = lambda: " ".join(rng.choices(words, k=rng.randrange(0, 12)))  # noqa: E731
    hypotheses = [make() for _ in range(300)]
    streams = [[make() for _ in range(300)] for _ in range(3)]
    per_item = [list(refs) for refs in zip(*streams, strict=True)]
    for ours, oracle in ((CorpusBleu("en"), BLEU()), (ChrfPP("en"), CHRF(word_order=2))):
        assert ours.score(total(ours, hypotheses, per_item)) == oracle.corpus_score(hypotheses, streams).score


def test_signature_is_sacrebleus():
    oracle = BLEU(tokenize="zh")
    oracle.corpus_score(HYPOTHESES["zh"], [SENTENCES["zh"]])
    assert CorpusBleu("zh", n_references=1).signature == str(oracle.get_signature())
    assert "nrefs:var" in CorpusBleu("de").signature
    assert "nw:2" in ChrfPP("de", 1).signature
    assert "tok:ja-mecab" in CorpusBleu("ja").signature


def test_tokenizer_follows_the_language_however_it_is_written():
    assert [bleu_tokenizer(code) for code in ("zh-CN", "cmn_hans_cn", "ja", "ko", "de_DE", "cy")] == [
        "zh",
        "zh",
        "ja-mecab",
        "ko-mecab",
        "13a",
        "13a",
    ]


def test_sentence_scores_equal_sacrebleu():
    hypothesis, references = "the cat sat on a mat", ["the cat sat on the mat", "a cat was on the mat"]
    assert (
        sentence_bleu(hypothesis, references)
        == sacrebleu.sentence_bleu(hypothesis, references, use_effective_order=True).score
    )
    assert (
        sentence_chrf(hypothesis, references)
        == sacrebleu.sentence_chrf(hypothesis, references, word_order=2).score
    )
    assert sentence_bleu("yes", "yes") == pytest.approx(100)  # effective order: short answers can be perfect
    assert sentence_bleu("", "yes") == 0.0
    assert (
        sentence_bleu("猫坐在垫子上", "猫坐在垫子上。", "zh")
        > 50
        > sentence_bleu("猫坐在垫子上", "猫坐在垫子上。", "en")
    )


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="list of strings"):
        CorpusBleu("en").statistics("a", "a")
    with pytest.raises(ValueError, match="list of strings"):
        CorpusBleu("en").statistics("a", [])
    with pytest.raises(ValueError, match="expected 1 references, got 2"):
        CorpusBleu("en", n_references=1).statistics("a", ["a", "b"])
    with pytest.raises(ValueError, match="10 statistics"):
        corpus_score("bleu", [1, 2, 3])
    with pytest.raises(ValueError, match="no corpus metric"):
        corpus_score("meteor", [1])
    with pytest.raises(ValueError, match="unknown aggregation"):
        score_function("bleu4")


@pytest.mark.parametrize(("name", "width"), [("bleu", 10), ("chrf++", 24)])
def test_many_scores_at_once_equal_sacrebleus_one_by_one(name, width):
    rng = np.random.default_rng(3)
    metric = CorpusBleu("en") if name == "bleu" else ChrfPP("en")
    words = ["a", "b", "cc", "ddd", "e", ",", "."]
    rows = []
    for _ in range(400):  # short and empty sentences, so that missing orders and zero matches occur
        hypothesis, reference = (" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(2))
        rows.append(metric.statistics(hypothesis, [reference]))
    totals = np.array(rows + [np.sum(rows[i : i + 20], axis=0) for i in range(0, 400, 20)], dtype=float)
    score = score_function(name)
    singly = [score(row) for row in totals.tolist()]
    assert score.many(totals) == pytest.approx(singly, rel=1e-12, abs=1e-12)
    assert 0.0 in singly and max(singly) > 20
    macro = MacroScore(score, width)
    pairs = np.hstack([totals, totals[::-1]])
    pairs[0, :width] = 0  # a block drawn empty
    assert macro.many(pairs) == pytest.approx([macro(row) for row in pairs.tolist()], rel=1e-12, abs=1e-12)


def test_a_missing_tokenizer_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(MissingPrerequisite, match=r"ja-mecab is not installed: pip install .*\[ja\]'"):
        CorpusBleu("ja")


def test_macro_average_is_the_mean_of_the_languages_own_scores():
    rows, groups, own = [], [], []
    for lang in ("de", "zh"):
        metric = CorpusBleu(lang)
        stats = [metric.statistics(h, [r]) for h, r in zip(HYPOTHESES[lang], SENTENCES[lang], strict=True)]
        rows += stats
        groups += [lang] * len(stats)
        own.append(metric.score(np.sum(stats, axis=0)))
    score = MacroScore(score_function("bleu"), width=10)
    assert score(macro_rows(rows, groups).sum(axis=0).tolist()) == pytest.approx(sum(own) / 2, abs=1e-12)
    pooled = corpus_score("bleu", np.sum(rows, axis=0))
    assert abs(pooled - sum(own) / 2) > 0.1
