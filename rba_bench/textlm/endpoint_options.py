"""How patiently and how fast a server is asked; some of it from the environment."""

import os
from dataclasses import dataclass, fields
from typing import Any

from rba_bench.errors import UserError

_VARIABLES = {
    "timeout_s": "RBA_ENDPOINT_TIMEOUT",
    "retries": "RBA_ENDPOINT_RETRIES",
    "max_concurrency": "RBA_ENDPOINT_CONCURRENCY",
}
_LEAST = {
    "timeout_s": 0.01, "retries": 0, "max_concurrency": 1, "start_concurrency": 1, "backoff_s": 0.0,
    "max_backoff_s": 0.0, "max_retry_after_s": 0.0, "patience": 1,
}  # fmt: skip


@dataclass(frozen=True)
class EndpointOptions:
    """How patiently and how fast a server is asked. Each has an environment variable, named here.

    Attributes:
        timeout_s: Seconds for one whole answer (`RBA_ENDPOINT_TIMEOUT`).
        retries: Times a failed request is sent again (`RBA_ENDPOINT_RETRIES`).
        max_concurrency: Most requests at once (`RBA_ENDPOINT_CONCURRENCY`).
        start_concurrency: Requests at once in the beginning.
        backoff_s: Pause before the first retry; it doubles each time, with jitter.
        max_backoff_s: Longest pause, unless the server asks for more.
        max_retry_after_s: Longest pause that a server can ask for.
        patience: Items lost in a row, with no answer in between, that end the run.

    Raises:
        UserError: a value out of range.
    """

    timeout_s: float = 180.0
    retries: int = 6
    max_concurrency: int = 64
    start_concurrency: int = 4
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_retry_after_s: float = 120.0
    patience: int = 8

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), _LEAST[one.name]
            if not least <= value < float("inf"):
                raise UserError(f"{one.name} of the endpoint is {value}: use {least} or more")

    @classmethod
    def from_environment(cls) -> "EndpointOptions":
        """The defaults, but for what the environment says. Raises UserError for what is no number."""
        said = {name: os.environ.get(variable, "").strip() for name, variable in _VARIABLES.items()}
        values: dict[str, Any] = {}
        for name, text in said.items():
            try:
                values |= {name: (float if name == "timeout_s" else int)(text)} if text else {}
            except ValueError as error:
                raise UserError(f"{_VARIABLES[name]} is {text!r}: give a number") from error
        return cls(**values)
