"""The own LLM as a text model, and the training sets it writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.textlm.local import LocalTextLM
from rba_bench.textlm.text_model import Decoding, TextLM
from rba_bench.training.options.nested_options import CONTINUE, TeacherOptions
from rba_bench.training.teachers.readers import PolicyTextLM

TEXTS = ("what is the capital of france", "der hund schläft im garten", "give me a plan")
GREEDY = Decoding(max_new_tokens=8)


def test_the_composites_llm_is_the_text_model_it_was_made_of(
    student: Callable[..., Any], tiny_textlm_dir: Path
) -> None:
    own, plain = PolicyTextLM(student(), "w", 2), LocalTextLM.from_pretrained(tiny_textlm_dir)
    assert isinstance(own, TextLM)
    sampled = Decoding(max_new_tokens=8, temperature=1.0)
    for decoding in (GREEDY, sampled):
        assert own.chat(TEXTS, decoding, [1, 2, 3]) == plain.chat(TEXTS, decoding, [1, 2, 3])
    raw = [own.pre_query_template()] * 2
    assert raw[0] == plain.pre_query_template()
    assert own.complete(raw, sampled, [5, 6]) == plain.complete(raw, sampled, [5, 6])
    responses = ["paris", "the dog", "go early"]
    assert own.logprobs(TEXTS, responses) == pytest.approx(plain.logprobs(TEXTS, responses), abs=1e-3)
    assert own.identity() == {"kind": "self", "path": "self", "weights_sha256": "w"}


@torch.no_grad()
def test_another_family_speaks_by_its_own_template(student: Callable[..., Any]) -> None:
    family = student("qwen2")
    family.model.train()
    own = PolicyTextLM(family, "w")
    answer = own.chat(TEXTS[:1], GREEDY, [0])[0]
    ids, drawn = list(family.text_ids(TEXTS[0])), []
    family.model.eval()
    for _ in range(8):
        token = int(family.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in family.stops:
            break
        drawn.append(token)
        ids.append(token)
    assert answer.text == family.tokenizer.decode(drawn, skip_special_tokens=True).strip()
    assert answer.n_tokens == len(drawn)
    tokens = family.answer_ids("paris")
    whole = torch.tensor([[*family.text_ids(TEXTS[0]), *tokens]])
    odds = family.model(input_ids=whole).logits[0, -len(tokens) - 1 : -1].log_softmax(-1)
    expected = float(odds.gather(-1, torch.tensor(tokens)[:, None]).sum())
    family.model.train()
    assert own.logprobs(TEXTS, ["paris", "a", "b c d"])[0] == pytest.approx(expected, abs=1e-3)
    assert family.model.training


def test_adapters_can_be_left_out(student: Callable[..., Any]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    family = student()
    before = PolicyTextLM(family, "w").chat(TEXTS, GREEDY, [0, 0, 0])
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj", "v_proj"]), family.decoder)
    with torch.no_grad():
        for name, weight in family.decoder.named_parameters():
            if "lora_" in name:
                weight.normal_()
    assert PolicyTextLM(family, "w", adapters=False).chat(TEXTS, GREEDY, [0, 0, 0]) == before
    assert PolicyTextLM(family, "w").chat(TEXTS, GREEDY, [0, 0, 0]) != before


def test_half_precision_is_computed_in_whatever_the_weights_are_in(student: Callable[..., Any]) -> None:
    """A policy in bfloat16 keeps what trains in float32; its own LLM then answers as it does when sampled."""
    family = student()
    seen: list[torch.dtype] = []
    layer = next(m for m in family.decoder.modules() if isinstance(m, torch.nn.Linear))
    layer.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    PolicyTextLM(family, "w").chat(TEXTS[:1], GREEDY, [0])
    PolicyTextLM(family, "w", half=True).chat(TEXTS[:1], GREEDY, [0])
    assert set(seen) == {torch.float32, torch.bfloat16} and seen[0] == torch.float32


def test_options_refuse_what_cannot_be() -> None:
    assert TeacherOptions().answers.prompt == CONTINUE
    for wrong in (
        {"jsd_weight": 1.5},
        {"temperature": 0},
        {"top_k": -1},
        {"answers": {"prompt": " "}},
        {"model_": 1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            TeacherOptions.model_validate(wrong)
