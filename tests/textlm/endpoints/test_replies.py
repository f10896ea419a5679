"""What servers put into a reply: text is kept and cleaned, what cannot be true is left out, the rest has a reason."""

import json
import math
from typing import Any

import pytest

from rba_bench.textlm.endpoints.replies import (
    TEXT_CHARACTERS,
    ServerAnswer,
    Unusable,
    clean_text,
    parse_answer,
    parse_body,
)


def reply(message: Any = None, **more: Any) -> dict[str, Any]:
    said = {"content": "yes"} if message is None else message
    return {"choices": [{"message": said, "finish_reason": "stop", **more.pop("choice", {})}], **more}


def first_token(*rows: Any) -> dict[str, Any]:
    return reply(choice={"logprobs": {"content": [{"token": "a", "top_logprobs": list(rows)}]}})


def read(text: str) -> ServerAnswer:
    """Through the text form, as it comes from the network."""
    return parse_answer(parse_body(text.encode("utf-8", "surrogatepass")), "chat")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain \t text\nin lines\r\n", "plain \t text\nin lines\r\n"),
        ("half \ud83d", "half \ufffd"),
        ("\udc4d half", "\ufffd half"),
        ("the wrong way round \udc4d\ud83d", "the wrong way round \ufffd\ufffd"),
        ("both halves \ud83d\udc4d", "both halves 👍"),
        ("whole 👍", "whole 👍"),
        ("a\0b\x1b[31mc\x7f\x85d", "a\ufffdb\ufffd[31mc\ufffd\ufffdd"),
        ("ภาษาไทย हिन्दी العَرَبِيَّة", "ภาษาไทย हिन्दी العَرَبِيَّة"),
    ],
)
def test_text_is_kept_and_what_no_file_can_hold_becomes_the_replacement_character(
    text: str, kept: str
) -> None:
    assert clean_text(text) == kept
    kept.encode("utf-8")
    assert read(json.dumps(reply({"content": f"<{text}>"}))).text == f"<{kept}>"


@pytest.mark.parametrize(
    ("message", "text", "refused"),
    [
        ({"content": "yes", "audio": {"transcript": "no"}}, "yes", ""),
        ({"content": None, "audio": {"data": "AAAA", "transcript": " spoken \ud83d"}}, "spoken \ufffd", ""),
        ({"audio": {"transcript": 7}}, "", ""),
        ({"content": None, "audio": "AAAA"}, "", ""),
        ({"content": None, "refusal": "i will not"}, "i will not", "refused by the model"),
        ({"content": [{"type": "text", "text": "in "}, {"text": "parts"}, "x", {"text": 3}]}, "in parts", ""),
        ({"content": ["in ", "strings"]}, "in strings", ""),
        ({"content": []}, "", ""),
        ({"content": "yes", "reasoning_content": ["?"], "reasoning": {}}, "yes", ""),
    ],
)
def test_the_answer_is_found_wherever_it_stands(message: dict[str, Any], text: str, refused: str) -> None:
    answer = read(json.dumps(reply(message)))
    assert (answer.text, answer.refused) == (text, refused)


def test_thinking_that_is_told_apart_is_kept_apart() -> None:
    assert parse_answer(reply({"content": "b", "reasoning_content": "a\0"}), "chat").reasoning == "a\ufffd"
    assert parse_answer(reply({"content": "b", "reasoning": "a"}), "chat").reasoning == "a"
    assert parse_answer(reply({"content": "b"}), "chat").reasoning == ""


@pytest.mark.parametrize(
    "value",
    ["1000", "1e400", "Infinity", "NaN", "null", '"-0.1"', "true", "[]", "9" * 400, "9" * 5000, "0.1"],
)
def test_odds_that_cannot_be_are_none_and_the_answer_stays(value: str) -> None:
    text = json.dumps(first_token({"token": "m", "logprob": "HERE"}, {"token": "M", "logprob": -1.0}))
    answer = read(text.replace('"HERE"', value))
    assert (answer.text, answer.logprobs) == ("yes", ())


def test_odds_of_more_than_one_in_all_are_none() -> None:
    certain = [{"token": token, "logprob": -0.001} for token in "mM"]
    assert parse_answer(first_token(*certain), "chat").logprobs == ()


