"""Counter-based draws: the right distribution, however rare a token; a draw depends on seed and place alone."""

import math

import pytest
import torch

from rba_bench.textlm.draws import (
    SeededSampling,
    TokenSampler,
    draw_tokens,
    keep_nucleus,
    random_words,
    uniforms,
)

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
DRAWS = 20_000
IDS = torch.zeros(1, 1, dtype=torch.long)


def drawn(
    logits: torch.Tensor, n: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0
) -> torch.Tensor:
    """Tokens of `n` draws from one distribution, 500 at a time: seeds and places both vary."""
    sampler = TokenSampler(temperature, top_p)
    parts = [torch.arange(start, min(start + 500, n)) for start in range(0, n, 500)]
    return torch.cat(
        [sampler(logits.expand(len(part), -1), seed + part // 100, part % 100).tokens for part in parts]
    )


def chi_square(tokens: torch.Tensor, expected: torch.Tensor) -> float:
    """Standardised: about normal with mean 0 and deviation 1 if `tokens` come from `expected`."""
    counts = torch.bincount(tokens, minlength=len(expected)).double()
    wanted = expected * len(tokens)
    degrees = int((expected > 0).sum()) - 1
    assert (counts[expected == 0] == 0).all()
    value = float(((counts - wanted).square() / wanted)[expected > 0].sum())
    return (value - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=-1)
    assert abs(chi_square(drawn(LOGITS, DRAWS, temperature), expected)) < 4


@pytest.mark.parametrize("size", [16, 17, 255, 257, 300])
def test_frequencies_are_the_softmax_whatever_the_shape_of_the_tree(size: int) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size))
    assert abs(chi_square(drawn(logits, DRAWS), logits.double().softmax(-1))) < 4


@pytest.mark.parametrize(("temperature", "top_p", "kept"), [(1.0, 0.8, 3), (0.5, 0.8, 1), (2.0, 0.5, 2)])
def test_frequencies_with_a_nucleus(temperature: float, top_p: float, kept: int) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=-1)
    assert expected[:kept].sum() >= top_p > expected[: kept - 1].sum()  # LOGITS are in falling order
    expected = torch.where(torch.arange(len(LOGITS)) < kept, expected, 0.0) / expected[:kept].sum()
    tokens = drawn(LOGITS, DRAWS, temperature, top_p)
    assert kept == 1 and (tokens == 0).all() or abs(chi_square(tokens, expected)) < 4


