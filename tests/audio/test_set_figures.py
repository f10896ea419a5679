"""Figures are small PNGs whose bytes follow from the set, whatever its labels are."""

import dataclasses

import numpy as np
import pytest

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_figures import DARK, LIGHT, draw_figure, figure_files, set_figures
from rba_bench.audio.set_statistics import FilterCount, SetStatistics, read_statistics
from tests.audio.looked_at import make_set

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> SetStatistics:
    folder = make_set(tmp_path_factory.mktemp("figures") / "set")
    found = read_statistics(AlignmentSet.open(folder))
    return dataclasses.replace(
        found, filters=[FilterCount("clips", "kept", 9), FilterCount("clips", "silent", 2, "no sound")]
    )


def test_equal_sets_have_equal_small_figures(statistics: SetStatistics) -> None:
    first, again = (dict(figure_files(set_figures(statistics), dark=True)) for _ in range(2))
    assert first == again and len(first) == 12
    assert {name for name in first if "dark" not in name} == {
        f"{name}.png" for name in ("durations", "topics", "difficulty", "voices", "wer", "filters")
    }
    for content in first.values():
        assert content.startswith(PNG) and len(content) < 60_000
        assert not any(word in content for word in (b"tEXt", b"tIME", b"Software"))
    assert first["wer.png"] != first["wer-dark.png"]


def test_the_numbers_are_there_in_words_too(statistics: SetStatistics) -> None:
    figures = {figure.name: figure for figure in set_figures(statistics)}
    assert "RBA paper, Table 1" in figures["topics"].title
    assert ("advice", 15, "33.3", "18.5") in figures["topics"].rows
    assert ("cem", 15, "0.00", "40.0") in figures["voices"].rows
    assert figures["filters"].summary == "2 were left out, most for: silent 2."
    assert "45 clips; per cent: mean 13.3, median 0.0" in figures["wer"].summary


def test_what_a_set_does_not_have_is_not_drawn(statistics: SetStatistics) -> None:
    unknown = np.full_like(statistics.wer, np.nan)
    labels = {**statistics.labels, "topic": {"": 45}, "difficulty": {"": 45}, "voice": {"": 45}}
    bare = dataclasses.replace(statistics, wer=unknown, seconds=unknown, labels=labels, filters=[])
    assert set_figures(bare) == []


@pytest.mark.parametrize("name", ["$x_{", "voice\nof\u202e", "声" * 60, "\\frac", "<b>"])
@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(statistics: SetStatistics, name: str) -> None:
    labels = {**statistics.labels, "voice": {name: 45}, "topic": {name: 45}}
    codes = np.zeros_like(statistics.voice)
    odd = dataclasses.replace(statistics, labels=labels, voice=codes, topic=codes)
    for figure in set_figures(odd):
        assert draw_figure(figure, LIGHT) != draw_figure(figure, DARK)


def test_thousands_of_voices_are_one_small_figure(statistics: SetStatistics) -> None:
    many = np.repeat(np.arange(2456, dtype=np.int32), 4)
    labels = {**statistics.labels, "voice": {f"v{number}": 4 for number in range(2456)}}
    seconds = np.random.default_rng(0).gamma(4, 1.5, len(many)).astype(np.float32)
    large = dataclasses.replace(
        statistics, labels=labels, voice=many, topic=np.zeros_like(many), seconds=seconds, wer=seconds / 20
    )
    figures = {figure.name: figure for figure in set_figures(large)}
    assert figures["voices"].summary == "2,456 voices with 4 to 4 clips each."
    assert all(len(draw_figure(figure)) < 60_000 for figure in figures.values())
