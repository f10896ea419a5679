"""What a run does with a vLLM server that misbehaves; `make vllm-check` tries a real one.

The server of these tests answers as the policy's own decoder would, from the weights that it was given, so that the
probe has something to find.
"""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_jsonl
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training import methods, training_run
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.model.building import make_policy
from rba_bench.training.rollouts import vllm
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.rollouts.engines import make_rollout
from rba_bench.training.rollouts.rollout import Request, RolloutUnavailable
from rba_bench.training.training_recipe import TrainingRecipe
from tests.textlm.misbehaving_server import Reaction, Seen, Server, body, failure, serving

REQUESTS = [Request(0, 1, 0.0), Request(1, 2, 0.0), Request(1, 3, 0.0)]


class Decoder:
    """The routes of vLLM, over a causal language model that transformers runs.

    Attributes:
        version: of the weights, as `/weight_info` tells it.
        script: met before anything else, one for each completion.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script: list[Callable[[], Reaction | None]] = []
        self.restart()

    def restart(self) -> None:
        self.version = "default"
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def get(self, path: str) -> Reaction:
        return body({"weight_version": self.version, "data": [{"id": "policy"}]})

    def __call__(self, seen: Seen) -> Reaction:
        payload = seen.body
        if seen.path == "/collective_rpc":
            path = payload["kwargs"]["weights_path"]
            self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            return body({"results": [None]})
        if seen.path == "/update_weight_version":
            self.version = payload["new_version"]
            return body({"success": True})
        if seen.path == "/reset_prefix_cache":
            return body({"success": True})
        scripted = (
            self.script.pop(0)() if self.script and payload["max_tokens"] != vllm.PROBE_TOKENS else None
        )
        return scripted or body({"choices": [self.complete(payload)]})

    @torch.no_grad()
    def complete(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The most probable tokens, with what vLLM gives beside them."""
        embeds = torch.load(io.BytesIO(base64.b64decode(payload["prompt_embeds"])), weights_only=True)[None]
        tokens: list[int] = []
        values: list[float] = []
        beside: list[dict[str, float]] = []
        while len(tokens) < payload["max_tokens"] and not {*tokens[-1:]} & {*payload["stop_token_ids"]}:
            logits = self.model(inputs_embeds=embeds).logits[0, -1]
            for token, bias in payload["logit_bias"].items():
                logits[int(token)] += bias
            odds = (logits / (payload["temperature"] or 1.0)).log_softmax(-1)
            tokens.append(int(odds.argmax()))
            values.append(float(odds.max()))
            beside.append({f"token_id:{token}": float(odds[token]) for token in payload["logprob_token_ids"]})
            word = self.model.get_input_embeddings()(torch.tensor([[tokens[-1]]]))
            embeds = torch.cat([embeds, word], 1)
        return {"token_ids": tokens, "logprobs": {"token_logprobs": values, "top_logprobs": beside}}