def test_thousands_of_rare_tokens_have_their_share_and_share_it_evenly() -> None:
    """One sure token among 19,999 of 2^-17; every level of the tree decides."""
    logits = torch.full((20_000,), math.log(2.0**-17))
    logits[7000] = 0.0
    tokens = drawn(logits, 3000)
    share = 19_999 * 2.0**-17 / (1 + 19_999 * 2.0**-17)
    rare = tokens[tokens != 7000]
    assert abs(len(rare) / 3000 - share) < 4 * math.sqrt(share * (1 - share) / 3000)
    for parts in (rare * 4 // 20_000, rare % 4):
        counts = torch.bincount(parts, minlength=4).double()
        assert abs(float(((counts - len(rare) / 4).square() / (len(rare) / 4)).sum()) - 3) < 4 * math.sqrt(6)


def test_a_token_of_2_to_the_minus_40_is_drawn_at_its_share() -> None:
    """Where one sum in float32 would have lost it: found by its word, whose share of all words it is."""
    weights = torch.zeros(1, 40)
    weights[0, 3], weights[0, 39] = 1.0, 2.0**-40
    levels = weights.double()
    assert float((levels.cumsum(1)[0, 39] - levels.cumsum(1)[0, 3]) * 2**40) == 1.0
    assert float(weights.cumsum(1)[0, 39] - weights.cumsum(1)[0, 3]) == 0.0
    places = torch.arange(20_000)
    words = random_words(torch.zeros_like(places), places)
    tokens, sound = draw_tokens(weights.expand(len(places), -1), words)
    assert sound.all() and (tokens == 3).all()
    weights[0, 3] = 2.0**-40
    tokens, _ = draw_tokens(weights.expand(len(places), -1), words)
    assert set(tokens.tolist()) == {3, 39}
    assert abs(float((tokens == 3).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(20_000)


def test_uniforms_are_uniform_and_never_an_end() -> None:
    values = uniforms(random_words(torch.arange(100_000) // 10, torch.arange(100_000) % 10))
    counts = torch.histc(values.float(), 50, 0.0, 1.0).double()
    assert abs(float(((counts - 2000).square() / 2000).sum()) - 49) < 4 * math.sqrt(98)
    ends = uniforms(torch.tensor([0, -1, 2**63 - 1, -(2**63)]))
    assert (ends > 0).all() and (ends < 1).all()
    assert float(ends.min()) == 2.0**-53 and float(ends.max()) == 1 - 2.0**-53


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, -1), (-0x61C8864680B583EB, -1), (2**32, 0)])
def test_neighbours_in_seed_and_place_are_independent(step: tuple[int, int]) -> None:
    """Also a seed that is one step of the generator away, at the place before."""
    seeds = torch.arange(1000, 101_000)
    first = uniforms(random_words(seeds, torch.full_like(seeds, 5)))
    second = uniforms(random_words(seeds + step[0], torch.full_like(seeds, 5 + step[1])))
    correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    assert abs(correlation) < 4 / math.sqrt(len(seeds))
    table = torch.zeros(8, 8).index_put_(
        ((first * 8).long(), (second * 8).long()), torch.ones(len(seeds)), accumulate=True
    )
    expected = len(seeds) / 64
    assert abs(float(((table - expected).square() / expected).sum()) - 63) < 4 * math.sqrt(126)


def test_the_words_are_those_of_splitmix() -> None:
    """The published constants, with Python's own integers."""

    def mixed(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    for seed, place in ((0, 0), (1, 7), (2**63 - 1, 3), (123456789, 255)):
        expected = mixed((mixed(seed) + (place + 1) * 0x9E3779B97F4A7C15) % 2**64)
        assert int(random_words(torch.tensor([seed]), torch.tensor([place]))) % 2**64 == expected


def test_a_draw_depends_on_seed_and_place_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 3000, generator=generator)
    seeds = torch.randint(2**62, (64,), generator=generator)
    places = torch.arange(64) % 7
    together = TokenSampler()(logits, seeds, places).tokens
    order = torch.randperm(64, generator=generator)
    assert torch.equal(TokenSampler()(logits[order], seeds[order], places[order]).tokens, together[order])
    for row in (0, 31, 63):
        alone = TokenSampler()(logits[row : row + 1], seeds[row : row + 1], places[row : row + 1])
        assert int(alone.tokens) == int(together[row])


def test_rounding_hardly_ever_changes_a_draw() -> None:
    """Logits of another batch size differ in their last bits; a single sum over all tokens shows them."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(20_000, generator=generator) * 2
    noise = base.abs() * 1e-5 * torch.randn(base.shape, generator=generator)
    changed = int((drawn(base, 3000) != drawn(base + noise, 3000)).sum())
    sums = [logits.double().softmax(-1).cumsum(-1) for logits in (base, base + noise)]
    aims = uniforms(random_words(torch.arange(100_000), torch.zeros(100_000, dtype=torch.long)))
    by_one_sum = [torch.searchsorted(sum_, aims) for sum_ in sums]
    share = float((by_one_sum[0] != by_one_sum[1]).double().mean())
    assert changed <= 3 and share > 10 * 3 / 3000


def test_what_a_broken_row_draws_is_what_greedy_draws_and_others_are_not_touched() -> None:
    logits = LOGITS.repeat(5, 1)
    logits[1, 4] = float("nan")
    logits[2] = float("-inf")
    logits[3, 2] = float("inf")
    seeds, places = torch.arange(5), torch.zeros(5, dtype=torch.long)
    for top_p in (1.0, 0.9):
        tokens = TokenSampler(1.0, top_p)(logits.clone(), seeds, places).tokens
        assert tokens[1:4].tolist() == logits.argmax(-1)[1:4].tolist()
        sound = torch.tensor([0, 4])
        assert torch.equal(
            tokens[sound], TokenSampler(1.0, top_p)(logits[sound], seeds[sound], places[sound]).tokens
        )


def test_impossible_and_banned_tokens_are_never_drawn() -> None:
    logits = torch.zeros(300)
    logits[::2] = float("-inf")
    tokens = drawn(logits, 3000)
    assert (tokens % 2 == 1).all() and len(tokens.unique()) == 150
    rows = torch.zeros(2000, 20)
    kept = TokenSampler(1.0, banned=[7, 99])(
        rows, torch.arange(2000), torch.zeros(2000, dtype=torch.long)
    ).tokens
    assert set(kept.tolist()) == set(range(20)) - {7}


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 1.0), (0.7, 0.5)])
def test_logprobs_are_of_the_whole_tempered_distribution_bans_and_nucleus_left_out(
    temperature: float, top_p: float
) -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    found = TokenSampler(temperature, top_p, [5])(
        logits.clone(), torch.arange(50), torch.zeros(50, dtype=torch.long), True
    )
    expected = (logits.double() / (temperature or 1.0)).log_softmax(-1).gather(1, found.tokens[:, None])[:, 0]
    torch.testing.assert_close(found.logprobs, expected.float())
    assert (found.tokens != 5).all()


def nucleus_by_sorting(logits: torch.Tensor, top_p: float, temperature: float) -> torch.Tensor:
    """What is inside, by the definition."""
    ordered, index = (logits.double() / temperature).sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    inside = probability.cumsum(-1) - probability < top_p
    return torch.zeros_like(inside).scatter(-1, index, inside)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_the_nucleus_is_that_of_the_definition_small_or_large(top_p: float) -> None:
    generator = torch.Generator().manual_seed(2)
    sharp, flat = (
        torch.randn(3, 2000, generator=generator) * 5,
        torch.randn(3, 2000, generator=generator) * 0.1,
    )
    for temperature in (1.0, 0.5):
        logits = torch.cat([sharp, flat])
        kept = keep_nucleus(logits, top_p, temperature).isfinite()
        assert torch.equal(kept, nucleus_by_sorting(logits, top_p, temperature))


@pytest.mark.parametrize("size", [10, 1000])
def test_of_equal_tokens_the_first_are_in_the_nucleus(size: int) -> None:
    logits = torch.zeros(2, size)
    logits[1, size - 1] = 1e-3
    kept = keep_nucleus(logits, 0.4505).isfinite()
    assert kept[0].nonzero()[:, 0].tolist() == list(range(math.ceil(0.4505 * size)))
    assert kept[1, size - 1] and kept[1].nonzero()[:, 0].tolist()[:-1] == list(range(int(kept[1].sum()) - 1))


def test_nucleus_does_not_need_sorted_logits_and_keeps_one_token() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = LOGITS[order][None]
    kept = keep_nucleus(shuffled, 0.8).isfinite()[0]
    assert sorted(order[kept].tolist()) == [0, 1, 2]
    assert keep_nucleus(shuffled, 1e-9).isfinite().sum() == 1


@pytest.mark.parametrize("top_p", [0.05, 0.4, 0.9])
def test_draws_have_the_distribution_of_the_nucleus(top_p: float) -> None:
    """Whether it takes one draw, several, or the nucleus cut out."""
    logits = torch.randn(30, generator=torch.Generator().manual_seed(3))
    inside = nucleus_by_sorting(logits[None], top_p, 0.8)[0]
    expected = (logits.double() / 0.8).masked_fill(~inside, float("-inf")).softmax(-1)
    rows = 20_000
    seeds, places = torch.arange(rows), torch.zeros(rows, dtype=torch.long)
    tokens = TokenSampler(0.8, top_p)(logits.repeat(rows, 1), seeds, places).tokens
    counts = torch.bincount(tokens, minlength=30).double()
    assert counts[~inside].sum() == 0
    far = ((counts - rows * expected)[inside] ** 2 / (rows * expected[inside])).sum()
    degrees = int(inside.sum()) - 1
    assert float(far) < degrees + 5 * (2 * degrees) ** 0.5 + 1e-9
    some = torch.arange(0, rows, 997)  # a redraw does not look at its neighbours
    alone = TokenSampler(0.8, top_p)(logits.repeat(len(some), 1), some, places[some]).tokens
    assert torch.equal(alone, tokens[some])


def by_generate(seeds: list[int], steps: int = 30) -> list[list[int]]:
    sampler = SeededSampling(seeds)
    flat = torch.zeros(len(seeds), 50)
    return torch.stack([sampler(IDS, flat).argmax(dim=-1) for _ in range(steps)], dim=1).tolist()


def test_rows_of_generate_draw_what_rows_elsewhere_draw() -> None:
    together = by_generate([3, 1, 2**62, 3])
    assert together[0] == together[3] == by_generate([3])[0]
    assert together[1] == by_generate([9, 1])[1]
    assert together[0] != together[1]
    seeds = torch.full((30,), 2**62)
    assert together[2] == TokenSampler()(torch.zeros(30, 50), seeds, torch.arange(30)).tokens.tolist()


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = by_generate([7])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert by_generate([7]) == first


def test_rows_must_match_seeds() -> None:
    with pytest.raises(ValueError, match="2 rows for 3 seeds"):
        SeededSampling([1, 2, 3])(IDS, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature above 0"):
        SeededSampling([1], temperature=0.0)
    with pytest.raises(ValueError, match="0 or more"):
        TokenSampler(-1.0)
