"""The text teacher's states equal plain full passes in every layout, and reading leaves the student as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rba_bench.errors import UserError
from rba_bench.training.data.packing import Mode, Response
from rba_bench.training.options.nested_options import TeacherOptions
from rba_bench.training.teachers.readers import OtherReader, OwnReader, frozen_copy, without_adapters
from rba_bench.training.teachers.text_teacher import TextTeacher, make_text_teacher

TEXTS = ("what is the capital of france", "give me a plan for the garden", "der hund schläft im garten")
Answers = list[tuple[int, ...]]


def branches_of(answers: Answers) -> list[Response]:
    """Several answers to the first text, one each to the others, one twice."""
    return [
        Response(0, answers[0]),
        Response(1, answers[1]),
        Response(0, answers[1]),
        Response(2, answers[2]),
        Response(0, answers[3]),
        Response(0, answers[0]),
    ]


@torch.no_grad()
def plain_logits(model: Any, turn: Sequence[int], tokens: Sequence[int], head: Any) -> tuple[Tensor, Tensor]:
    """States and logits of one answer by one full pass of the backbone, nothing shared, nothing padded."""
    ids = torch.tensor([[*turn, *tokens]])
    states = model(input_ids=ids, use_cache=False).last_hidden_state[0, len(turn) - 1 : -1]
    return states, head(states)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["composite", "qwen2"])
def test_states_are_those_of_one_answer_at_a_time(
    student: Callable[..., Any], answers: Answers, kind: str, attention: str
) -> None:
    family = student(kind, attention)
    responses = branches_of(answers)
    expected = [
        plain_logits(family.decoder, family.text_ids(TEXTS[b.clip]), b.tokens, family.head) for b in responses
    ]
    cases: list[tuple[Mode, int | None]] = [
        ("pad", None),
        ("pad", 40),
        ("share", 60),
        ("pack", None),
        ("pack", 40),
    ]
    for layout, room in cases:
        text_teacher = TextTeacher(OwnReader(family, "w"), layout=layout, batch_tokens=room)
        found = text_teacher.targets(TEXTS, responses)
        assert found.responses == tuple(range(6))
        assert len(found) == sum(len(response.tokens) for response in responses)
        torch.testing.assert_close(found.states, torch.cat([s for s, _ in expected]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.logits(), torch.cat([x for _, x in expected]), rtol=1e-4, atol=1e-4)


def test_places_choose_branches_in_ascending_order(student: Callable[..., Any], answers: Answers) -> None:
    text_teacher = TextTeacher(OwnReader(student(), "w"))
    responses = branches_of(answers)
    every, some = text_teacher.targets(TEXTS, responses), text_teacher.targets(TEXTS, responses, [3, 1])
    assert some.responses == (1, 3)
    sizes = [len(response.tokens) for response in responses]
    parts = every.states.split(sizes)
    torch.testing.assert_close(some.states, torch.cat([parts[1], parts[3]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(some.part(2, 4).logits(), some.logits()[2:4])


def test_the_same_question_is_read_once(student: Callable[..., Any], answers: Answers) -> None:
    text_teacher = TextTeacher(OwnReader(student(), "w"))
    text_teacher.targets([TEXTS[0]] * 4, [Response(clip, answers[0]) for clip in range(4)])
    assert text_teacher.tokens_read == len(text_teacher.reader.text_ids(TEXTS[0])) + len(answers[0]) - 1


def test_words_of_a_transcript(student: Callable[..., Any]) -> None:
    family = student("qwen2")
    text_teacher = TextTeacher(OwnReader(family, "w"))
    ids = family.tokenizer(TEXTS[1])["input_ids"]
    assert text_teacher.word_ids(TEXTS)[1] == ids
    table = family.model.get_input_embeddings().weight
    torch.testing.assert_close(text_teacher.words(TEXTS)[1], table[ids])


def test_reading_leaves_a_training_student_as_it_was(student: Callable[..., Any], answers: Answers) -> None:
    family = student("qwen2")
    family.model.train()
    family.decoder.layers[0].eval()
    layer = torch.nn.Dropout(0.5)
    family.decoder.layers[1].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), layer)
    text_teacher = TextTeacher(OwnReader(family, "w"))
    found = text_teacher.targets(TEXTS, [Response(0, answers[0])])
    assert torch.equal(
        found.states, text_teacher.targets(TEXTS, [Response(0, answers[0])]).states
    )  # no dropout
    assert not found.states.requires_grad and not found.logits().requires_grad
    assert layer.training and family.model.training and not family.decoder.layers[0].training
    assert all(weight.requires_grad for weight in family.model.parameters())


def test_a_copy_stays_when_the_student_moves(student: Callable[..., Any], answers: Answers) -> None:
    family = student()
    options = TeacherOptions()
    copied = make_text_teacher(options, family, weights="w", shared=False)
    shared = make_text_teacher(options, family, weights="w", shared=True)
    responses = [Response(1, answers[1])]
    before = copied.targets(TEXTS, responses).logits()
    torch.testing.assert_close(shared.targets(TEXTS, responses).logits(), before)
    family.model.requires_grad_(True)
    with torch.no_grad():
        for weight in family.model.parameters():
            weight.add_(0.1)
    assert torch.equal(copied.targets(TEXTS, responses).logits(), before)
    assert (shared.targets(TEXTS, responses).logits() - before).abs().max() > 1e-3


def test_a_copy_shares_what_it_does_not_need(student: Callable[..., Any]) -> None:
    family = student("qwen2")
    family.model.train()
    copied = frozen_copy(family)
    for part in ("encoder", "projector"):
        assert all(a is b for a, b in zip(copied.parts()[part], family.parts()[part], strict=True))
        assert all(module.training for module in family.parts()[part])
        assert all(weight.requires_grad for module in family.parts()[part] for weight in module.parameters())
    mine = {id(weight) for module in family.parts()["llm"] for weight in module.parameters()}
    theirs = [weight for module in copied.parts()["llm"] for weight in module.parameters()]
    assert theirs and not any(id(weight) in mine or weight.requires_grad for weight in theirs)


def test_adapters_are_off_while_the_twin_reads(student: Callable[..., Any], answers: Answers) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    family = student("qwen2")
    family.model.requires_grad_(False)
    responses = [Response(1, answers[1])]
    before = TextTeacher(OwnReader(family, "w")).targets(TEXTS, responses).logits()
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj", "v_proj"]), family.decoder)
    weights = [weight for name, weight in family.decoder.named_parameters() if "lora_" in name]
    with torch.no_grad():
        for weight in weights:
            weight.normal_()
    weights[0].requires_grad_(False)
    without, within = (
        TextTeacher(OwnReader(family, "w", adapters)).targets(TEXTS, responses).logits()
        for adapters in (False, True)
    )
    torch.testing.assert_close(without, before)
    assert (within - before).abs().max() > 1e-2
    assert [weight.requires_grad for weight in weights] == [False, *[True] * (len(weights) - 1)]
    with without_adapters(family.decoder), without_adapters(family.decoder):
        pass  # nested: switched on again by the outer one alone
    torch.testing.assert_close(
        TextTeacher(OwnReader(family, "w", True)).targets(TEXTS, responses).logits(), within
    )


def test_another_model_reads_its_own_template(
    student: Callable[..., Any], answers: Answers, tiny_textlm_dir: Path
) -> None:
    from transformers import AutoModelForCausalLM

    family = student("qwen2")  # head: 8 rows more than the teacher's
    text_teacher = make_text_teacher(
        TeacherOptions(model=str(tiny_textlm_dir)), family, weights="w", shared=True
    )
    reader = text_teacher.reader
    assert isinstance(reader, OtherReader) and not reader.loaded
    assert reader.identity()["kind"] == "text" and not reader.loaded  # hashes of files
    responses = branches_of(answers)
    found = text_teacher.targets(TEXTS, responses)
    model = AutoModelForCausalLM.from_pretrained(tiny_textlm_dir).eval()
    turn = reader.text_ids(TEXTS[1])
    assert reader.tokenizer.decode(turn) == f"<|bos|><|user|>{TEXTS[1]}<|end|><|assistant|>"
    _, expected = plain_logits(model.model, turn, answers[1], model.lm_head)
    start = len(answers[0])
    torch.testing.assert_close(
        found.logits()[start : start + len(answers[1])], expected, rtol=1e-4, atol=1e-4
    )
    assert found.logits().shape[1] == text_teacher.vocabulary == reader.vocabulary


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Gemma2", {"final_logit_softcapping": 3.0, "head_dim": 8}),
        ("Granite", {"logits_scaling": 4.0}),
        ("Cohere", {"logit_scale": 0.3}),
    ],
)
def test_logits_are_the_models_own(
    tmp_path: Path, tiny_textlm_dir: Path, name: str, settings: dict[str, Any]
) -> None:
    import transformers

    reader = OtherReader(str(tiny_textlm_dir))
    sizes = {
        "vocab_size": reader.vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.3}
    config = getattr(transformers, f"{name}Config")(**sizes, **heads, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.save_pretrained(tmp_path)
    reader.tokenizer.save_pretrained(tmp_path)
    other = OtherReader(str(tmp_path))
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    torch.testing.assert_close(other.head(other.decode(ids, None, ids)), expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_does_not_tell_all_is_refused(
    tiny_textlm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.forward

    def sharper(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = plain(self, *args, **kwargs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", sharper)
    reader = OtherReader(str(tiny_textlm_dir))
    with pytest.raises(UserError, match=r"teacher\.model .*: the logits of a llama cannot be recomputed"):
        _ = reader.model
    assert not reader.loaded


def test_more_than_the_context_is_refused(student: Callable[..., Any]) -> None:
    text_teacher = TextTeacher(OwnReader(student("qwen2"), "w"))
    with pytest.raises(UserError, match="the teacher's context is 256"):
        text_teacher.states([TEXTS[0]], [(1,) * 300])


def test_half_precision_is_the_students(student: Callable[..., Any], answers: Answers) -> None:
    text_teacher = TextTeacher(OwnReader(student(), "w"), precision="bfloat16")
    exact = TextTeacher(OwnReader(student(), "w"))
    responses = [Response(0, answers[1])]
    rough, fine = text_teacher.targets(TEXTS, responses).logits(), exact.targets(TEXTS, responses).logits()
    assert rough.dtype == torch.float32 and 0 < (rough - fine).abs().max() < 0.5
    assert text_teacher.identity() != exact.identity()


def test_served_models_show_no_distributions(student: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"teacher\.model openai:.*method sft"):
        make_text_teacher(
            TeacherOptions(model="openai:http://localhost:1/v1#x"), student(), weights="w", shared=True
        )
