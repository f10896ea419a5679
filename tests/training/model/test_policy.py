"""Layout, log-probabilities and sampling against plain forward passes and generate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.textlm.sampling import continue_batch
from rba_bench.textlm.text_model import Decoding
from rba_bench.training.data.batch import StateTargets
from rba_bench.training.data.clips import ResponseTokens, shared_cache
from rba_bench.training.data.packing import Response, plan_layout
from rba_bench.training.methods.method import TeacherDivergence
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rollouts import rollout
from rba_bench.training.rollouts.rollout import sample_answers

BRANCHES = [
    Response(0, (30, 31, 32, 4)),
    Response(0, (40, 4)),
    Response(1, (4,)),
    Response(1, (50, 51, 52, 53, 4)),
    Response(2, (9,)),
]


def reference_logprobs(family: Any, clip: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    """One answer alone through the ordinary forward."""
    ids = torch.cat([clip.prompt_ids, torch.tensor(tokens)])[None]
    logits = family.model(input_ids=ids, audio_states=clip.sound[None]).logits
    start = len(clip.prompt_ids) - 1
    logprobs = logits[0, start : start + len(tokens)].log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(tokens)[:, None])[:, 0]


def test_layout_by_hand() -> None:
    layout = plan_layout(
        [torch.tensor([7, 8]), torch.tensor([9])],
        [Response(0, (1, 2)), Response(0, (3,)), Response(1, (4, 5, 6))],
    )
    assert layout.input_ids.tolist() == [[7, 8, 1], [9, 4, 5]]
    assert layout.segments.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert layout.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert layout.sources.tolist() == [[1, 2, 0], [1, 0, 0], [3, 4, 5]]
    assert layout.targets.tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert layout.mask.sum(1).tolist() == [2, 1, 3]


def test_answers_in_one_row_do_not_see_each_other() -> None:
    layout = plan_layout([torch.tensor([7])], [Response(0, (1, 2, 3)), Response(0, (4, 5, 6))])
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
        plan_layout([torch.tensor([7])], [Response(0, ())])


@pytest.mark.parametrize("mode", ["pack", "share", "pad"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logprobs_equal_plain_forward(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    mode: Any,
    attention: str,
) -> None:
    family.model.set_attn_implementation(attention)
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    family.model.eval()
    values, mask, *_ = SpeechPolicy(family, layout=mode)(clips, BRANCHES)
    for row, flags, response in zip(values, mask, BRANCHES, strict=True):
        expected = reference_logprobs(family, clips[response.clip], response.tokens)
        assert flags.sum() == len(response.tokens)
        torch.testing.assert_close(row[flags], expected, atol=2e-5, rtol=1e-4)


def test_gradients_are_the_same_however_answers_lie(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    gradients = []
    modes: tuple[Any, ...] = ("pad", "share", "pack")
    for mode in modes:
        family.model.zero_grad()
        values, mask, *_ = SpeechPolicy(family, layout=mode)(clips, BRANCHES)
        values[mask].sum().backward()
        gradients.append([p.grad.clone() for p in family.model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len(gradients[2]) > 20
    for padded, *others in zip(*gradients, strict=True):
        for other in others:
            torch.testing.assert_close(other, padded, atol=1e-3, rtol=1e-3)


def test_chunked_head_changes_nothing(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    model = family.model
    policy = SpeechPolicy(family)
    whole = policy(clips, BRANCHES).logprobs
    whole.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr("rba_bench.training.model.policy.CHUNK_ELEMENTS", 4 * model.lm_head.weight.shape[0])
    chunked = policy(clips, BRANCHES).logprobs
    chunked.sum().backward()
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(model.lm_head.weight.grad, gradient, atol=1e-4, rtol=1e-4)


def test_training_encoder_takes_waves_and_gives_it_gradient(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    batch = [rows[0], rows[4], rows[8]]
    family.model.eval()
    frozen = SpeechPolicy(family)(store_for(family).get(batch), BRANCHES).logprobs
    store = store_for(family, frozen=False)
    values = SpeechPolicy(family, frozen_encoder=False)(store.get(batch), BRANCHES).logprobs
    torch.testing.assert_close(values, frozen, atol=2e-5, rtol=1e-4)
    values.sum().backward()
    assert family.model.model.audio_tower.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_equals_generate(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], temperature: float
) -> None:
    batch = [rows[0], rows[4], rows[8], rows[1]]
    clips = store_for(family).get(batch)
    requests, seeds = [0, 1, 2, 3, 3], [35, 36, 37, 38, 39]
    decoding, ends = Decoding(max_new_tokens=7, temperature=temperature), [4, 20, 21, 22, 23, 24, 25, 26]
    drawn = sample_answers(SpeechPolicy(family), clips, requests, seeds, decoding, ends)

    from rba_bench.audio.clips import load_clip

    texts = [family.processor.render(batch[i].prompt) for i in requests]
    inputs = family.processor(texts, [load_clip(batch[i].audio) for i in requests], padding_side="left")
    expected = continue_batch(
        family.model.eval(), inputs, decoding, seeds, stop_ids=ends, pad_id=family.pad_id
    )
    assert [draw.ended for draw in drawn] == [cut.ended for cut in expected]
    bodies = [draw.tokens[:-1] if draw.ended else draw.tokens for draw in drawn]
    assert bodies == [tuple(cut.tokens) for cut in expected]
    assert len({len(draw.tokens) for draw in drawn}) > 1 or temperature == 0


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_decoder_that_the_engine_cannot_drive_draws_the_same_in_a_plain_loop(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    policy, requests, seeds = SpeechPolicy(family), [0, 1, 2, 1], [5, 6, 7, 8]
    decoding, ends = Decoding(max_new_tokens=7, temperature=temperature), [4, 20, 21, 22]
    assert rollout.uses_generation_engine(policy)
    driven = rollout.sample_answers(
        policy, clips, requests, seeds, decoding, ends, with_logprobs=True, slots=2
    )
    monkeypatch.setattr(rollout, "speech_decoder", lambda family: None)
    assert not rollout.uses_generation_engine(policy)
    plain = rollout.sample_answers(policy, clips, requests, seeds, decoding, ends, with_logprobs=True)
    assert [(draw.tokens, draw.ended) for draw in driven] == [(draw.tokens, draw.ended) for draw in plain]
    for one, other in zip(driven, plain, strict=True):
        torch.testing.assert_close(
            torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5, rtol=1e-4
        )


def test_sampling_does_not_depend_on_batch_mates_and_keeps_the_mode(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    clips = store_for(family).get([rows[0], rows[4]])
    policy = SpeechPolicy(family).train()
    decoding = Decoding(max_new_tokens=6, temperature=1.0)
    together = sample_answers(policy, clips, [0, 1, 0], [1, 2, 3], decoding, [4])
    alone = [
        sample_answers(policy, clips, [clip], [seed], decoding, [4])[0]
        for clip, seed in ((0, 1), (1, 2), (0, 3))
    ]
    assert together == alone
    assert together[0] != together[2]
    assert policy.training


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_sample_logprobs_are_the_policys_own_at_their_temperature(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], temperature: float
) -> None:
    clips = store_for(family).get([rows[0], rows[4]])
    policy = SpeechPolicy(family).eval()
    decoding = Decoding(max_new_tokens=5, temperature=temperature)
    drawn = sample_answers(policy, clips, [0, 1], [1, 2], decoding, [4], with_logprobs=True)
    heat = temperature or 1.0  # what was not drawn is scored plainly
    scores = policy(clips, [Response(clip, draw.tokens, heat) for clip, draw in enumerate(drawn)])
    for row, mask, draw in zip(scores.logprobs, scores.mask, drawn, strict=True):
        assert len(draw.logprobs) == len(draw.tokens)
        torch.testing.assert_close(row[mask], torch.tensor(draw.logprobs), atol=1e-4, rtol=1e-4)


def test_hidden_states_and_sound_on_demand(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    policy = SpeechPolicy(family).eval()
    assert policy(clips, BRANCHES).hidden.numel() == policy(clips, BRANCHES).sound.numel() == 0
    scores = policy(clips, BRANCHES, extra_outputs=("hidden", "sound"))
    logprobs = family.head(scores.hidden).log_softmax(-1)
    for number, response in enumerate(BRANCHES):
        picked = logprobs[number, range(len(response.tokens)), list(response.tokens)]
        torch.testing.assert_close(picked, scores.logprobs[number, : len(response.tokens)])
    for clip, sound, count in zip(clips, scores.sound, scores.n_sound.tolist(), strict=True):
        assert count == int((clip.prompt_ids == family.audio_token_id).sum()) <= len(sound)


@pytest.mark.parametrize("chunk", [2**26, 300])
def test_an_answer_is_scored_at_its_own_temperature(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
) -> None:
    """One answer at two temperatures in one batch, values and entropies from the states, gradients like autograd's."""
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    policy = SpeechPolicy(family).eval()
    monkeypatch.setattr("rba_bench.training.model.policy.CHUNK_ELEMENTS", chunk)
    responses = [*BRANCHES, replace(BRANCHES[0], temperature=0.5), replace(BRANCHES[3], temperature=2.0)]
    scores = policy(clips, responses, extra_outputs=("hidden", "entropy"))
    assert policy(clips, responses).entropy.numel() == 0
    heat = torch.tensor([1.0] * 5 + [0.5, 2.0])[:, None, None]
    logprobs = (family.head(scores.hidden) / heat).log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    for number, response in enumerate(responses):
        size = len(response.tokens)
        picked = logprobs[number, range(size), list(response.tokens)]
        torch.testing.assert_close(scores.logprobs[number, :size], picked, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scores.entropy[number, :size], entropies[number, :size])
    assert not scores.entropy.requires_grad and not scores.entropy[~scores.mask].any()
    weight = family.model.get_output_embeddings().weight
    [plain] = torch.autograd.grad(
        logprobs[5, range(4), list(BRANCHES[0].tokens)].sum(), weight, retain_graph=True
    )
    [ours] = torch.autograd.grad(scores.logprobs[5].sum(), weight)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)


