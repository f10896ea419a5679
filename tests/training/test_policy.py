"""Layout, log-probabilities and sampling against plain forward passes and generate."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.textlm.base import Decoding
from rba_bench.textlm.sampling import continue_batch
from rba_bench.training.clips import ClipMemory, ResponseTokens, shared_memory
from rba_bench.training.layout import Branch, plan
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.rollout import sample

BRANCHES = [
    Branch(0, (30, 31, 32, 4)),
    Branch(0, (40, 4)),
    Branch(1, (4,)),
    Branch(1, (50, 51, 52, 53, 4)),
    Branch(2, (9,)),
]


def reference_logprobs(model: Any, clip: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    """One answer alone through the ordinary forward."""
    ids = torch.cat([clip.prompt_ids, torch.tensor(tokens)])[None]
    logits = model(input_ids=ids, audio_states=clip.sound[None]).logits
    start = len(clip.prompt_ids) - 1
    logprobs = logits[0, start : start + len(tokens)].log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(tokens)[:, None])[:, 0]


def test_layout_by_hand() -> None:
    layout = plan(
        [torch.tensor([7, 8]), torch.tensor([9])], [Branch(0, (1, 2)), Branch(0, (3,)), Branch(1, (4, 5, 6))]
    )
    assert layout.input_ids.tolist() == [[7, 8, 1], [9, 4, 5]]
    assert layout.segments.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert layout.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert layout.sources.tolist() == [[1, 2, 0], [1, 0, 0], [3, 4, 5]]
    assert layout.targets.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert layout.mask.sum(1).tolist() == [2, 1, 3]


def test_answers_in_one_row_do_not_see_each_other() -> None:
    layout = plan([torch.tensor([7])], [Branch(0, (1, 2, 3)), Branch(0, (4, 5, 6))])
    seen = layout.attention_mask(torch.float32)[0, 0] == 0
    assert layout.segments.tolist() == [[0, 1, 1, 2, 2]]
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]


def test_empty_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        plan([torch.tensor([7])], [Branch(0, ())])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logprobs_equal_plain_forward(
    parts: tuple[Any, Any],
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    shared: bool,
    attention: str,
) -> None:
    model, processor = parts
    model.set_attn_implementation(attention)
    clips = store_for(model, processor).get([rows[0], rows[4], rows[8]])
    values, mask = SpeechPolicy(model.eval(), share_prefix=shared)(clips, BRANCHES)
    for row, flags, branch in zip(values, mask, BRANCHES, strict=True):
        expected = reference_logprobs(model, clips[branch.clip], branch.tokens)
        assert flags.sum() == len(branch.tokens)
        torch.testing.assert_close(row[flags], expected, atol=2e-5, rtol=1e-4)


def test_gradients_are_the_same_with_and_without_sharing(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    model, processor = parts
    clips = store_for(model, processor).get([rows[0], rows[4], rows[8]])
    gradients = []
    for shared in (True, False):
        model.zero_grad()
        values, mask = SpeechPolicy(model, share_prefix=shared)(clips, BRANCHES)
        values[mask].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_chunked_head_changes_nothing(
    parts: tuple[Any, Any],
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = parts
    clips = store_for(model, processor).get([rows[0], rows[4], rows[8]])
    policy = SpeechPolicy(model)
    whole, _ = policy(clips, BRANCHES)
    whole.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr("rba_bench.training.policy.CHUNK_ELEMENTS", 4 * model.lm_head.weight.shape[0])
    chunked, _ = policy(clips, BRANCHES)
    chunked.sum().backward()
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(model.lm_head.weight.grad, gradient, atol=1e-4, rtol=1e-4)


def test_training_encoder_takes_features_and_gives_it_gradient(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    model, processor = parts
    batch = [rows[0], rows[4], rows[8]]
    frozen, _ = SpeechPolicy(model.eval())(store_for(model, processor).get(batch), BRANCHES)
    store = store_for(model, processor, frozen=False)
    values, _ = SpeechPolicy(model, frozen_encoder=False)(store.get(batch), BRANCHES)
    torch.testing.assert_close(values, frozen, atol=2e-5, rtol=1e-4)
    values.sum().backward()
    assert model.model.audio_tower.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_equals_generate(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow], temperature: float
) -> None:
    model, processor = parts
    batch = [rows[0], rows[4], rows[8], rows[1]]
    clips = store_for(model, processor).get(batch)
    requests, seeds = [0, 1, 2, 3, 3], [5, 6, 7, 8, 9]
    decoding, ends = Decoding(max_new_tokens=7, temperature=temperature), [4, 20, 21, 22, 23, 24, 25, 26]
    drawn = sample(SpeechPolicy(model), clips, requests, seeds, decoding, ends)

    from rba_bench.audio.clips import load

    texts = [processor.render(batch[i].prompt) for i in requests]
    inputs = processor(texts, [load(batch[i].audio) for i in requests], padding_side="left")
    expected = continue_batch(model.eval(), inputs, decoding, seeds, stop_ids=ends, pad_id=0)
    assert [draw.ended for draw in drawn] == [cut.ended for cut in expected]
    bodies = [draw.tokens[:-1] if draw.ended else draw.tokens for draw in drawn]
    assert bodies == [tuple(cut.tokens) for cut in expected]
    assert len({len(draw.tokens) for draw in drawn}) > 1 or temperature == 0


def test_sampling_does_not_depend_on_batch_mates_and_keeps_the_mode(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    model, processor = parts
    clips = store_for(model, processor).get([rows[0], rows[4]])
    policy = SpeechPolicy(model).train()
    decoding = Decoding(max_new_tokens=6, temperature=1.0)
    together = sample(policy, clips, [0, 1, 0], [1, 2, 3], decoding, [4])
    alone = [
        sample(policy, clips, [clip], [seed], decoding, [4])[0] for clip, seed in ((0, 1), (1, 2), (0, 3))
    ]
    assert together == alone
    assert together[0] != together[2]
    assert policy.training


def test_sample_logprobs_are_those_it_was_drawn_with(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    model, processor = parts
    clips = store_for(model, processor).get([rows[0]])
    policy = SpeechPolicy(model.eval())
    greedy = sample(policy, clips, [0], [0], Decoding(max_new_tokens=5), [4])[0]
    values, _ = policy(clips, [Branch(0, greedy.tokens)])
    for position in range(len(greedy.tokens)):
        other = greedy.tokens[:position] + (60 if greedy.tokens[position] != 60 else 61,)
        changed, _ = policy(clips, [Branch(0, other)])
        assert values[0, position] > changed[0, position]


def test_response_tokens_end_with_the_end_of_turn(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    ids = ResponseTokens(processor, [processor.tokenizer.eos_token_id])("translate :", "the lake")
    assert processor.tokenizer.decode(ids) == "the lake<|end|>"


def test_clips_are_encoded_once_and_evicted_by_size(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    store = store_for(*parts)
    first = store.get(rows[:6])
    again = store.get(rows[:6])
    assert store.encoded == 6 and all(a is b for a, b in zip(first, again, strict=True))
    small = store_for(*parts, memory=ClipMemory(1.0))
    small.get(rows[:6])
    small.get(rows[:3])
    assert small.encoded == 9
    assert torch.equal(small.get(rows[:1])[0].sound, first[0].sound)


def test_runs_alike_share_their_clips(
    parts: tuple[Any, Any], store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    one = store_for(*parts, memory=shared_memory("a", 1e9))
    clip = one.get(rows[:1])[0]
    two = store_for(*parts, memory=shared_memory("a", 1e9))
    assert two.get(rows[:1])[0] is clip and two.encoded == 0
    assert store_for(*parts, memory=shared_memory("b", 1e9)).get(rows[:1])[0] is not clip
    assert store_for(*parts, memory=shared_memory("a", 1e9)).get(rows[:1])[0] is not clip
