"""A speech LLM behind an OpenAI-compatible server that takes `input_audio`: `vllm serve`, SGLang, hosted APIs.

    vllm serve Qwen/Qwen2-Audio-7B-Instruct --limit-mm-per-prompt '{"audio": 1}'
    rba-bench eval --model openai:http://localhost:8000/v1#Qwen/Qwen2-Audio-7B-Instruct ...

The chat template is the server's own.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from rba_bench.audio.clips import AudioError
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest, StageClock, audio_fault, wav_base64
from rba_bench.textlm.chat import Variables
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.client import EndpointClient, EndpointRequest
from rba_bench.textlm.endpoints.health import RequestFailure
from rba_bench.textlm.endpoints.text_llm import sampling_parameters, to_generation
from rba_bench.textlm.text_model import Decoding, Generation


class EndpointSpeechLM(SpeechLM):
    """Sends each clip as WAV (16 kHz, 16 bits) with its prompt, many requests at a time.

    Args:
        client: The server and the model.
        prompt_first: The text part stands before the audio, not after it.

    Attributes:
        name: Last part of the model's name.
        clock: Stage `endpoint`: time spent waiting for answers.
    """

    clock: StageClock
    streams = True

    def __init__(self, client: EndpointClient, prompt_first: bool = False) -> None:
        self.client = client
        self.prompt_first = prompt_first
        self.name = client.model.rstrip("/").rpartition("/")[2]
        self.clock = StageClock()

    @classmethod
    def from_spec(
        cls,
        spec: str,
        options: EndpointOptions | None = None,
        prompt_first: bool = False,
        template: Variables | None = None,
    ) -> "EndpointSpeechLM":
        """The model of `openai:<base_url>#<model>`, the key from the environment.

        Raises:
            UserError: the spec is malformed.
            MissingPrerequisite: the key is unusable.
        """
        return cls(EndpointClient.from_spec(spec, options, template), prompt_first)

    def identity(self) -> dict[str, Any]:
        """Kind, URL, model, a hash of both, and the order of the parts; the same before and after answering."""
        parts = ["text", "audio"] if self.prompt_first else ["audio", "text"]
        return {**self.client.identity(), "parts": parts}

    def observed(self) -> dict[str, list[str]]:
        """What the answers so far said they come from: `model`, `system_fingerprint`."""
        return self.client.observed()

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer each request, in order; see `SpeechLM.generate`."""
        answers = dict(self.stream(requests, decoding))
        return [answers[i] for i in range(len(requests))]

    def stream(
        self, requests: Sequence[SpeechRequest], decoding: Decoding
    ) -> Iterator[tuple[int, Generation]]:
        """`(position, answer)` as they complete, each position exactly once.

        A request is looked up when it is its turn, so `requests` may be a sequence that reads its clips on access;
        one that raises AudioError, or whose audio is unusable, is `not_heard`.

        Raises:
            RbaError: the server does not work at all; UserError or MissingPrerequisite by what is wrong.
        """
        run = self.client.run(len(requests), lambda i: self._call(requests, i, decoding))
        with closing(run) as outcomes:
            while True:
                with self.clock("endpoint"):  # the time of whoever reads the answers is not the server's
                    outcome = next(outcomes, None)
                if outcome is None:
                    return
                yield outcome[0], to_generation(outcome[1])

    def _call(
        self, requests: Sequence[SpeechRequest], index: int, decoding: Decoding
    ) -> EndpointRequest | RequestFailure:
        try:
            request = requests[index]
        except AudioError as error:
            return RequestFailure("unheard", str(error))
        if fault := audio_fault(request.audio):
            return RequestFailure("unheard", fault)
        assert request.audio is not None  # audio_fault has looked
        audio = {"type": "input_audio", "input_audio": {"data": wav_base64(request.audio), "format": "wav"}}
        text = [{"type": "text", "text": request.prompt}] if request.prompt else []
        parts = [*text, audio] if self.prompt_first else [audio, *text]
        messages = [{"role": "user", "content": parts}]
        return EndpointRequest("chat", {"messages": messages, **sampling_parameters(decoding, request.seed)})
