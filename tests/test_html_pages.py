"""What somebody else wrote stays text in a page, and a policy names what may run."""

import base64
import hashlib
import json

import pytest
from jinja2 import UndefinedError

from rba_bench.html_pages import page_part, render_template, script_json, source_hash


def test_texts_are_escaped_and_what_is_hidden_is_seen() -> None:
    page = render_template("<p>{{ text }}</p> {{ n }}", text="<script>\u202e", n=3)
    assert page.startswith("<p>&lt;script&gt;") and "\u202e" not in page and page.endswith("</p> 3")


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render_template("{{ absent }}")


def test_data_of_a_script_cannot_end_it() -> None:
    value = {"text": "</script><!--\u2028&", "rates": [float("nan"), (float("inf"), 0.5)]}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"text": value["text"], "rates": [None, [None, 0.5]]}


def test_a_policy_names_a_source_by_its_hash() -> None:
    digest = hashlib.sha256(b"a{}").digest()
    assert source_hash("a{}") == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_parts_have_one_kind_of_line_ends() -> None:
    for package in (
        "rba_bench.leaderboard.site",
        "rba_bench.synthesis.inspection",
        "rba_bench.training.report",
    ):
        style = page_part(package, "samples.css" if package.endswith("site") else "page.css")
        assert style and "\r" not in style
