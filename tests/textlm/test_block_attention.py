"""Attention by document finds what one masked row finds, whatever shares the row, forward and backward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from rba_bench.speechlm.audiolm.families import shared_rows as families_rows
from rba_bench.speechlm.audiolm.families.shared_rows import attends_by_document
from rba_bench.textlm import block_attention
from rba_bench.textlm.block_attention import NAME
from rba_bench.training.data.packing import BatchLayout, Response, plan_layout
from rba_bench.training.model.constant_prefix import Openings

LENGTHS = (12, 3, 11, 5, 9, 4)  # of prompts, some in one block and some not
OPENINGS = Openings((tuple(range(1, 9)), (7, 8)), (0, 1, 0, -1, 0, 0))
BRANCHES = [
    *(Response(clip, (5,) * (4 + clip)) for clip in range(6)),
    Response(1, (6,) * 9),
    Response(1, (6,)),
    Response(4, (6,) * 3),
]


def model(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=2, **sizes, **changes)).eval()


def layout(
    openings: Openings | None, by_document: bool, mode: Any = "pack", reach: float = 20.0
) -> BatchLayout:
    """With `reach`, several rows with padding where attention obeys masks."""
    prompts = [torch.arange(1, 1 + length + (8 if openings else 0)) for length in LENGTHS]
    return plan_layout(prompts, BRANCHES, mode, 0, openings, reach, by_document)


def same_rows(openings: Openings | None, columns: int) -> tuple[BatchLayout, BatchLayout]:
    """The same rows for both kinds of attention: what lies where, but not by which mask."""
    made = layout(openings, False, reach=columns)
    blocks = block_attention.make_blocks(made.documents, made.segments, made.openings, made.columns)
    return made, BatchLayout(**{**vars(made), "blocks": blocks})


class Attention(torch.nn.Module):
    """What an attention function reads of its layer."""

    num_key_value_groups = 2
    is_causal = True


def attended(made: BatchLayout, attention: Any = block_attention.attend_by_document) -> list[torch.Tensor]:
    """Of random queries, keys and values: states, zero at padding, and gradients of all three."""
    generator = torch.Generator().manual_seed(1)
    size, before = made.segments.shape[1], len(made.columns)
    rows = len(made.segments)
    query = torch.randn(rows, 4, size, 8, generator=generator, requires_grad=True)
    constant = torch.randn(2, 1, 2, before, 8, generator=generator).expand(-1, rows, -1, -1, -1)
    own = torch.randn(2, rows, 2, size, 8, generator=generator, requires_grad=True)
    key, value = torch.cat([constant, own], dim=-2)
    states, weights = attention(Attention(), query, key, value, made.attention_mask(torch.float32))
    assert weights is None and states.shape == (rows, size, 4, 8)
    states = states * (made.segments >= 0)[..., None, None]
    (states * torch.randn(states.shape, generator=generator)).sum().backward()
    assert query.grad is not None and own.grad is not None
    return [states.detach(), query.grad, own.grad]


@pytest.mark.parametrize("columns", [10, 40, 10**6])
@pytest.mark.parametrize("openings", [None, OPENINGS])
@pytest.mark.parametrize("plain", [False, True])
def test_states_and_gradients_are_those_of_masked_rows(
    columns: int, openings: Openings | None, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_attention, "PLAIN", {torch.float32: 10**6 if plain else 0})
    masked, blocked = same_rows(openings, columns)
    assert blocked.blocks is not None and len(blocked.blocks.blocks) > 2
    for mine, expected in zip(attended(blocked), attended(masked), strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-6, rtol=1e-5)


def test_a_block_holds_documents_of_one_kind_and_similar_length() -> None:
    made = layout(OPENINGS, True)
    assert made.blocks is not None
    # clips 0 and 2 begin with eight constant tokens, clip 1 with two, clip 3 with none; 1 and 4 have several answers
    kinds = [(b.documents, b.before, b.mask is None) for b in made.blocks.blocks]
    assert (1, (8, 10), False) in kinds and (1, (0, 0), True) in kinds
    assert all(b.mask.shape[0] in (1, b.documents) for b in made.blocks.blocks if b.mask is not None)
    sizes = [b.size for b in made.blocks.blocks]
    assert (
        sum(b.documents for b in made.blocks.blocks) == len(LENGTHS) and max(sizes) <= made.segments.shape[1]
    )
    real = int((made.segments >= 0).sum())
    places = sum(b.documents * b.size for b in made.blocks.blocks)
    assert real <= places <= block_attention.SPREAD * real


def test_rows_have_no_padding_where_their_length_costs_nothing() -> None:
    assert layout(None, False).segments.min() < 0
    made = layout(None, True)
    assert len(made.segments) == 1 and made.segments.min() == 0
    mask = made.attention_mask(torch.float32)
    assert mask is not None and mask.isnan().all() and mask.untyped_storage().nbytes() == 4


def test_one_answer_a_row_needs_no_blocks() -> None:
    made = layout(None, True, "pad")
    assert made.causal and made.blocks is None and made.attention_mask(torch.float32).ndim == 2


def test_a_decoder_that_passes_the_trial_attends_by_document() -> None:
    decoder = model().model
    assert attends_by_document(decoder) and decoder.config._attn_implementation == NAME
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    branches = [Response(0, (6, 7, 8)), Response(0, (9, 10)), Response(1, (11, 12))]
    made = plan_layout(prompts, branches, by_document=True)
    together = decoder(
        input_ids=made.input_ids,
        attention_mask=made.attention_mask(torch.float32),
        position_ids=made.position_ids,
        use_cache=False,
    ).last_hidden_state.flatten(0, 1)
    for number, branch in enumerate(branches):
        alone = decoder(input_ids=torch.cat([prompts[branch.clip], torch.tensor(branch.tokens[:-1])])[None])
        expected = alone.last_hidden_state[0, len(prompts[branch.clip]) - 1 :]
        torch.testing.assert_close(together[made.sources[number, : len(branch.tokens)]], expected)


def test_the_usual_masks_are_those_of_sdpa() -> None:
    stock, ours = model(), model()
    assert attends_by_document(ours.model)
    ids = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    padding = (ids > 0).long()
    torch.testing.assert_close(
        ours(input_ids=ids, attention_mask=padding).logits[padding > 0],
        stock(input_ids=ids, attention_mask=padding).logits[padding > 0],
    )
    torch.testing.assert_close(ours(input_ids=ids[1:]).logits, stock(input_ids=ids[1:]).logits)
    asked = {"max_new_tokens": 6, "do_sample": False, "attention_mask": padding, "pad_token_id": 0}
    assert torch.equal(ours.generate(ids, **asked), stock.generate(ids, **asked))


def test_eager_attention_is_left_alone() -> None:
    decoder = model(attn_implementation="eager").model
    assert not attends_by_document(decoder) and decoder.config._attn_implementation == "eager"


def test_a_layer_that_reads_the_mask_itself_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = model().model
    layer = decoder.layers[0]
    stock = layer.forward

    def cut(states: torch.Tensor, attention_mask: Any = None, **named: Any) -> Any:
        mask = attention_mask if attention_mask is None else attention_mask[..., : states.shape[1]]
        return stock(states, attention_mask=mask, **named)

    layer.forward = cut
    assert not attends_by_document(decoder) and decoder.config._attn_implementation == "sdpa"


def test_what_another_process_found_out_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families_rows, "_agrees", lambda *_, **__: pytest.fail("tried"))
    for known in (True, False):
        decoder = model().model
        assert attends_by_document(decoder, known) is known
        assert (decoder.config._attn_implementation == NAME) is known
        assert attends_by_document(decoder) is known


def test_what_attention_is_given_beside_the_mask_is_not_passed_over() -> None:
    _, blocked = same_rows(None, 40)

    def biased(*given: Any) -> Any:
        return block_attention.attend_by_document(*given, position_bias=torch.zeros(1))

    with pytest.raises(ValueError, match="does not support position_bias"):
        attended(blocked, biased)


def test_a_saved_model_says_nothing_of_it(tmp_path: Path) -> None:
    saved = model()
    assert attends_by_document(saved.model)
    saved.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert AutoConfig.from_pretrained(tmp_path)._attn_implementation != NAME


def test_bfloat16_under_autocast_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    masked, blocked = same_rows(OPENINGS, 40)
    expected = attended(masked)
    for plain in (0, 10**6):
        monkeypatch.setattr(block_attention, "PLAIN", {torch.bfloat16: plain})
        with torch.autocast("cpu", torch.bfloat16):
            found = attended(blocked)
        for mine, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.float(), exact, atol=0.08, rtol=0.05)
