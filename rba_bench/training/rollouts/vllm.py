"""Rollouts by a vLLM server: the trainer merges words and sound, the server's decoder goes on from there.

    prompts of a draw -> embeddings here -> (weights to the server, if they changed, and a probe) -> its answers

The weights of the server are always verified: after each transfer its log-probabilities of a probe must equal those of
the policy here, and after each draw it must still hold the weights that it was given. If the server does not answer,
the run tries again for a short time, with a new transfer of weights; then it stops where it can continue.
"""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from rba_bench.errors import RbaError, UserError
from rba_bench.progress import say
from rba_bench.training.data.clips import ClipInput
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.rollouts.rollout import Draw, Request
from rba_bench.training.rollouts.vllm_client import Completion, ServerUnavailable, VllmClient, encode_embeds
from rba_bench.training.rollouts.weight_transfer import Transfer

T = TypeVar("T")
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # between tries of a draw; a server that starts anew takes longer
UNSAID = -100.0  # added to the placeholder's logit; the most that the protocol has room for
PROBE_TOKENS = 8
PROBE_TEMPERATURE = 0.7  # not 1: log-probabilities at another temperature than that of sampling are found out
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 1e-1}


class VllmRollout:
    """Draws with the weights that the server was last given; `renew` makes the next draw hand over the new ones.

    Args:
        policy: the policy as it trains.
        client: of the server.
        transfer: brings the weights over.
        end_ids: tokens that end an answer.
        max_new_tokens: longest answer.
        batch: prompts embedded together.
        any_clip: gives an input for the probe, and for embeddings that are not used (see `CollectiveSync`).
        tolerance: nats by which log-probabilities of the probe may differ.
        sync: of the processes, where they share the weights out.

    Attributes:
        transfers: how often weights were sent.
        probed: error of the last probe, in nats per token.
    """

    def __init__(
        self,
        policy: SpeechPolicy,
        client: VllmClient,
        transfer: Transfer,
        end_ids: Sequence[int],
        max_new_tokens: int,
        batch: int,
        any_clip: Callable[[], ClipInput],
        tolerance: float | None = None,
        sync: CollectiveSync | None = None,
    ) -> None:
        self.policy = policy
        self.client = client
        self.transfer = transfer
        self.end_ids = sorted(end_ids)
        self.max_new_tokens = max_new_tokens
        self.batch = batch
        self.any_clip = any_clip
        self.dtype = torch.bfloat16 if policy.half else torch.float32
        self.tolerance = TOLERANCE[self.dtype] if tolerance is None else tolerance
        self.sync = sync or CollectiveSync()
        self.transfers = 0
        self.probed = 0.0
        self._run = secrets.token_hex(4)  # of this process: tags of an attempt before are not taken for ours
        self._tag = ""
        self._model = ""
        family = policy.family
        parameters = [*family.decoder.parameters(), *family.model.get_output_embeddings().parameters()]
        self._trains = any(parameter.requires_grad for parameter in parameters)

    def renew(self) -> None:
        """See `Rollout.renew`; a decoder that does not train stays as it is."""
        if self._trains:
            self._tag = ""

    def draw(
        self, clips: Sequence[ClipInput], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """See `Rollout.draw`; log-probabilities come with every answer anyway."""
        training = self.policy.training
        self.policy.eval()
        try:
            order = sorted(range(len(clips)), key=lambda i: -len(clips[i].prompt_ids))
            prompts: dict[int, Tensor] = {}
            for start in range(0, len(order), self.batch):
                part = order[start : start + self.batch]
                self.sync.enter()
                prompts.update(zip(part, self._embedded([clips[i] for i in part]), strict=True))
            self.sync.leave(lambda: self._embedded([self.any_clip()]))
            answers = self._answers([prompts[i] for i in range(len(clips))], requests)
        finally:
            self.policy.train(training)
        draws = []
        for number, request in enumerate(requests):
            answer = answers[number]
            ended = answer.tokens[-1] in self.end_ids
            longest = len(answer.tokens) if ended else self.max_new_tokens
            logprobs = self._of_whole(answer, request.temperature)
            draws.append(Draw(tuple(answer.tokens[:longest]), ended, tuple(logprobs[:longest])))
        return draws

    # the server

    def _answers(self, prompts: Sequence[Tensor], requests: Sequence[Request]) -> dict[int, Completion]:
        """All answers; a server that does not answer is tried again. All processes try equally often."""
        text = [""] * len(prompts)
        answers: dict[int, Completion] = {}
        for pause in (*PAUSES_S, None):
            worst = worst_of_processes(self._attempt(prompts, text, requests, answers))
            if worst is None:
                return answers
            if pause is None or not isinstance(worst, ServerUnavailable):
                raise worst
            say(f"{worst}; trying again in {pause:g} s")
            self._tag = ""  # the server may have been started again
            answers.clear()
            time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _attempt(
        self,
        prompts: Sequence[Tensor],
        text: list[str],
        requests: Sequence[Request],
        answers: dict[int, Completion],
    ) -> RbaError | None:
        """The weights if they have changed, then the answers; the error, None if all succeeds."""
        problem = worst_of_processes(self._hand_over() if not self._tag else None)
        if problem is not None:
            return problem

        def payload(request: Request) -> Mapping[str, Any]:
            text[request.clip] = text[request.clip] or encode_embeds(prompts[request.clip])
            # an answer of exactly max_new_tokens still gets to say that it ends
            longest = self.max_new_tokens + 1
            return self._payload(text[request.clip], request.seed, request.temperature, longest)

        makers = {number: lambda request=request: payload(request) for number, request in enumerate(requests)}
        completions, problem = self.client.complete(makers)
        answers.update(completions)

        def check_weights() -> None:
            if self.client.get("/weight_info").get("weight_version") != self._tag:
                raise ServerUnavailable(
                    f"the vLLM server at {self.client.url} has other weights than it was given"
                )

        return problem or _error_of(check_weights)

    def _payload(self, embeds: str, seed: int, temperature: float, longest: int) -> Mapping[str, Any]:
        """The request for one completion; it sets everything that a server could have a default for."""
        token = self._placeholder
        return {
            "model": self._model,
            "prompt_embeds": embeds,
            "max_tokens": longest,
            "temperature": temperature,
            "seed": seed,
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            "stop_token_ids": self.end_ids,
            "ignore_eos": True,  # the configuration may name others than the chat template does
            # the audio placeholder is never sampled; its probability is returned
            **({} if token is None else {"logit_bias": {str(token): UNSAID}, "logprob_token_ids": [token]}),
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    @property
    def _placeholder(self) -> int | None:
        family = self.policy.family
        return family.audio_token_id if family.audio_token_id < family.decoder.config.vocab_size else None

    def _of_whole(self, answer: Completion, temperature: float) -> list[float]:
        """Log-probabilities under the softmax over all tokens, the placeholder included, as the policy's are.

        Those of the server leave the placeholder out. It returns p' of the placeholder with its bias; without, its odds
        against the rest were p' exp(-bias / temperature).
        """
        name, lifted = f"token_id:{self._placeholder}", -UNSAID / (temperature or 1.0)
        odds = [beside.get(name, float("-inf")) + lifted for beside in answer.beside]
        return [value - math.log1p(math.exp(odd)) for value, odd in zip(answer.logprobs, odds, strict=True)]

    # its weights

    def _hand_over(self) -> RbaError | None:
        """The weights to the server, then the probe. All processes call; the error, None if all succeeds."""
        tag, model = f"{self._run}-{self.transfers + 1}", ""

        def reach() -> None:
            if is_first_process():
                self.client.get("/weight_info")

        def send() -> None:
            nonlocal model
            model = self.transfer.send(tag, is_first_process())

        for work in (reach, send):  # the other processes take part in sending only if the server answers
            if (problem := worst_of_processes(_error_of(work))) is not None:
                return problem
        self._model, self._tag = broadcast_from_rank0((model, tag))
        self.transfers += 1
        problem = _error_of(self._probe)
        if problem is not None:
            self._tag = ""
        return problem

    def _probe(self) -> None:
        """A short answer to one clip must have the probabilities that the policy here gives it."""
        [prompt] = self._embedded([self.any_clip()])
        reply: Any = None
        if is_first_process():
            payloads = {0: lambda: self._payload(encode_embeds(prompt), 1, PROBE_TEMPERATURE, PROBE_TOKENS)}
            answers, problem = self.client.complete(payloads)
            reply = problem or answers[0]
        reply = broadcast_from_rank0(reply)
        if isinstance(reply, RbaError):
            raise reply
        here, there = self._logprobs(prompt, reply.tokens), self._of_whole(reply, PROBE_TEMPERATURE)
        self.probed = float((here - torch.tensor(there)).abs().mean())
        if not self.probed <= self.tolerance:
            raise UserError(
                f"the vLLM server at {self.client.url} gives a probe other log-probabilities than the policy (off by "
                f"{self.probed:.3g} nats a token): start it as `rba-bench train server` says for this recipe, or "
                "raise rollout.tolerance"
            )

    @torch.no_grad()
    def _logprobs(self, prompt: Tensor, tokens: Sequence[int]) -> Tensor:
        """[N] log-probabilities of tokens behind a prompt, as they are drawn for a probe."""
        family = self.policy.family

        def score() -> Tensor:
            ids = torch.tensor([list(tokens)], device=self.policy.device)
            words = family.model.get_input_embeddings()(ids)
            embeds = torch.cat([prompt[None].to(words), words], dim=1)
            positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
            hidden = family.decode(embeds, None, positions, use_cache=False)
            logits = family.head(hidden[0, len(prompt) - 1 : -1]).float() / PROBE_TEMPERATURE
            return logits.log_softmax(-1).gather(1, ids[0][:, None])[:, 0].cpu()

        self.sync.enter()
        return self.policy.inside(score)

    @torch.no_grad()
    def _embedded(self, clips: Sequence[ClipInput]) -> list[Tensor]:
        """Embeddings [P, H] of each clip's prompt, on the CPU."""
        family = self.policy.family
        ids, mask = (x.to(self.policy.device) for x in family.collate([c.prompt_ids.tolist() for c in clips]))
        rows = torch.arange(len(clips), device=self.policy.device)
        embeds = self.policy.inside(lambda: self.policy.embed(clips, ids, rows))
        return [row[kept].to("cpu", self.dtype) for row, kept in zip(embeds, mask.bool(), strict=True)]


def _error_of(work: Callable[[], None]) -> RbaError | None:
    """The error that some work raises, None if it succeeds."""
    try:
        work()
    except RbaError as error:
        return error
    return None


# the first process sends weights, all processes request answers


def is_first_process() -> bool:
    """Whether this is the process with rank 0."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def broadcast_from_rank0(value: T) -> T:
    """The first process's value, for all."""
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box)
    return box[0]


def worst_of_processes(error: RbaError | None) -> RbaError | None:
    """The worst of all processes' problems: one that waiting does not cure, if there is any."""
    from accelerate.utils import gather_object

    problems = [problem for problem in gather_object([error]) if problem is not None]
    return min(problems, key=lambda problem: isinstance(problem, ServerUnavailable), default=None)
