"""A harmless request that tells a server that is down from items that it cannot take.

The one that was answered last, with another seed, so that no cache answers for a server that is down; before any answer
a greeting in the form of the request that failed: the same parameters, another content.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rba_bench.files import sha256_json
from rba_bench.textlm.endpoint_replies import Route

PROBES = 3  # times a harmless request is tried
GREETING = "Hello"
_CONTENT = ("messages", "prompt")  # the rest of a payload says how to answer


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        route: `/chat/completions` or `/completions`.
        payload: What is sent, without the model.
        lenient: The server may draw the answer in its own way where it takes no other (a judge's vote): what is sent
            instead is told and recorded. Otherwise only what the options let go.
    """

    route: Route
    payload: Mapping[str, Any]
    lenient: bool = False


def item_of(call: Call) -> str:
    """The same for requests that put the same before the model, whatever their seeds and limits."""
    return sha256_json({name: call.payload[name] for name in _CONTENT if name in call.payload})


class Probe:
    """Remembers a request that was answered.

    Attributes:
        turn: Held while a server is probed, so that it happens once; belongs to one event loop, see `begin`.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._answered: Call | None = None
        self._sent = 0

    def begin(self) -> None:
        """A run starts, in an event loop of its own."""
        self.turn = asyncio.Lock()

    def answered(self, call: Call) -> None:
        """This one is harmless."""
        self._answered = call

    def call(self, failed: Call) -> Call:
        """The request to send.

        Args:
            failed: The one that raised the doubt.
        """
        self._sent += 1
        payload = dict((self._answered or failed).payload)
        if self._answered is None:
            greeting: Any = [{"role": "user", "content": GREETING}] if failed.route == "chat" else GREETING
            payload["messages" if failed.route == "chat" else "prompt"] = greeting
        if "seed" in payload:
            payload["seed"] = (payload["seed"] + self._sent) % 2**31
        return replace(self._answered or failed, payload=payload)
