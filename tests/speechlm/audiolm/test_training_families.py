"""Each family as training uses it: its parts, exactness against the stock forward with labels, and saving."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.audio.turns import Turn
from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.families import FAMILIES
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.audiolm.families.shared_rows import shares_rows
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.data.packing import Mode, Response, plan_layout
from rba_bench.training.model import trainable_parts as parts
from tests.speechlm.audiolm import contract
from tests.speechlm.audiolm.omni_granite_phi import granite_inputs, omni_inputs, phi_inputs

PROMPT = "what is said here ?"
ANSWERS = (  # clip, what is answered
    (0, "the capital"),
    (0, "der hund schläft"),
    (1, "paris"),
)
PARTS = ("encoder", "projector", "llm")
Gradients = dict[str, dict[str, torch.Tensor]]


def composite_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    return dict(family.processor(text=family.render(prompt), audio=audio))


STOCK: dict[str, Callable[..., dict[str, Any]]] = {
    "tiny_composite_dir": composite_inputs,
    "qwen2_audio_dir": contract.stock_inputs,
    "audioflamingo3_dir": contract.stock_inputs,
    "glmasr_dir": contract.stock_inputs,
    "voxtral_dir": contract.voxtral_inputs,
    "omni_dir": omni_inputs,
    "granite_dir": granite_inputs,
    "phi_dir": phi_inputs,
}


@dataclass
class Case:
    """A loaded family, two clips, and what the stock forward makes of the answers."""

    folder: Path
    family: AudioFamily
    clips: list[np.ndarray]
    inputs_of: Callable[..., dict[str, Any]]
    logprobs: list[torch.Tensor]
    gradients: Gradients

    @property
    def branches(self) -> list[Response]:
        return [Response(clip, tuple(self.family.answer_ids(text))) for clip, text in ANSWERS]


@pytest.fixture(scope="module", params=STOCK)
def case(request: pytest.FixtureRequest, speech: list[np.ndarray]) -> Case:
    folder = request.getfixturevalue(request.param)
    made = Case(folder, load_family(folder), speech[:2], STOCK[request.param], [], {})
    parts.freeze(made.family, PARTS)
    made.logprobs, made.gradients = _stock(made)
    return made


def _stock(case: Case) -> tuple[list[torch.Tensor], Gradients]:
    """Log-probabilities and gradients of the model's own forward with labels: one answer a call, padded as it pads."""
    family = case.family
    family.model.zero_grad()
    found = []
    prompts = [case.inputs_of(family, clip, PROMPT) for clip in case.clips]
    for branch in case.branches:
        inputs = dict(prompts[branch.clip])
        answer = torch.tensor([branch.tokens])
        prompt = inputs.pop("input_ids")
        ids = torch.cat([prompt, answer], dim=1)
        labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
        output = family.model(
            **{**inputs, "attention_mask": torch.ones_like(ids)}, input_ids=ids, labels=labels
        )
        logits = output.logits[0, -len(branch.tokens) - 1 : -1].float()
        logprobs = logits.log_softmax(-1).gather(1, answer[0][:, None])[:, 0]
        assert float((logprobs.mean() + output.loss).abs().detach()) < 1e-4
        logprobs.sum().backward()
        found.append(logprobs.detach())
    return found, _gradients(family)


def _ours(case: Case, mode: Mode) -> tuple[list[torch.Tensor], Gradients]:
    """The same from one batch, taken apart: true length, shared prompts, rows of several clips."""
    family = case.family
    family.model.zero_grad()
    embeds, counts = family.project(*family.encode_audio(family.features(case.clips)))
    prompts = [torch.tensor(family.expand(family.prompt_ids(PROMPT), int(n))) for n in counts]
    layout = plan_layout(prompts, case.branches, mode, family.pad_id)
    order = layout.clip_of_document
    merged = family.merge(layout.input_ids, embeds[order], counts[order])
    mask = layout.attention_mask(merged.dtype)
    assert mask is not None and mask.ndim == (2 if mode == "pad" else 4)
    hidden = family.decode(merged, mask, layout.position_ids, use_cache=False)
    logits = family.head(hidden.flatten(0, 1)[layout.sources])
    logprobs = logits.log_softmax(-1).gather(-1, layout.targets[..., None])[..., 0]
    logprobs[layout.mask].sum().backward()
    rows = [row[kept].detach() for row, kept in zip(logprobs, layout.mask, strict=True)]
    return rows, _gradients(family)


