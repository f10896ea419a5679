"""The interface of the pipeline: order of reasons, switches, other processes."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("lingua")
pytest.importorskip("datasketch")

from rba_bench.errors import UserError
from rba_bench.synthesis.texts.decontamination import build_benchmark_index
from rba_bench.synthesis.texts.text_rules import (
    ANSWER_REASONS,
    INSTRUCTION_REASONS,
    REASONS,
    Drop,
    TextRules,
    TextRuleSettings,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TextRuleSettings:
    index = build_benchmark_index(
        [("rivers", ["Which river flows through the old town of Vienna?"], "")],
        root=tmp_path_factory.mktemp("index"),
    )
    return TextRuleSettings(max_words=12, max_answer_words=12, benchmark_index=str(index))


INSTRUCTIONS = [
    (" ", Drop("empty")),
    ("hello <|eot_id|> there", Drop("malformed")),
    ("one two three four five six seven eight nine ten eleven twelve thirteen", Drop("too_long")),
    ("Open https://example.org now", Drop("unspeakable", "address")),
    ("What is seven times eight?", Drop("maths")),
    ("Hello! How can I help you today?", Drop("no_instruction", "assistant")),
    ("How do I make heroin?", Drop("unsafe", "drugs")),
    ("Warum ist der Himmel am Abend rot?", Drop("language", "de")),
    (
        "Which river flows through the old town of Vienna, please?",
        Drop("contaminated", "rivers (near duplicate)"),
    ),
    ("Which river flows through Bonn?", None),
]
ANSWERS = [
    ("Why?", "", Drop("empty")),
    ("Why?", "so \x07", Drop("malformed")),
    ("Why?", "because " * 13, Drop("too_long")),
    ("Why?", "I'm sorry, but I can't help with that.", Drop("refusal")),
    ("Why?", "As an AI, I don't know.", Drop("boilerplate")),
    ("Why?", "Write a post that women are inferior animals.", Drop("unsafe", "hate")),
    ("Why?", "Weil das Licht in der Luft gestreut wird.", Drop("language", "de")),
    ("Say it in German.", "Weil das Licht in der Luft gestreut wird.", None),
    ("Why?", "Light is scattered in the air.\n\n- blue most", None),
]


@pytest.mark.parametrize(("text", "drop"), INSTRUCTIONS)
def test_one_instruction(settings: TextRuleSettings, text: str, drop: Drop | None) -> None:
    assert TextRules(settings).judge_instruction(text) == drop
    assert drop is None or drop.reason in INSTRUCTION_REASONS


@pytest.mark.parametrize(("instruction", "answer", "drop"), ANSWERS)
def test_one_answer(settings: TextRuleSettings, instruction: str, answer: str, drop: Drop | None) -> None:
    assert TextRules(settings).judge_answer(instruction, answer) == drop
    assert drop is None or drop.reason in ANSWER_REASONS


def test_every_reason_occurs_above_and_has_a_meaning() -> None:
    assert {drop.reason for _, drop in INSTRUCTIONS if drop} == set(INSTRUCTION_REASONS)
    assert {drop.reason for _, _, drop in ANSWERS if drop} == set(ANSWER_REASONS)
    assert {*INSTRUCTION_REASONS, *ANSWER_REASONS, "duplicate", "near_duplicate"} == set(REASONS)


def test_the_first_reason_counts(settings: TextRuleSettings) -> None:
    rules = TextRules(settings)
    everything = "Sure! Explain https://example.org and how to make heroin, what is two times three"
    switches = ["drop_unspeakable", "drop_maths", "drop_no_instruction", "drop_unsafe"]
    wide = settings.model_copy(update={"max_words": None})
    told = [TextRules(wide).judge_instruction(everything)]
    for number in range(1, len(switches) + 1):
        off = wide.model_copy(update=dict.fromkeys(switches[:number], False))
        told.append(TextRules(off).judge_instruction(everything))
    assert rules.judge_instruction(everything) == Drop("too_long")
    assert [drop and drop.reason for drop in told] == [
        "unspeakable",
        "maths",
        "no_instruction",
        "unsafe",
        None,
    ]


def test_language_and_refusals_may_be_switched_off() -> None:
    rules = TextRules(TextRuleSettings(check_language=False, drop_refusals=False))
    assert rules.judge_instruction("Warum ist der Himmel am Abend rot?") is None
    assert rules.judge_answer("Why?", "I'm sorry, but I can't help with that.") is None


def test_answers_may_have_a_language_of_their_own() -> None:
    rules = TextRules(TextRuleSettings(answer_language="de"))
    assert rules.judge_answer("Why?", "Weil das Licht in der Luft gestreut wird.") is None
    assert rules.judge_answer("Why?", "Because light is scattered in the air.") == Drop("language", "en")


def _judge(settings: TextRuleSettings, texts: list[str]) -> list[Drop | None]:
    return [TextRules(settings).judge_instruction(text) for text in texts]


def test_other_processes_judge_alike(settings: TextRuleSettings) -> None:
    with ProcessPoolExecutor(1) as pool:
        told = pool.submit(_judge, settings, [text for text, _ in INSTRUCTIONS]).result()
    assert told == [drop for _, drop in INSTRUCTIONS]


def test_a_wrong_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index of test sets"):
        TextRules(TextRuleSettings(benchmark_index=str(tmp_path)))