def test_text_stands_beside_speech(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    store = store_for(family)
    clips = [*store.get([rows[0]]), *store.text([rows[0], rows[4]])]
    policy = SpeechPolicy(family).eval()
    scores = policy(clips, BRANCHES)
    assert scores.n_sound[1:].tolist() == [0, 0]
    ids = torch.cat([clips[1].prompt_ids, torch.tensor(BRANCHES[3].tokens)])[None]
    logits = family.model(input_ids=ids).logits[0, len(clips[1].prompt_ids) - 1 : -1].log_softmax(-1)
    expected = logits.gather(-1, torch.tensor(BRANCHES[3].tokens)[:, None])[:, 0]
    torch.testing.assert_close(scores.logprobs[3][scores.mask[3]], expected, atol=2e-5, rtol=1e-4)
    alone = policy(store.text([rows[0], rows[4]]), [replace(BRANCHES[3], clip=0)])
    torch.testing.assert_close(alone.logprobs[0][alone.mask[0]], expected, atol=2e-5, rtol=1e-4)
    assert alone.n_sound.tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least one clip with sound"):
        policy.sound(store.text([rows[0]]))


def test_a_control_hears_the_transcript_or_silence_instead(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    plain, cache = store_for(family), EncoderCache("shared", 2**20)
    [spoken] = plain.get([rows[0]])
    read = store_for(family, hear="transcript")
    assert [clip.prompt_ids.tolist() for clip in read.inputs([(rows[0], False)])] == [
        clip.prompt_ids.tolist() for clip in plain.text([rows[0]])
    ]
    assert read.get([rows[0]])[0].sound is None and read.encoded == 0
    store_for(family, cache=cache).get(
        [rows[0]]
    )  # states of speech are there, and must not be taken for silence
    for _ in range(2):  # made, then from the cache
        [silent] = store_for(family, hear="silence", cache=cache).get([rows[0]])
        [expected] = plain.silence([rows[0]])
        assert torch.equal(silent.sound, expected.sound) and not torch.equal(silent.sound, spoken.sound)
        assert torch.equal(silent.prompt_ids, spoken.prompt_ids)


def test_each_clip_keeps_its_own_sound_beside_text(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    policy, store = SpeechPolicy(family), store_for(family)
    first, last = store.get([rows[0]])[0], store.get([rows[4]])[0]
    sound, counts = policy.sound([first, *store.text([rows[3]]), last])
    for clip, place in ((first, 0), (last, 2)):
        alone, (size,) = policy.sound([clip])
        assert counts[place] == size
        torch.testing.assert_close(sound[place, :size], alone[0], rtol=1e-4, atol=1e-5)
    assert counts[1] == 0


def test_divergence_from_oneself_is_zero_and_reaches_only_its_branches(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = store_for(family).get([rows[0], rows[4], rows[8]])
    policy = SpeechPolicy(family).eval()
    plain = policy(clips, BRANCHES, extra_outputs=("hidden",))
    states = torch.cat([plain.hidden[n][plain.mask[n]] for n in (1, 3)]).detach()
    own = StateTargets((1, 3), states, family.head)
    torch.testing.assert_close(
        policy(clips, BRANCHES, own, TeacherDivergence()).divergence, torch.zeros_like(plain.logprobs)
    )
    other = StateTargets((1, 3), states.flip(0), family.head)
    whole = policy(clips, BRANCHES, other, TeacherDivergence("reverse", 2.0)).divergence
    assert (whole[[1, 3]][plain.mask[[1, 3]]] > 0).any() and not whole[[0, 2, 4]].any()
    monkeypatch.setattr(
        "rba_bench.training.model.policy.CHUNK_ELEMENTS", 2 * family.model.lm_head.weight.shape[0]
    )
    torch.testing.assert_close(
        policy(clips, BRANCHES, other, TeacherDivergence("reverse", 2.0)).divergence, whole
    )


def test_response_tokens_end_with_the_end_of_turn(family: Any) -> None:
    ids = ResponseTokens(family)("the lake")
    assert family.tokenizer.decode(ids) == "the lake<|end|>"


def test_clips_are_encoded_once_and_forgotten_by_size(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    store = store_for(family)
    first, again = store.get(rows[:6]), store.get(rows[:6])
    assert store.encoded == 6
    assert all(torch.equal(a.sound, b.sound) for a, b in zip(first, again, strict=True))
    small = store_for(family, cache=EncoderCache("small", 1))
    small.get(rows[:6])
    small.get(rows[:3])
    assert small.encoded == 9
    assert torch.equal(small.get(rows[:1])[0].sound, first[0].sound)


def test_runs_alike_share_their_clips_and_later_ones_find_them_on_disk(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], tmp_path: Path
) -> None:
    one = store_for(family, cache=shared_cache("a", 100))
    sound = one.get(rows[:1])[0].sound
    two = store_for(family, cache=shared_cache("a", 100))
    assert torch.equal(two.get(rows[:1])[0].sound, sound) and two.encoded == 0
    for tag in ("b", "a"):  # only the last run's is kept
        other = store_for(family, cache=shared_cache(tag, 100))
        other.get(rows[:1])
        assert other.encoded == 1
    store_for(family, cache=EncoderCache("c", 2**20, tmp_path)).get(rows[:1])
    later = store_for(family, cache=EncoderCache("c", 2**20, tmp_path))
    assert torch.equal(later.get(rows[:1])[0].sound, sound) and later.encoded == 0


def test_rows_hold_little_padding_where_attention_is_cheap() -> None:
    prompts = [torch.arange(40 + 7 * (number % 9)) for number in range(32)]
    responses = [Response(number, tuple(range(20))) for number in range(32)]
    layout = plan_layout(prompts, responses, "pack", reach=1500.0)
    one_each = plan_layout(prompts, responses, "share")
    assert (layout.segments < 0).float().mean() < 0.04 < (one_each.segments < 0).float().mean()
    assert layout.input_ids.shape[1] < 3 * one_each.input_ids.shape[1]
    assert sorted(layout.clip_of_document.tolist()) == list(range(32))


def test_short_conversations_share_a_row() -> None:
    prompts = [torch.tensor([7, 8, 9, 7]), torch.tensor([5]), torch.tensor([6])]
    responses = [Response(0, (1, 2)), Response(1, (3, 4)), Response(2, (5,)), Response(1, (6,))]
    layout = plan_layout(
        prompts, responses, "pack", reach=1.0
    )  # attention is dear: no row longer than it must be
    assert layout.input_ids.tolist() == [[7, 8, 9, 7, 1], [5, 3, 6, 0, 0]]
    assert layout.documents.tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, -1, -1]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 0, 0]]
    assert layout.clip_of_document.tolist() == [0, 1, 2]
    seen = layout.attention_mask(torch.float32)
    assert seen is not None
    assert (seen[1, 0, :3, :3] == 0).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    cheap = plan_layout(prompts, responses, "pack", reach=1000.0)  # attention is cheap: no padding
    assert cheap.input_ids.tolist() == [[7, 8, 9, 7, 1, 5, 3, 6]]
    assert cheap.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 0]]
    alone = plan_layout(prompts[:1], responses[:1], "pack")
    assert alone.causal and alone.attention_mask(torch.float32) is None
