"""The engine draws what `generate` draws, from any slot, behind any neighbour; what it cannot drive it does not."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from rba_bench.textlm.draws import TokenSampler
from rba_bench.textlm.engine_support import causal_lm_decoder
from rba_bench.textlm.generation import (
    Decoder,
    GeneratedTokens,
    GenerationRequest,
    common_prefix,
    generate_tokens,
    prompts_of_ids,
)
from rba_bench.textlm.sampling import continue_all, continue_batch
from rba_bench.textlm.text_model import Decoding

V = 97
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
NEOX = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
DRIVEN = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama-eager": LlamaConfig(**SIZES, attn_implementation="eager"),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**NEOX),
    "gpt2": GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "granite": GraniteConfig(**SIZES, embedding_multiplier=3.0, logits_scaling=2.0),
    "cohere": CohereConfig(**SIZES, logit_scale=0.5),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
}
REFUSED = {
    "sliding window": MistralConfig(**SIZES, sliding_window=16),
    "some layers slide": Gemma2Config(**SIZES, head_dim=8, sliding_window=16),
    "state": MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2),
    "distances by order": BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4),
    "factors by length": LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ),
}
STOPS = list(range(3, 12))


def made(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = GenerationConfig()
    return model


@pytest.fixture(scope="module")
def llama() -> Any:
    return made(DRIVEN["llama"])


def rows_of(n: int, start: int = 9) -> list[list[int]]:
    """Prompts of 10 to 23 tokens that begin with the same `start`."""
    generator = torch.Generator().manual_seed(3)
    begin = torch.randint(12, V, (start,), generator=generator).tolist()
    sizes = torch.randint(1, 15, (n,), generator=generator).tolist()
    return [begin + torch.randint(12, V, (size,), generator=generator).tolist() for size in sizes]


def by_generate(model: Any, rows: list[list[int]], decoding: Decoding, seeds: list[int]) -> list[Any]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    return continue_batch(model, inputs, decoding, seeds, stop_ids=STOPS, pad_id=0)


def driven(model: Any) -> Decoder:
    with torch.no_grad():
        decoder = causal_lm_decoder(model)
    assert decoder is not None
    return decoder


@torch.no_grad()
def by_engine(
    model: Any, rows: list[list[int]], decoding: Decoding, seeds: list[int], slots: int
) -> list[Any]:
    return continue_all(driven(model), rows, decoding, seeds, STOPS, slots, "cpu")


@pytest.mark.parametrize("name", DRIVEN)
def test_greedy_answers_are_those_of_generate(name: str) -> None:
    model, rows = made(DRIVEN[name]), rows_of(9)
    decoding = Decoding(max_new_tokens=16)
    expected = by_generate(model, rows, decoding, [0] * 9)
    assert by_engine(model, rows, decoding, [0] * 9, 4) == expected
    assert len({tuple(one.tokens) for one in expected}) > 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_driven_is_refused(name: str) -> None:
    with torch.no_grad():
        assert causal_lm_decoder(made(REFUSED[name])) is None


def test_a_model_that_computes_otherwise_behind_a_cache_is_found_out(llama: Any) -> None:
    """The trial tries: a decoder that forgets what it read is no decoder."""
    model = made(DRIVEN["llama"])
    stock = model.forward

    def forgetful(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        del past_key_values
        return stock(*args, **kwargs)

    model.forward = forgetful
    with torch.no_grad():
        assert causal_lm_decoder(model) is None
        assert causal_lm_decoder(llama) is not None


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_sampled_answers_are_those_of_generate_and_do_not_depend_on_slots_or_mates(
    llama: Any, temperature: float, top_p: float
) -> None:
    rows, decoding = rows_of(12), Decoding(16, temperature, top_p)
    seeds = list(range(50, 62))
    expected = by_generate(llama, rows, decoding, seeds)
    for slots in (1, 3, 12):
        assert by_engine(llama, rows, decoding, seeds, slots) == expected
    assert by_engine(llama, rows[::-1], decoding, seeds[::-1], 4) == expected[::-1]
    assert by_engine(llama, rows[5:6], decoding, seeds[5:6], 4) == expected[5:6]
    assert len({len(one.tokens) for one in expected}) > 3


@pytest.mark.parametrize("start", [0, 9])
def test_a_prompt_asked_often_is_read_once(llama: Any, start: int) -> None:
    """Also where its answers do not fit into the slots at once; what all prompts begin with is read once, too."""
    decoder, rows = driven(llama), rows_of(3, start)
    read: list[int] = []

    def logits(embeds: Tensor, mask: Any, positions: Tensor, cache: Any) -> Tensor:
        read.append(embeds.shape[0] * embeds.shape[1] if embeds.shape[1] > 1 else 0)
        return decoder.logits(embeds, mask, positions, cache)

    asked = [GenerationRequest(prompt, seed) for prompt in (0, 1, 2) for seed in range(10)]
    prompts = prompts_of_ids(rows, decoder.words, "cpu")
    with torch.no_grad():
        found = generate_tokens(decoder._replace(logits=logits), prompts, asked, TokenSampler(), 12, STOPS, 5)
    flat = [rows[one.prompt] for one in asked]
    expected = by_generate(llama, flat, Decoding(12, 1.0), [one.seed for one in asked])
    assert [one.tokens[:-1] if one.ended else one.tokens for one in found] == [one.tokens for one in expected]
    assert sum(read) == start + sum(len(row) - start for row in rows)


def test_limits_of_single_requests(llama: Any) -> None:
    rows = rows_of(4)
    decoder = driven(llama)
    asked = [GenerationRequest(i, 0, longest) for i, longest in enumerate((1, 5, 2, None))]
    with torch.no_grad():
        found = generate_tokens(
            decoder, prompts_of_ids(rows, decoder.words, "cpu"), asked, TokenSampler(0.0), 7, (), 2
        )
    assert [len(one.tokens) for one in found] == [1, 5, 2, 7]
    assert not any(one.ended for one in found)


def test_an_answer_of_exactly_the_longest_length_may_end(llama: Any) -> None:
    decoder, rows = driven(llama), rows_of(2)
    prompts = prompts_of_ids(rows, decoder.words, "cpu")
    with torch.no_grad():
        free = generate_tokens(decoder, prompts, [GenerationRequest(0, 0)], TokenSampler(0.0), 6, (), 1)[0]
        stop = free.tokens[5]
        first = free.tokens.index(stop)
        ended = generate_tokens(
            decoder, prompts, [GenerationRequest(0, 0)], TokenSampler(0.0), first, [stop], 1
        )[0]
        cut = generate_tokens(
            decoder, prompts, [GenerationRequest(0, 0)], TokenSampler(0.0), max(first - 1, 1), [stop], 1
        )[0]
    assert ended == GeneratedTokens(free.tokens[: first + 1], True, [])
    assert first < 2 or cut == GeneratedTokens(free.tokens[: first - 1], False, [])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_log_probabilities_are_those_of_a_plain_forward_pass(llama: Any, temperature: float) -> None:
    decoder, rows = driven(llama), rows_of(6)
    asked = [GenerationRequest(i, 40 + i) for i in range(6)]
    prompts = prompts_of_ids(rows, decoder.words, "cpu")
    with torch.no_grad():
        found = generate_tokens(
            decoder, prompts, asked, TokenSampler(temperature), 9, STOPS, 3, with_logprobs=True
        )
        for row, one in zip(rows, found, strict=True):
            logits = llama(torch.tensor([row + one.tokens])).logits[0, len(row) - 1 : -1]
            scores = (logits / (temperature or 1.0)).log_softmax(-1)
            expected = scores[range(len(one.tokens)), one.tokens]
            torch.testing.assert_close(torch.tensor(one.logprobs), expected, atol=1e-5, rtol=1e-4)


def test_processes_call_the_decoder_equally_often(llama: Any) -> None:
    """One with few answers goes on calling until the other is done; its answers stay."""
    decoder, rows = driven(llama), rows_of(6)
    calls: list[bool] = []

    def agree(done: bool) -> bool:
        calls.append(done)
        return len(calls) == 40

    counted = [0]

    def logits(*args: Any) -> Tensor:
        counted[0] += 1
        return decoder.logits(*args)

    prompts = prompts_of_ids(rows, decoder.words, "cpu")
    asked = [GenerationRequest(i, i) for i in range(6)]
    with torch.no_grad():
        alone = generate_tokens(decoder, prompts, asked, TokenSampler(), 8, STOPS, 3)
        kept = decoder._replace(logits=logits)
        together = generate_tokens(kept, prompts, asked, TokenSampler(), 8, STOPS, 3, agree=agree)
    assert together == alone
    assert counted[0] == len(calls) == 40
    assert calls[-1] and not calls[0]


def test_slots_grow_with_answers_longer_than_was_thought(llama: Any) -> None:
    """Room is made for a quarter of the longest answer first."""
    rows = rows_of(3)
    decoder = driven(llama)
    asked = [GenerationRequest(i, 0) for i in range(3)]
    with torch.no_grad():
        found = generate_tokens(
            decoder, prompts_of_ids(rows, decoder.words, "cpu"), asked, TokenSampler(0.0), 99, (), 2
        )
    ids = torch.tensor([rows[0]])
    expected = llama.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=99
    )
    assert found[0].tokens == expected[0, len(rows[0]) :].tolist()


def test_the_common_beginning_leaves_each_prompt_a_token() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix([[1, 2]]) == 0
    assert common_prefix([[1], [2, 3]]) == 0
