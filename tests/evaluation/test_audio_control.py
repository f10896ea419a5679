"""Controls without the speech: how they are named, what they play, and which clips they exchange."""

import random

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.audio_control import (
    ClipFacts,
    exchange_clips,
    facts_of,
    parse_audio_control,
    recorded_control,
    requested_control,
)

WAVE = (0.3 * np.sin(np.arange(32_000) * 0.05)).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("silence", "silence"),
        (" Shuffle ", "shuffle"),
        ("first=1s", "first=1s"),
        ("first = 01.50", "first=1.5s"),
        ("FIRST=.25S", "first=0.25s"),
        ("first=0.123456789s", "first=0.123456789s"),
    ],
)
def test_a_control_has_one_canonical_form_that_reads_back(text, canonical):
    control = parse_audio_control(text)
    assert control.text == canonical and parse_audio_control(control.text) == control


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("silent", "did you mean silence"),
        ("mute", "known: silence, shuffle, first=<seconds>"),
        ("silence,first=1s", "unknown audio control"),
        ("silence=3", "takes no value"),
        ("first", "want first=<seconds>"),
        ("first=", "want first=<seconds>"),
        ("first=-1s", "want first=<seconds>"),
        ("first=1e3", "want first=<seconds>"),
        ("first=nan", "want first=<seconds>"),
        ("first=0", "out of range"),
        ("first=0.05s", "out of range"),
        ("first=99999s", "out of range"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, said):
    with pytest.raises(UserError) as refused:
        parse_audio_control(text)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_silence_is_as_long_as_the_clip_and_first_is_its_beginning():
    silence = parse_audio_control("silence").apply(WAVE)
    assert silence.shape == WAVE.shape and silence.dtype == np.float32 and not silence.any()
    np.testing.assert_array_equal(parse_audio_control("first=0.5s").apply(WAVE), WAVE[:8000])
    np.testing.assert_array_equal(parse_audio_control("first=9s").apply(WAVE), WAVE)
    np.testing.assert_array_equal(parse_audio_control("shuffle").apply(WAVE), WAVE)
    assert (
        parse_audio_control("first=0.5s").length(2.0) == 0.5
        and parse_audio_control("silence").length(2.0) == 2.0
    )


def test_only_where_sound_is_left_it_can_be_perturbed_too():
    assert requested_control("") is None
    assert requested_control("first=1s", "noise=10dB") == parse_audio_control("first=1s")
    assert requested_control("shuffle", "noise=10dB") == parse_audio_control("shuffle")
    with pytest.raises(UserError, match="no sound that could be changed"):
        requested_control("silence", "noise=10dB")


@pytest.mark.parametrize(
    "entry",
    [
        "silence",
        {"text": "silence"},
        {"text": "silence", "version": 99},
        {"text": "SILENCE", "version": 1},
        {"text": 7},
    ],
)
def test_a_record_whose_control_is_not_written_as_here_is_not_understood(entry):
    with pytest.raises(UserError):
        recorded_control({"audio": entry})
    assert recorded_control({}) is None


def made_up(rng: random.Random, n: int, languages: int = 1) -> list[ClipFacts]:
    """Items of which some share a clip, words or a cluster."""
    return [
        ClipFacts(
            f"clip {rng.randrange(8 * n)}",
            f"cluster {rng.randrange(8 * n)}",
            rng.choice(["", f"words {rng.randrange(8 * n)}"]),
            f"language {rng.randrange(languages)}",
        )
        for _ in range(n)
    ]


def linked(items: list[ClipFacts], position: int) -> set[int]:
    """Whoever shares anything with an item, or with one that does; by repetition, as an independent check."""
    members = {position}
    while True:
        shared = {mark for i in members for mark in enumerate(items[i][:3]) if mark[1]}
        more = {i for i, item in enumerate(items) if shared & set(enumerate(item[:3]))}
        if more <= members:
            return members
        members |= more


