"""The world generates, parses and grades the same language."""

import random
from collections import Counter

import pytest

from rba_bench.micro import world
from rba_bench.micro.world import translation as tr


@pytest.fixture
def items() -> list[world.WorldItem]:
    rng = random.Random(3)
    return [world.sample_item(rng, split=("train", "test")[i % 2], usable=i % 10 > 0) for i in range(600)]


def test_every_sampled_answer_is_graded_valid(items: list[world.WorldItem]) -> None:
    rng = random.Random(4)
    for item in items:
        answer = world.sample_answer(rng, item)
        assert world.grade(item, answer) == world.Grade(1.0, True, "one of the valid answers"), (item, answer)


def test_parse_recovers_what_was_asked(items: list[world.WorldItem]) -> None:
    for item in items:
        found = world.parse(item.user_text)
        assert found is not None, item.user_text
        assert (found.kind, found.intent, found.instruction, found.prompt) == (
            item.kind,
            item.intent,
            item.instruction,
            item.prompt,
        )
        answer = world.sample_answer(random.Random(1), item)
        assert world.grade(found, answer).valid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "tell me about the zebra",
        "translate german to english : der rote",
        "compare the fox and the fox",
    ],
)
def test_other_text_is_not_recognised(text: str) -> None:
    assert world.parse(text) is None


def test_damaged_answers_score_at_most_half(items: list[world.WorldItem]) -> None:
    from rba_bench.micro.build.text_models import damage

    rng = random.Random(5)
    scores = []
    for item in items:
        worse = damage(rng, item, world.sample_answer(rng, item))
        grade = world.grade(item, worse)
        if not grade.valid:
            scores.append(grade.score)
    assert len(scores) > 400
    assert max(scores) <= 0.5
    assert len(set(scores)) > 20, "partial credit should tell near misses from nonsense"


def test_the_judge_knows_several_wordings_but_not_repetition() -> None:
    item = world.parse("give me three ideas for a rainy day")
    assert item is not None
    assert world.grade(item, "you could play chess or read a novel or watch a film").valid
    assert world.grade(item, "maybe read a novel or play chess and if there is time make hot soup").valid
    assert not world.grade(item, "you could play chess or play chess or watch a film").valid
    assert not world.grade(item, "you could visit a castle or read a novel or watch a film").valid
    assert world.grade(item, "").score == 0.0


def test_topics_are_the_papers_and_evenly_drawn() -> None:
    rng = random.Random(6)
    counts = Counter(world.sample_item(rng, kind="instruct").topic for _ in range(1600))
    assert set(counts) == set(world.TOPICS)
    assert len(world.TOPICS) == 8
    assert min(counts.values()) > 140


def test_splits_do_not_overlap_and_qa_has_aliases() -> None:
    rng = random.Random(7)
    train = {world.sample_item(rng, kind="qa", split="train").user_text for _ in range(1500)}
    test = {world.sample_item(rng, kind="qa", split="test").user_text for _ in range(500)}
    assert not train & test
    item = world.parse("who wrote the book silent winter")
    assert item is not None
    assert world.references(item) == ["martin holloway", "holloway"]
    assert item.source == "triviaqa"


@pytest.mark.parametrize("language", tr.LANGUAGES)
@pytest.mark.parametrize("domain", ["covost2", "fleurs"])
def test_sentences_survive_the_way_through_a_language(language: str, domain: str) -> None:
    rng = random.Random(8)
    for _ in range(200):
        sentence = tr.sample_sentence(rng, domain)
        for wording in tr.wordings(sentence, language):
            assert tr.parse_sentence(wording, language) == sentence


def test_german_agrees_and_inverts() -> None:
    sentence = tr.Sentence("dog", "small", "", "see", "ball", "red", "today")
    assert tr.wordings(sentence, "de") == (
        "der kleine hund sieht heute den roten ball",
        "heute sieht der kleine hund den roten ball",
    )
    assert tr.wordings(sentence, "fr")[0] == "le petit chien voit le ballon rouge aujourd'hui"
    assert tr.wordings(sentence, "es")[0] == "el perro pequeño ve el balón rojo hoy"