def test_odds_that_can_be_are_sorted_and_a_token_without_a_chance_is_left_out() -> None:
    rows = [
        {"token": "x", "logprob": -9999.0},
        {"token": "\ud83d", "logprob": -5},
        {"token": "m", "logprob": 0.0004},  # rounded up by a server that computes in 16 bits
    ]
    text = json.dumps(first_token(*rows, {"token": "M", "logprob": -math.inf}))
    assert read(text).logprobs == (("m", 0.0), ("\ufffd", -5.0), ("x", -9999.0))


@pytest.mark.parametrize(
    "logprobs", [None, [], "x", {"content": None}, {"content": [None]}, {"content": [{}]}]
)
def test_odds_of_another_form_are_none(logprobs: object) -> None:
    assert parse_answer(reply(choice={"logprobs": logprobs}), "chat").logprobs == ()


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ('{"prompt_tokens": 7, "completion_tokens": 3}', (7, 3)),
        ('{"prompt_tokens": -7, "completion_tokens": 1e3}', (0, 0)),
        ('{"prompt_tokens": "7", "completion_tokens": true}', (0, 0)),
        ('{"prompt_tokens": %s, "completion_tokens": 3}' % ("9" * 5000), (0, 3)),
        ('{"prompt_tokens": 99999999999, "completion_tokens": null}', (0, 0)),
        ("[]", (0, 0)),
        ("NaN", (0, 0)),
    ],
)
def test_counts_that_cannot_be_are_not_told(usage: str, counts: tuple[int, int]) -> None:
    answer = read(json.dumps(reply(usage="HERE")).replace('"HERE"', usage))
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("yes", *counts)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "holds no choices"),
        ({"choices": {}}, "holds no choices"),
        ({"choices": "x"}, "holds no choices"),
        ({"choices": None, "error": {"message": "no\0 worker"}}, "holds no choices: no\ufffd worker"),
        ({"choices": [{"message": "yes"}]}, "holds no choices"),
        (reply({"content": 5}), "is no text"),
        (reply({"content": {"text": "yes"}}), "is no text"),
        (reply({"content": "x" * (TEXT_CHARACTERS + 1)}), "longer than 1,000,000 characters"),
        (["yes"], "no JSON object"),
        ("yes", "no JSON object"),
        (None, "no JSON object"),
    ],
)
def test_what_holds_no_answer_has_a_reason(body: object, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        parse_answer(body, "chat")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON$"),
        (b"not json", "not JSON$"),
        (b'{"choices": [', "not JSON$"),
        (b"\n<!DOCTYPE html><html>log in</html>", r"not JSON \(it is a web page\)"),
        (b"[" * 150_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"[" + b"[]," * 300_000 + b"0]", "more than 200,000 parts"),
        (b"\xff\xfe\x00{", "not JSON"),
        (b"\x00\x00\x00", "not JSON"),
    ],
)
def test_what_is_no_json_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        parse_body(data)


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ('"über"'.encode(), None, "über"),
        ('"über"'.encode(), "latin-1", "über"),  # JSON is UTF-8, whatever the header says
        ('"über"'.encode("latin-1"), "iso-8859-1", "über"),
        ('"über"'.encode("latin-1"), None, "\ufffdber"),
        ('"über"'.encode("latin-1"), "no-such-thing", "\ufffdber"),
        ('"über"'.encode("latin-1"), "zlib", "\ufffdber"),  # a codec, but not of text
        ('"über"'.encode("latin-1"), "idna", "\ufffdber"),
        ('"über"'.encode("latin-1"), "punycode", "\ufffdber"),
        ('"über"'.encode("cp1252"), "Windows-1252", "über"),
        ('"中文"'.encode("gb18030"), "gb18030", "中文"),
        ('"über"'.encode("utf-16"), None, "über"),
        ('"über"'.encode("utf-8-sig"), None, "über"),
        (b'"cut in a letter \xe4\xb8"', "utf-8", "cut in a letter \ufffd"),
    ],
)
def test_bytes_become_text_whatever_the_header_says(data: bytes, charset: str | None, text: str) -> None:
    assert parse_body(data, charset) == text


def test_of_two_equal_keys_the_last_one_counts() -> None:
    assert read('{"choices": [], "choices": [{"message": {"content": "a", "content": "b"}}]}').text == "b"


def test_reports_are_bounded_text_or_nothing() -> None:
    answer = parse_answer(reply(model="m\x1b" + "x" * 999, system_fingerprint=["fp"]), "chat")
    assert answer.reports == {"model": "m\ufffd" + "x" * 198}
    assert parse_answer(reply(model=" "), "chat").reports == {}
