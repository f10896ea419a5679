"""The routes of a vLLM server (0.32) that rollouts need, those of its developers' mode among them.

    POST /v1/completions            `prompt_embeds`: a tensor as `torch.save` writes it, in base64
    POST /collective_rpc            `reload_weights` from a folder        POST /reset_prefix_cache
    POST /v1/load_lora_adapter, /v1/unload_lora_adapter
    GET /weight_info, POST /update_weight_version    which weights it answers with: a server that was started again
                                                     says "default"

A server that is started without VLLM_SERVER_DEV_MODE=1 has none of those in the middle.
"""

import asyncio
import base64
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rba_bench.errors import RbaError, UserError
from rba_bench.textlm.endpoints import http as endpoint_http
from rba_bench.textlm.endpoints.address import one_line
from rba_bench.textlm.endpoints.client import run_to_end
from rba_bench.textlm.endpoints.keys import is_local
from rba_bench.textlm.endpoints.replies import Unusable, error_message
from rba_bench.training.rollouts.rollout import RolloutUnavailable

CONNECT_S = 5.0
CONTROL_S = 600.0  # longest wait for a transfer of weights
LOAD_LORA, UNLOAD_LORA = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_IN_WORDS = (LOAD_LORA, UNLOAD_LORA)  # whose success is a sentence, not JSON
Payload = Mapping[str, Any]


class ServerUnavailable(RolloutUnavailable):
    """The server does not answer, or not with what it should."""


class Completion(NamedTuple):
    """One answer.

    Attributes:
        tokens: with the stop token, where one came.
        logprobs: of these, under the distribution that they were drawn from.
        beside: at each place the same for other tokens that were asked about, by `token_id:N`.
    """

    tokens: list[int]
    logprobs: list[float]
    beside: list[dict[str, float]]


def encode_embeds(embeds: Tensor) -> str:
    """A prompt's embeddings [P, H] as vLLM reads them."""
    buffer = io.BytesIO()
    torch.save(embeds.detach().cpu().clone(), buffer)  # a view would take its whole storage along
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class VllmClient:
    """Talks to one server.

    Args:
        url: without `/v1`.
        in_flight: completions asked for at once.
        timeout_s: longest wait for one of them.
    """

    def __init__(self, url: str, in_flight: int = 128, timeout_s: float = CONTROL_S) -> None:
        self.url = url
        self.in_flight = in_flight
        self.timeout_s = timeout_s

    def get(self, route: str) -> Any:
        """JSON of a route. Raises ServerUnavailable, or UserError where the route is not there."""
        return self._alone("GET", route, None)

    def post(self, route: str, payload: Payload | None = None) -> Any:
        """The same for what changes something."""
        return self._alone("POST", route, payload)

    def complete(
        self, payloads: Mapping[int, Callable[[], Payload]]
    ) -> tuple[dict[int, Completion], RbaError | None]:
        """Ask for completions, several at once.

        Args:
            payloads: by a number of the caller's; made when their turn comes.

        Returns:
            Those that were answered, and the first error, after which no more are sent.
        """
        answers: dict[int, Completion] = {}
        errors: list[RbaError] = []
        window = asyncio.Semaphore(self.in_flight)

        async def ask(http: Any, number: int, make: Callable[[], Payload]) -> None:
            async with window:
                if errors:
                    return
                try:
                    answers[number] = _choice(await self._send(http, "POST", "/v1/completions", make()))
                except RbaError as error:
                    errors.append(error)

        async def ask_all() -> None:
            async with self._connect(self.timeout_s) as http:
                await asyncio.gather(*(ask(http, number, make) for number, make in payloads.items()))

        run_to_end(ask_all())
        return answers, errors[0] if errors else None

    def _alone(self, method: str, route: str, payload: Payload | None) -> Any:
        async def ask() -> Any:
            async with self._connect(CONTROL_S) as http:
                return await self._send(http, method, route, payload)

        return run_to_end(ask())

    def _connect(self, timeout_s: float) -> Any:
        parts = urlsplit(self.url)
        local = is_local(parts.hostname or "")
        return endpoint_http.connect(parts.scheme == "https", local, timeout_s, CONNECT_S, self.in_flight)

    async def _send(self, http: Any, method: str, route: str, payload: Payload | None) -> Any:
        import httpx2

        try:
            reply = await endpoint_http.send(http, method, self.url + route, {}, payload)
        except (httpx2.HTTPError, OSError) as error:
            reason = one_line(str(error)) or type(error).__name__
            raise ServerUnavailable(f"the vLLM server at {self.url} does not answer ({reason})") from error
        except Unusable as error:
            if route in _IN_WORDS:
                return None
            raise ServerUnavailable(f"the vLLM server at {self.url}: {error}") from error
        status = reply.status
        if 200 <= status < 300:
            return reply.body
        reason = one_line(error_message(reply.body))
        if status >= 500 or status == 429:
            raise ServerUnavailable(f"the vLLM server at {self.url} fails ({status}: {reason})")
        if status == 404 and route == "/v1/completions":
            # it was started again: a new transfer of weights brings the adapter back
            raise ServerUnavailable(f"the vLLM server at {self.url} has lost its adapter ({reason})")
        if status in (404, 405):
            raise UserError(
                f"{self.url} has no {route}: start it as `rba-bench train server` says "
                "(VLLM_SERVER_DEV_MODE=1, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 for LoRA)"
            )
        hint = "; start it with a larger --max-model-len" if "max_model_len" in reason else ""
        raise UserError(f"the vLLM server at {self.url} refuses {route} ({status}: {reason}){hint}")


def _choice(reply: Any) -> Completion:
    """The answer in a reply to /v1/completions."""
    try:
        choice = reply["choices"][0]
        tokens, odds = choice["token_ids"], choice["logprobs"]
        values, beside = odds["token_logprobs"], odds.get("top_logprobs") or [{}] * len(tokens)
        if not len(tokens) == len(values) == len(beside) or not tokens:
            raise ValueError("tokens and log-probabilities differ in number")
        return Completion(
            [int(token) for token in tokens],
            [float(value) for value in values],
            [{name: float(value) for name, value in place.items()} for place in beside],
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ServerUnavailable(
            f"what the server answers is no completion of vLLM with token_ids ({one_line(str(error))})"
        ) from error
