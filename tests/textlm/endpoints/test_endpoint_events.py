"""Streams of events, cut anywhere: the answer that comes out is that of an unstreamed reply."""

import json
from typing import Any

import pytest

from rba_bench.textlm.endpoints.http import LINE_BYTES, BrokenOff, Events
from rba_bench.textlm.endpoints.replies import TEXT_CHARACTERS, ServerAnswer, Unusable, parse_answer


def piece(finish: str | None = None, choice: dict[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}],
    }


def wire(*pieces: Any, end: str = "\n\n", done: bool = True) -> bytes:
    lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}{end}" for one in pieces]
    return ("".join(lines) + (f"data: [DONE]{end}" if done else "")).encode()


def read(data: bytes, step: int = 10**9, route: Any = "chat") -> ServerAnswer:
    events = Events()
    for start in range(0, len(data), step):
        events.feed(data[start : start + step])
    return parse_answer(events.body(), route)


ODDS = {"content": [{"token": "in", "logprob": -0.1, "top_logprobs": [{"token": "in", "logprob": -0.1}]}]}
LATER = {"content": [{"token": "x", "logprob": 0, "top_logprobs": [{"token": "x", "logprob": 0}]}]}
WHOLE = [
    piece(role="assistant", content=None),
    piece(content="in ", choice={"logprobs": ODDS}),
    piece(content="pieces \ud83d", choice={"logprobs": LATER}),
    {"choices": [{"index": 1, "delta": {"content": "of another choice"}}]},
    piece(content="\udc4d", reasoning_content="hm"),
    piece(finish="length"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}, "system_fingerprint": "fp"},
]


@pytest.mark.parametrize("step", [1, 7, 64, 10**9])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r", "\n: keep alive\n\nevent: x\nid: 3\n\n"])
def test_the_pieces_make_the_answer_wherever_the_bytes_are_cut(step: int, end: str) -> None:
    answer = read(b": first a remark\n\n" + wire(*WHOLE, end=end), step)
    assert (answer.text, answer.finish, answer.reasoning) == ("in pieces 👍", "length", "hm")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.logprobs) == (7, 4, (("in", -0.1),))
    assert answer.reports == {"model": "m", "system_fingerprint": "fp"}


def test_spoken_answers_refusals_and_raw_completions_are_put_together_too() -> None:
    spoken = [piece(audio={"data": "AAAA", "transcript": word}) for word in ("spo", "ken")]
    assert read(wire(*spoken, piece("stop"))).text == "spoken"
    refused = read(wire(piece(refusal="i will "), piece("stop", refusal="not")))
    assert (refused.text, refused.refused) == ("i will not", "refused by the model")
    raw = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("go ", "on")]
    assert read(wire(*raw), route="completion").text == "go on"


def test_thinking_in_pieces_is_kept_apart() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
        {"type": "text", "text": "a "},
    ]
    whole = wire(piece(content=parts), piece(content=[{"text": "word"}]), piece(thinking="m"), piece("stop"))
    answer = read(whole)
    assert (answer.text, answer.reasoning) == ("a word", "h")
    assert (
        read(wire(piece(reasoning="h"), piece(reasoning="m"), piece("stop", content="a"))).reasoning == "hm"
    )


def test_an_event_over_several_lines_is_one_and_what_follows_the_end_is_not_read() -> None:
    lines = (
        b'data: {"choices": [{"delta":\ndata:{"content": "two lines"}}]}\n\ndata: [DONE]\n\ndata: rubbish\n\n'
    )
    assert read(lines).text == "two lines"


def test_an_end_is_said_by_the_last_piece_or_by_the_mark() -> None:
    assert read(wire(piece(content="a"), piece("stop"), done=False)).text == "a"
    assert read(wire(piece(content="a"))).text == "a"
    assert read(wire(piece("stop", content="a"), done=False).rstrip()).text == "a"
    with pytest.raises(BrokenOff, match="broke off"):
        read(wire(piece(content="half an ans"), done=False))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire("{"), "not JSON"),
        (wire("[1]"), "no JSON object"),
        (wire(piece(content="a"), {"error": {"message": "out of memory"}}), "broke off: out of memory"),
        (wire(piece(content="a"), {"error": True}), "an error of the server"),
        (wire(), "no choices"),
        (b"", "no choices"),
        (wire({"choices": None}), "no choices"),
        (wire("[" * 100_000), "nested too deeply"),
        (b"data: " + b"x" * (LINE_BYTES + 1), "longer than"),
        (b"data: xxxxxxx\n" * (LINE_BYTES // 7 + 1), "longer than"),
    ],
)
def test_pieces_that_cannot_be_read_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read(data, 2**16)


def test_an_answer_without_end_is_given_up() -> None:
    events, part = Events(), wire(piece(content="x" * 10_000), done=False)
    with pytest.raises(Unusable, match="longer than 1,000,000 characters"):
        for _ in range(2 * TEXT_CHARACTERS // 10_000 + 1):
            events.feed(part)


def test_of_several_choices_in_one_piece_the_first_one_by_its_number_counts() -> None:
    both = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}
    assert read(wire(both, piece(finish="stop"))).text == "a"
