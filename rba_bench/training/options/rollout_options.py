"""What draws the answers during training, and how it gets the weights."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rba_bench.recipes import Recipe

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class RolloutOptions(Recipe):
    """Where samples come from: the model as it trains, or a vLLM server that `rba-bench train server` starts.

    Of these `engine` alone decides which tokens are drawn; the rest is no part of what a run is.
    """

    engine: Literal["local", "vllm"] = "local"  # vllm draws on GPUs of its own, and other random numbers
    url: str = "http://127.0.0.1:8000"  # vllm: where the server listens
    # vllm: how weights get there. folder: all of the decoder, through files that both sides see; lora: the adapter
    # alone, likewise; nccl: from GPU to GPU; auto: lora where the recipe has it, else folder
    weights: Literal["auto", "folder", "lora", "nccl"] = "auto"
    folder: str | None = (
        None  # vllm: for those files, on memory (/dev/shm/...) if there is some; null: in the run's
    )
    master: str | None = None  # nccl: host:port of this process that the server's workers can reach
    in_flight: Positive = 128  # vllm: requests at once, over one process; the server queues what is too much
    timeout_s: Seconds = 600.0  # vllm: longest wait for one answer
    # vllm: nats by which its log-probabilities of a probe may differ from those here after each transfer; null: 0.01,
    # or 0.1 with precision bfloat16, where both sides round
    tolerance: Annotated[float, Field(gt=0)] | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in value:
            raise ValueError("write it as http://host:port, without credentials")
        return value.rstrip("/").removesuffix("/v1")