@pytest.fixture
def rollout_buffer(
    family: Any, store_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> RolloutBuffer:
    monkeypatch.setattr(vllm, "PAUSES_S", (0.01, 0.01))
    recipe = TrainingRecipe(method="grpo", max_new_tokens=6, train_parts=("projector", "llm"))
    policy = make_policy(family, recipe)
    responder = ResponseTokens(family)
    return RolloutBuffer(
        recipe, methods.make_method(recipe, responder.end_ids), policy, store_for(family), responder
    )


@pytest.fixture
def decoder(family: Any, tmp_path: Path) -> Decoder:
    TextDecoder(family).save(tmp_path / "decoder", torch.float32)
    return Decoder(tmp_path / "decoder")


@pytest.fixture
def server(decoder: Decoder, rollout_buffer: RolloutBuffer, tmp_path: Path) -> Iterator[Server]:
    with serving(decoder, gets=decoder.get) as running:
        engine(rollout_buffer, running.url, tmp_path)
        yield running


def engine(rollout_buffer: RolloutBuffer, url: str, folder: Path) -> None:
    rollout = {"engine": "vllm", "url": url.removesuffix("/v1")}
    data = rollout_buffer.recipe.model_dump() | {"rollout": rollout}
    rollout_buffer.recipe = TrainingRecipe.model_validate(data)
    rollout_buffer.rollout = make_rollout(
        rollout_buffer.recipe,
        rollout_buffer.policy,
        rollout_buffer.store,
        rollout_buffer.responder.end_ids,
        folder,
    )


def test_answers_are_those_of_the_local_engine(
    rollout_buffer: RolloutBuffer, decoder: Decoder, rows: list[AlignmentRow], tmp_path: Path
) -> None:
    clips = rollout_buffer.store.get(rows[:2])
    local = rollout_buffer.rollout.draw(clips, REQUESTS, with_logprobs=True)
    with serving(decoder, gets=decoder.get) as server:
        engine(rollout_buffer, server.url, tmp_path)
        drawn = rollout_buffer.rollout.draw(clips, REQUESTS, with_logprobs=True)
    assert [(d.tokens, d.ended) for d in drawn] == [(d.tokens, d.ended) for d in local]
    for here, there in zip(local, drawn, strict=True):
        assert there.logprobs == pytest.approx(here.logprobs, abs=1e-4)


def test_a_step_is_followed_by_its_weights_and_nothing_is_left_behind(
    rollout_buffer: RolloutBuffer, server: Server, decoder: Decoder, rows: list[AlignmentRow], tmp_path: Path
) -> None:
    clips = rollout_buffer.store.get(rows[:2])
    rollout_buffer.rollout.draw(clips, REQUESTS)
    first = decoder.version
    with torch.no_grad():
        rollout_buffer.policy.family.decoder.layers[0].mlp.down_proj.weight.mul_(1.5)
    rollout_buffer.rollout.renew()
    rollout_buffer.rollout.draw(clips, REQUESTS)
    assert decoder.version not in (first, "default")
    torch.testing.assert_close(
        decoder.model.model.layers[0].mlp.down_proj.weight,
        rollout_buffer.policy.family.decoder.layers[0].mlp.down_proj.weight,
    )
    assert not [path for path in tmp_path.iterdir() if path.name != "decoder"]


def test_a_server_that_kept_its_old_weights_is_found_out(
    rollout_buffer: RolloutBuffer, server: Server, decoder: Decoder, rows: list[AlignmentRow]
) -> None:
    """It takes the weights, says so, and answers with others."""
    clips = rollout_buffer.store.get(rows[:2])
    with torch.no_grad():
        rollout_buffer.policy.family.decoder.norm.weight.mul_(1.5)
    reload = decoder.__call__

    def deaf(seen: Seen) -> Reaction:
        return body({"results": [None]}) if seen.path == "/collective_rpc" else reload(seen)

    server.react = deaf
    with pytest.raises(UserError, match=r"other log-probabilities than the policy \(off by"):
        rollout_buffer.rollout.draw(clips, REQUESTS)


def test_a_server_that_started_anew_meanwhile_gets_the_weights_again(
    rollout_buffer: RolloutBuffer, server: Server, decoder: Decoder, rows: list[AlignmentRow]
) -> None:
    clips = rollout_buffer.store.get(rows[:2])
    with torch.no_grad():
        rollout_buffer.policy.family.decoder.norm.weight.mul_(1.5)
    expected = rollout_buffer.rollout.draw(clips, REQUESTS)
    decoder.script = [lambda: None, lambda: decoder.restart() or None]  # type: ignore[func-returns-value]
    assert rollout_buffer.rollout.draw(clips, REQUESTS) == expected
    assert decoder.version != "default"


@pytest.mark.parametrize(
    "trouble",
    [lambda: failure(500, "engine dead"), lambda: body({"choices": []})],
    ids=["error", "garbage"],
)
def test_a_failing_server_is_asked_again_and_then_ends_the_draw(
    rollout_buffer: RolloutBuffer, server: Server, decoder: Decoder, rows: list[AlignmentRow], trouble: Any
) -> None:
    clips = rollout_buffer.store.get(rows[:2])
    decoder.script = [trouble]
    assert len(rollout_buffer.rollout.draw(clips, REQUESTS)) == 3
    decoder.script = [trouble] * 99
    with pytest.raises(RolloutUnavailable, match=r"engine dead|no completion of vLLM"):
        rollout_buffer.rollout.draw(clips, REQUESTS)


def test_no_server_and_another_server_are_told_before_the_first_step(
    rollout_buffer: RolloutBuffer, decoder: Decoder, tmp_path: Path
) -> None:
    with pytest.raises(MissingPrerequisite, match="rba-bench train server"):
        engine(rollout_buffer, "http://127.0.0.1:9", tmp_path)
    with (
        serving(lambda _: failure(404), gets=lambda _: failure(404)) as server,
        pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1"),
    ):
        engine(rollout_buffer, server.url, tmp_path)


def test_a_prompt_beyond_the_servers_length_names_the_option(
    rollout_buffer: RolloutBuffer, server: Server, decoder: Decoder, rows: list[AlignmentRow]
) -> None:
    decoder.script = [lambda: failure(400, "max_tokens=7 cannot be greater than max_model_len=5")]
    with pytest.raises(UserError, match="--max-model-len"):
        rollout_buffer.rollout.draw(rollout_buffer.store.get(rows[:2]), REQUESTS)


def test_every_choice_a_server_could_have_a_default_for_is_sent(
    rollout_buffer: RolloutBuffer, server: Server, rows: list[AlignmentRow]
) -> None:
    rollout_buffer.rollout.draw(rollout_buffer.store.get(rows[:2]), [Request(0, 7, 0.8)])
    sent = [seen.body for seen in server.seen if seen.path == "/v1/completions"][-1]
    assert (sent["seed"], sent["temperature"], sent["max_tokens"]) == (7, 0.8, 7)
    assert (sent["top_p"], sent["top_k"], sent["min_p"], sent["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert sent["stop_token_ids"] == sorted(rollout_buffer.responder.end_ids) and sent["ignore_eos"]
    assert list(sent["logit_bias"]) == [str(rollout_buffer.policy.family.audio_token_id)]


def test_a_run_whose_server_dies_is_saved_and_the_same_call_goes_on(
    decoder: Decoder, recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "PAUSES_S", (0.01,))
    out, alive = (
        tmp_path / "run",
        iter(range(6)),
    )  # two steps of one group of two voices, and half of the third

    def dying(seen: Seen) -> Reaction:
        asked = seen.path == "/v1/completions" and seen.body["max_tokens"] != vllm.PROBE_TOKENS
        return failure(500, "dead") if asked and next(alive, 9) > 4 else decoder(seen)

    with serving(dying, gets=decoder.get) as server:
        rollout = {"engine": "vllm", "url": server.url}
        recipe = recipe_for(
            method="grpo", rollout=rollout, steps=3, groups_per_step=1, voices_per_group=2, max_new_tokens=4,
            save_every=50, log_every=1,
        )  # fmt: skip
        with pytest.raises(RolloutUnavailable, match="the same command then goes on from step 2"):
            training_run.train(recipe, out)
        assert [path.name for path in (out / "trainer").glob("checkpoint-*")] == ["checkpoint-2"]
        server.react = decoder
        assert training_run.train(recipe, out).steps == 3
    assert [record["step"] for record in read_jsonl(out / "train_log.jsonl")] == [1, 2, 3]
