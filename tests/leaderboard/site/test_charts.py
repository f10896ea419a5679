"""Charts of lines: many lines, long names, changes of several kinds, and texts that keep to their picture."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.site import pictures
from rba_bench.leaderboard.site.facts import in_order
from rba_bench.leaderboard.site.pictures import robustness_charts, training_charts
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import load_settings

sync_api = pytest.importorskip("playwright.sync_api")
CHANGES = ("", "noise=20dB", "noise=10dB", "noise=5dB", "noise=0dB", "noise=-5dB", "speed=1.5", "speed=1.1")


def write_trained(root: Path, count: int, moments: int = 3) -> Path:
    for place in range(count):
        name = f"model-{place:02d}-{'with-a-long-name-' * 3}" if place else "sft"
        history = [[10 * step, 3.0 - step / moments * (1 + place / 40)] for step in range(moments)]
        training = {"method": "sft", "validations": {"metric": "loss", "history": history}}
        model = {"name": name, "spec": name, "weights_sha256": f"{place:064x}", "training": training}
        write_run(root, name, qa_samples(0.3 + place / 60, 24, place), "micro_triviaqa", model=model)
    return root


def write_changed(root: Path, models: int = 3) -> Path:
    for place in range(models):
        name = f"m{place}" if place else "sft"
        for level, change in enumerate(CHANGES):
            spec = {"task": "micro_triviaqa", **({"perturb": {"text": change}} if change else {})}
            answers = qa_samples(0.9 - level / 20 - place / 20, 24, place)
            write_run(
                root, name, answers, "micro_triviaqa", protocol_hash=str(9 - level) * 64, protocol_spec=spec
            )
    return root


@pytest.mark.parametrize(("count", "named", "thin", "left_out"), [(1, 1, 0, 0), (4, 4, 0, 0), (36, 8, 24, 4)])
def test_many_trainings_are_drawn_and_a_few_are_named(
    tmp_path: Path, count: int, named: int, thin: int, left_out: int
) -> None:
    [chart] = training_charts(load_settings(write_trained(tmp_path, count)))
    assert (len(chart.legend), chart.thin, chart.left_out) == (named, thin, left_out)
    assert chart.legend[0][2] == "sft"  # the baseline is always among them
    assert chart.picture.count('<g class="line-') == named
    assert chart.picture.count('<g class="other">') == thin
    assert len(chart.rows) + chart.unlisted == 3 * count


def test_a_long_training_is_drawn_in_as_many_points_as_can_be_seen(tmp_path: Path) -> None:
    [chart] = training_charts(load_settings(write_trained(tmp_path, 1, moments=1000)))
    steps = [float(step) for _, step, _ in chart.rows]
    assert len(steps) == pictures.MOMENTS and steps[0] == 0 and steps[-1] == 9990


def test_changes_of_each_kind_have_a_chart_from_mild_to_strong(tmp_path: Path) -> None:
    noise, speed = robustness_charts(load_settings(write_changed(tmp_path)))
    assert noise.title.startswith("micro_triviaqa, noise=20dB to noise=-5dB")
    assert [step for label, step, _ in noise.rows if label == "sft"] == ["unchanged", *CHANGES[1:6]]
    assert [step for label, step, _ in speed.rows if label == "m1"] == ["unchanged", "speed=1.1", "speed=1.5"]


def test_a_change_of_any_length_leaves_room_for_the_lines(tmp_path: Path) -> None:
    for level, change in enumerate(("", "telephone," * 19 + "gain=3dB")):
        spec = {"task": "micro_triviaqa", **({"perturb": {"text": change}} if change else {})}
        for name in ("sft", "a"):
            answers = qa_samples(0.6, 24)
            write_run(
                tmp_path, name, answers, "micro_triviaqa", protocol_hash=str(level) * 64, protocol_spec=spec
            )
    [chart] = robustness_charts(load_settings(tmp_path))
    [*_, corners] = re.findall(r'points="([^"]+)"', chart.picture)
    first, last = (float(pair.split(",")[0]) for pair in corners.split())
    assert last - first > 250 and ">telephone,telephone…<" in chart.picture


def test_clips_as_they_are_come_before_changed_ones(tmp_path: Path) -> None:
    settings = in_order(load_settings(write_changed(tmp_path)))
    assert [each.group.perturbation for each in settings] == [*CHANGES[:6], "speed=1.1", "speed=1.5"]


def test_texts_keep_to_their_picture_and_off_each_other(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    write_trained(tmp_path / "runs" / "a", 12)
    write_changed(tmp_path / "runs" / "b", 2)
    out = build_board([tmp_path / "runs" / "b"], tmp_path / "changed").out
    trained = build_board([tmp_path / "runs" / "a"], tmp_path / "trained").out
    for board, width in ((out, 400), (out, 1400), (trained, 400), (trained, 1400)):
        page = open_page((board / "index.html").as_uri(), viewport={"width": width, "height": 900})
        faults = page.evaluate(
            """() => [...document.querySelectorAll('.panels.wide svg.figure')].flatMap((svg) => {
              const frame = svg.getBoundingClientRect();
              const box = (text) => [text.textContent, text.getBoundingClientRect()];
              const texts = [...svg.querySelectorAll('text')].map(box);
              const out = texts.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1 ||
                box.bottom > frame.bottom + 1).map(([text]) => 'out: ' + text);
              const over = texts.flatMap(([a, x], i) => texts.slice(0, i).filter(([b, y]) => x.left < y.right - 1 &&
                y.left < x.right - 1 && x.top + 3 < y.bottom && y.top + 3 < x.bottom).map(([b]) => a + ' over ' + b));
              return [...out, ...over];
            })"""
        )
        assert faults == []
        assert page.locator(".panels.wide svg.figure").count() > 0