@pytest.mark.parametrize("seed", range(12))
def test_every_clip_is_played_once_and_never_to_its_own_kind(seed):
    items = made_up(random.Random(seed), 3 + 9 * seed, languages=1 + seed % 3)
    classes = [linked(items, position) for position in range(len(items))]
    if max(map(len, classes)) > len(items) / 2:
        with pytest.raises(UserError, match="say the same"):
            exchange_clips(items, "task")
        return
    donors = exchange_clips(items, "task")
    assert sorted(donors) == list(range(len(items)))
    assert not any(donor in classes[position] for position, donor in enumerate(donors))
    assert donors == exchange_clips(items, "another name")


def item(number: int, language: str = "en", cluster: str = "") -> ClipFacts:
    return ClipFacts(f"clip {number}", cluster or f"cluster {number}", f"words {number}", language)


def test_one_text_written_in_two_ways_is_one_text():
    documents = [
        {
            "audio": {"sha256": f"clip {n}"},
            "cluster": f"cluster {n}",
            "instruction": text,
            "source_lang": "en",
        }
        for n, text in enumerate(("Who is it?", "who is it", "What is it?", "Where is it?"))
    ]
    donors = exchange_clips(facts_of(documents), "task")
    assert sorted(donors) == [0, 1, 2, 3] and {donors[0], donors[1]} == {2, 3}


def test_the_language_stays_where_each_has_enough_to_exchange():
    items = [item(number, "en" if number % 3 else "de") for number in range(30)]
    assert all(items[i].language == items[j].language for i, j in enumerate(exchange_clips(items, "task")))


def test_a_language_with_one_item_gets_a_clip_of_another_language():
    items = [item(number) for number in range(5)] + [item(5, "de")]
    donors = exchange_clips(items, "task")
    assert sorted(donors) == list(range(6)) and donors[5] != 5


def test_half_of_one_kind_can_be_exchanged_and_more_cannot():
    half = [item(number, cluster="same" if number < 4 else "") for number in range(8)]
    donors = exchange_clips(half, "task")
    assert all(donors[position] >= 4 for position in range(4))
    with pytest.raises(UserError, match="task: 4 of 7 items say the same"):
        exchange_clips(half[:7], "task")
    with pytest.raises(UserError, match="1 of 1 items"):
        exchange_clips([item(0)], "task")


def test_neighbours_in_the_test_set_are_not_neighbours_in_the_exchange():
    """A turn by one place would give each item the clip beside it, which may be of the same speaker or topic."""
    donors = exchange_clips([item(number) for number in range(200)], "task")
    assert sum(abs(position - donor) <= 2 for position, donor in enumerate(donors)) < 12


def test_one_language_that_cannot_exchange_leaves_the_others_as_they_are():
    """Its items get clips of the smallest language that has room for them; all other languages keep to themselves."""
    many = [item(number, "en") for number in range(12)] + [item(12 + number, "fr") for number in range(6)]
    alone = [item(20, "de"), item(21, "it", cluster="same"), item(22, "it", cluster="same")]
    items = many + alone
    donors = exchange_clips(items, "task")
    assert sorted(donors) == list(range(len(items)))
    assert all(items[donor].language == "en" for donor in donors[:12])
    assert all(items[donor].language != "it" for donor in donors[-2:]) and donors[18] != 18


def test_voices_of_one_text_get_the_voices_of_another_text():
    items = [
        ClipFacts(f"clip {text} {voice}", f"cluster {text}", f"words {text}", "en")
        for text in range(7)
        for voice in range(4)
    ]
    donors = exchange_clips(items, "task")
    texts = [{donor // 4 for donor in donors[4 * text : 4 * text + 4]} for text in range(7)]
    assert all(len(each) == 1 for each in texts) and all(text not in each for text, each in enumerate(texts))


@pytest.mark.parametrize("text", ["first=1 s", "first=1", "FIRST=1.0S", "first=٠٠١s"])
def test_ways_to_write_a_second_make_one_run(text):
    assert parse_audio_control(text) == parse_audio_control("first=1s")
