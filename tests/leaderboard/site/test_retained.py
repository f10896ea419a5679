"""What remains of scores without the speech, on the front page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.plan import protocol_hash
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.site.facts import models_of, setting_data
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import load_settings

sync_api = pytest.importorskip("playwright.sync_api")
SPEC: dict[str, Any] = {"task": "micro_triviaqa"}


def write_controlled(root: Path) -> Path:
    """One model that loses half of its score in silence, and one that was not tried."""
    for name, control, skill in (("sft", "", 0.8), ("sft", "silence", 0.4), ("other", "", 0.6)):
        spec = {**SPEC, "audio": {"text": control, "version": 1}} if control else SPEC
        folder = root / (control or "full")
        write_run(
            folder,
            name,
            qa_samples(skill, 80),
            "micro_triviaqa",
            protocol_hash=protocol_hash(spec),
            protocol_spec=spec,
        )
    return root


def test_the_share_stands_beside_the_score_and_the_control_is_no_row(tmp_path: Path) -> None:
    [setting] = load_settings(write_controlled(tmp_path))
    models = models_of([setting])
    rows = {row["model"]: row for row in setting_data(setting, models)["rows"]}
    labels = [model.label for model in models]
    share = next(row for row in setting.group.rows if row.label == "sft").retained["silence"][
        setting.group.primary
    ]
    shown = rows[labels.index("sft")]["retained"]["silence"]
    assert labels == ["other", "sft"] and rows[labels.index("other")]["retained"] == {}
    assert (
        shown == [round(100 * end, 1) for end in (share.value, share.low, share.high)] and 40 < shown[0] < 60
    )


def test_the_page_has_a_column_per_control(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    out = build_board([write_controlled(tmp_path / "runs")], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri())
    heading = page.get_by_role("button", name="retained, silence")
    sync_api.expect(heading).to_be_visible()
    row = page.locator("#board tbody tr", has_text="sft")
    assert " %" in row.locator("td").nth(4).text_content()
    assert "as a share of its score" in page.locator("dl").text_content()
