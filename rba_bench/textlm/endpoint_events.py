"""Answers that come in pieces: server-sent events put together into the body that an unstreamed answer has.

Format: WHATWG HTML, "Server-sent events"; what the pieces hold: OpenAI's `chat.completion.chunk`.
"""

import re
from collections.abc import Mapping
from typing import Any

from rba_bench.textlm.endpoint_replies import (
    REASONING,
    TEXT_CHARACTERS,
    Unusable,
    message_of,
    read_json,
    text_of,
)

LINE_BYTES = 2**20  # one event; pieces of text have some hundred bytes
DONE = b"[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_TEXTS = ("content", "refusal", *REASONING)


class BrokenOff(Unusable):
    """The stream ended before the answer did."""


class Events:
    """Puts an answer together from the bytes of its stream. Spoken pieces are dropped, their transcript is kept.

    Raises:
        Unusable: A piece cannot be read, is too long, or is an error.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._texts: dict[str, list[str]] = {}
        self._characters = 0
        self._choice: dict[str, Any] = {}
        self._body: dict[str, Any] = {}
        self._pieces = 0
        self._done = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes, cut anywhere."""
        whole = self._rest + chunk
        open_end = whole[-1:] if whole.endswith(b"\r") else b""  # a line feed may follow
        *lines, self._rest = _LINE_END.split(whole.removesuffix(open_end))
        self._rest += open_end
        if len(self._rest) > LINE_BYTES:
            raise Unusable(f"a piece of the answer is longer than {LINE_BYTES:,} bytes")
        for line in lines:
            self._line(line)

    def body(self) -> dict[str, Any]:
        """The whole answer, as JSON of an unstreamed one.

        Raises:
            BrokenOff: The stream ended in the middle.
        """
        if self._rest:
            self._line(self._rest.removesuffix(b"\r"))
            self._rest = b""
        self._dispatch()
        if not self._pieces:
            raise Unusable("the answer holds no choices")
        if not self._done and not self._choice.get("finish_reason"):
            raise BrokenOff("the answer broke off: its stream ended without an end")
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message: dict[str, Any] = {name: texts.get(name) for name in _TEXTS}
        if "transcript" in texts:
            message["audio"] = {"transcript": texts["transcript"]}
        choice = {**self._choice, "message": message, "text": texts.get("text", "")}
        return {**self._body, "choices": [choice]}

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
            if self._data_bytes > LINE_BYTES:
                raise Unusable(f"a piece of the answer is longer than {LINE_BYTES:,} bytes")

    def _dispatch(self) -> None:
        data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
        if not data.strip() or self._done:
            return
        if data.strip() == DONE:
            self._done = True
            return
        piece = read_json(data)
        if not isinstance(piece, Mapping):
            raise Unusable("a piece of the answer is no JSON object")
        if piece.get("error"):
            raise Unusable(f"the answer broke off: {message_of(piece) or 'an error of the server'}")
        self._body |= {
            name: piece[name]
            for name in ("model", "system_fingerprint", "usage")
            if piece.get(name) is not None
        }
        choices = piece.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, Mapping) and choice.get("index") in (0, None):
                self._pieces += 1
                self._add(choice)
                return

    def _add(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        source = delta if isinstance(delta, Mapping) else choice.get("message")  # some send whole messages
        message = source if isinstance(source, Mapping) else {}
        for name in _TEXTS:
            self._text(name, text_of(message.get(name)))
        if isinstance(message.get("content"), list):
            self._text(REASONING[0], text_of(message["content"], thinking=True))
        self._text("text", text_of(choice.get("text")))
        audio = message.get("audio")
        if isinstance(audio, Mapping):
            self._text("transcript", text_of(audio.get("transcript")))
        if choice.get("logprobs") and "logprobs" not in self._choice:  # of the first token; more is not read
            self._choice["logprobs"] = choice["logprobs"]
        if choice.get("finish_reason"):
            self._choice["finish_reason"] = choice["finish_reason"]

    def _text(self, name: str, piece: str) -> None:
        if piece:
            self._texts.setdefault(name, []).append(piece)
            self._characters += len(piece)
        if self._characters > 2 * TEXT_CHARACTERS:
            raise Unusable(f"the answer is longer than {TEXT_CHARACTERS:,} characters")