def _gradients(family: AudioFamily) -> Gradients:
    part_of = family.part_of()
    found: Gradients = {name: {} for name in PARTS}
    for name, parameter in family.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} trains, but nothing reaches it"
            found[part_of[id(parameter)]][name] = parameter.grad.clone()
    return found


def _same(found: tuple[list[torch.Tensor], Gradients], case: Case) -> None:
    logprobs, gradients = found
    for ours, theirs in zip(logprobs, case.logprobs, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-4
    for part in PARTS:
        assert gradients[part].keys() == case.gradients[part].keys() != set()
        ours = torch.cat([gradients[part][name].flatten() for name in gradients[part]])
        theirs = torch.cat([case.gradients[part][name].flatten() for name in gradients[part]])
        assert float(theirs.norm()) > 1e-3
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


def test_every_family_is_here() -> None:
    types = {"qwen2_5_omni" if name == "omni_dir" else name.removesuffix("_dir") for name in STOCK}
    known = {"rba_composite": "tiny_composite", "granite_speech": "granite", "phi4_multimodal": "phi"}
    assert {known.get(name, name) for name in FAMILIES} - {"qwen2_5_omni_thinker"} == types


def test_every_parameter_is_in_one_part_or_unused(case: Case) -> None:
    family = case.family
    sets = [
        {id(parameter) for module in modules for parameter in module.parameters()}
        for modules in (*family.parts().values(), family.unused())
    ]
    assert sum(map(len, sets)) == len(set().union(*sets))
    assert set().union(*sets) == {id(parameter) for parameter in family.model.parameters()}
    assert all(id(parameter) in sets[0] for parameter in family.frozen_parameters())


def test_earlier_turns_stand_as_text_before_the_one_clip(case: Case) -> None:
    family = case.family
    turns = (Turn("where is the dog", "in the garden"), Turn("and the lake", "far away"))
    ids, text = family.prompt_ids(PROMPT, turns), family.render(PROMPT, turns)
    words = ["where is the dog", "in the garden", "and the lake", "far away", PROMPT]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert list(ids) == family.tokenizer(text, add_special_tokens=family._adds_special)["input_ids"]
    placeholder = str(family.tokenizer.convert_ids_to_tokens(family.audio_token_id))
    assert ids.count(family.audio_token_id) == 1 and text.index(placeholder) > places[3]
    assert family.prompt_ids(PROMPT, ()) == family.prompt_ids(PROMPT) != ids
    try:
        family.render_text("so what")
    except UserError:  # the template takes no turn of parts without audio
        return
    read = family.render_text("so what", turns)
    assert read.index("far away") < read.index("so what") and placeholder not in read


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logprobs_and_gradients_are_those_of_the_stock_forward(case: Case, attention: str) -> None:
    case.family.model.set_attn_implementation(attention)
    try:
        assert shares_rows(case.family.decoder)
        _same(_ours(case, "pack"), case)
        if attention == "sdpa":
            _same(_ours(case, "pad"), case)
    finally:
        case.family.model.set_attn_implementation("sdpa")


def test_checkpointing_changes_no_gradient(case: Case) -> None:
    """In training mode: dropout is off, batch statistics stay, and activations are computed twice."""
    family = load_family(case.folder)
    parts.freeze(family, PARTS)
    parts.disable_dropout(family)
    whole = "granite" not in str(case.folder)  # its conformer cannot; its decoder can
    parts.checkpoint_activations(family, PARTS if whole else ("projector", "llm"))
    family.model.train()
    calls: list[int] = []
    for layer in family.decoder.layers:
        layer.self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    again = Case(case.folder, family, case.clips, case.inputs_of, case.logprobs, case.gradients)
    _same(_ours(again, "pack"), case)
    assert len(calls) == 2 * len(family.decoder.layers)


def test_what_is_saved_loads_here_and_in_stock_transformers(case: Case, tmp_path: Path) -> None:
    family = load_family(case.folder)
    parts.freeze(family, PARTS)
    with torch.no_grad():
        for parameter in family.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
    family.save(tmp_path / "saved")
    reloaded = load_family(tmp_path / "saved")
    stock = type(family.model).from_pretrained(tmp_path / "saved", dtype="float32").eval()
    assert reloaded.prompt_ids(PROMPT) == family.prompt_ids(PROMPT)
    assert (reloaded.stops, reloaded.identity().keys()) == (family.stops, family.identity().keys())
    inputs = case.inputs_of(family, case.clips[0], PROMPT)
    if family.has_adapter and "phi" in str(case.folder):  # its adapter lies apart and is asked for
        stock.load_adapter(str(tmp_path / "saved" / "speech-lora"), adapter_name="lora_of_checkpoint")
    with torch.no_grad():
        expected = family.model(**inputs).logits
        before = load_family(case.folder).model(**inputs).logits
        for model in (reloaded.model, stock):
            assert torch.equal(model(**inputs).logits, expected)
    assert not torch.equal(before, expected)


def test_its_text_decoder_alone_gives_the_same_logits(case: Case, tmp_path: Path) -> None:
    """Loaded by transformers as the causal language model that it is: what a server of text models makes of it."""
    from transformers import AutoModelForCausalLM

    family = case.family
    TextDecoder(family).save(tmp_path, torch.float32)
    alone = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    embeds, counts = family.project(*family.encode_audio(family.features(case.clips[:1])))
    ids = torch.tensor([family.expand(family.prompt_ids(PROMPT), int(counts[0]))])
    with torch.no_grad():
        merged = family.merge(ids, embeds, counts)
        positions = torch.arange(merged.shape[1])[None]
        expected = family.head(family.decode(merged, None, positions, use_cache=False))
        torch.testing.assert_close(alone(inputs_embeds=merged).logits, expected, rtol=1e-5, atol=2e-5)


def test_steady_batches_give_a_clip_its_own_states_to_the_last_bit_in_any_company(case: Case) -> None:
    family = case.family
    if not family.steady:
        pytest.skip("encodes by itself what differs in length")
    second = case.clips[1][: int(0.9 * len(case.clips[0]))]
    for clip in (case.clips[0], second):
        frames, _ = family.steady_frames(len(clip))
        mates = [clip[: len(clip) // 2], second[: len(clip)], np.zeros(3200, np.float32)]
        found = []
        for batch in ([clip, *mates], [mates[2], mates[0], clip, clip], [clip] * 4):
            place = next(i for i, wave in enumerate(batch) if wave is clip)
            with torch.no_grad():
                states, lengths = family.encode_audio(family.pad_frames(family.features(batch), frames))
            found.append(states[place, : lengths[place]])
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        with torch.no_grad():
            alone, (length,) = family.encode_audio(family.features([clip]))
        torch.testing.assert_close(found[0], alone[0, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", STOCK)
def test_a_model_without_weights_has_the_same_parts_parameters_and_prompts(
    request: pytest.FixtureRequest, path: str
) -> None:
    """As processes make it that get their shares of the weights from another one."""
    folder = request.getfixturevalue(path)
    full, hollow = load_family(folder), load_family(folder, "meta")

    def outline(family: AudioFamily) -> dict[str, tuple[int, ...]]:
        everything = [
            *family.model.named_parameters(remove_duplicate=False),
            *family.model.named_buffers(remove_duplicate=False),
        ]
        return {name: tuple(tensor.shape) for name, tensor in everything}

    assert outline(hollow) == outline(full)
    assert {parameter.device.type for parameter in hollow.model.parameters()} == {"meta"}
    assert hollow.prompt_ids(PROMPT) == full.prompt_ids(PROMPT) and hollow.stops == full.stops
    assert {name: len(modules) for name, modules in hollow.parts().items()} == {
        name: len(modules) for name, modules in full.parts().items()
    }
