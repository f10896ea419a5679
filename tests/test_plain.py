"""Text of others, made fit for a terminal, a page and a spreadsheet."""

import json

import pytest

from rba_bench.untrusted import csv_cell, json_safe, plain, printable, visible_text

HARMLESS = [
    "Qwen2.5-7B (8-bit)",
    "Größe 北京 हिन्दी العربية",
    "a_b*c #1, 50 %",
    "model[1]",
    "de nrefs:var|case:mixed|tok:13a",
    "👍🏽",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_names_stay(text):
    assert printable(text) == plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J\x1b]0;x\x07b", "a\ufffd[2J\ufffd]0;x\ufffdb"),
        ("\x9b31mred", "\ufffd31mred"),
        ("a\u202egnp", "a\ufffdgnp"),
        ("a\u2066b\u200bc\u00add", "a\ufffdb\ufffdc\ufffdd"),
        ("a\0b\x7f", "a\ufffdb\ufffd"),
        ("a\ud800", "a\ufffd"),
        ("x\n\n# Fake\r\n\t| a |\u2028b", "x # Fake | a | b"),
        ("tag\U000e0041", "tag\ufffd"),
        ("\u06a9\u200c\u0647 a\u200cb", "\u06a9\u200c\u0647 a\ufffdb"),
    ],
)
def test_what_cannot_be_seen_is_marked(text, shown):
    assert printable(text) == shown


def test_marks_do_not_pile_up():
    assert printable("a" + "\u0301" * 50) == "a" + "\u0301" * 4


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("<img src=x onerror=alert(1)>", "<"),
        ("x](javascript:alert(1)) [y", "(javascript:"),
        ("[a](http://evil)", "]("),
        ("[a][b]", "]["),
        ("![a](data:text/html,x)", "data:"),
        ("JaVaScRiPt:x", "Pt:"),
        ("see https://evil.example", "://"),
        ("see www.evil.example", "www.e"),
        ("a`b", "`"),
        ("<!-- x", "<"),
    ],
)
def test_markup_is_no_markup_any_more(text, gone):
    assert gone in text and gone not in plain(text)


def test_long_text_is_cut():
    assert len(plain("x" * 10_000)) == 200 and plain("x" * 201).endswith("…")


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", "-1+1", "=-1"]
)
def test_a_formula_becomes_text(text):
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize(
    "value", ["-1", "+0.5", "-1e-5", "-3.2 %", "-", "a=b", "", "x@y", -1.5, 3, None, True]
)
def test_a_number_is_no_formula(value):
    assert csv_cell(value) is value


def test_lines_and_json_stay_what_they_are():
    assert visible_text("a  b\n  c\x1b\u202e") == "a  b\n  c\ufffd\ufffd"
    value = {"a": "x\u202e\x9b\ud800\U000e0041 é\n", "b": [1]}
    text = json_safe(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value and text.isprintable() is False and "é" in text
    assert not set(text) & set("\u202e\x9b\ud800\U000e0041")
