"""Variables of chat templates: what may be given, where they arrive, what they change in records."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.textlm import chat
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from rba_bench.textlm.local import LocalTextLM
from rba_bench.textlm.replies import split_reply
from rba_bench.textlm.text_model import Decoding, load_judge_model
from tests.textlm.misbehaving_server import answer, serving
from tests.thinking_lm import EMPTY, TEMPLATE, THOUGHT, TURNS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False), ("true", True), ("null", None), ("3", 3), ("0.5", 0.5), ('"true"', "true"), ("low", "low"),
        ("", ""), ("a=b", "a=b"), ("NaN", "NaN"), ("9" * 5000, "9" * 5000), ("False", "False"),
    ],
)  # fmt: skip
def test_a_value_is_a_json_scalar_or_its_text(text: str, value: Any) -> None:
    assert chat.parse_template_variables([f"x={text}"]) == {"x": value}
    assert type(chat.parse_template_variables([f"x={text}"])["x"]) is type(value)


def test_several_variables_and_the_last_of_two() -> None:
    assert chat.parse_template_variables(["a=1", " b =2", "a=3"]) == {"a": 3, "b": 2}
    assert chat.template_variables("enable_thinking=false;budget=4") == {
        "enable_thinking": False,
        "budget": 4,
    }
    assert chat.template_variables('{"enable_thinking": false}') == {"enable_thinking": False}


@pytest.mark.parametrize(
    "text",
    ["enable_thinking", "=1", "a b=1", "x=[1]", 'x={"a": 1}', "messages=1", "tokenize=true", "x=1e999"],
)
def test_what_is_no_variable_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        chat.parse_template_variables([text])
    assert "\n" not in str(caught.value) and "template variable" in str(caught.value)


def test_the_template_of_a_folder_is_read_wherever_it_lies(tmp_path: Path) -> None:
    assert chat.template_in_folder(tmp_path) == ""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ enable_thinking }}"}))
    assert chat.disable_thinking(chat.template_in_folder(tmp_path), {}) == {"enable_thinking": False}
    assert chat.disable_thinking(chat.template_in_folder(tmp_path), {"enable_thinking": True}) == {
        "enable_thinking": True
    }
    (tmp_path / "chat_template.jinja").write_text("{{ not_enable_thinking }}")
    assert chat.disable_thinking(chat.template_in_folder(tmp_path), {"a": 1}) == {"a": 1}


def test_a_model_that_thinks_by_default_can_be_told_not_to(thinker: Path) -> None:
    asked, decoding = [ask for ask, _ in TURNS], Decoding(60)
    thinking = LocalTextLM.from_pretrained(thinker)
    quiet = LocalTextLM.from_pretrained(thinker, template={"enable_thinking": False})
    first, second = (lm.chat(asked, decoding, [0] * 4) for lm in (thinking, quiet))
    assert [one.text for one in first] == [f"{THOUGHT}{right}" for _, right in TURNS]
    assert [one.text for one in second] == [right for _, right in TURNS]
    assert [split_reply(one.text).answer for one in first] == [right for _, right in TURNS]
    assert "template" not in thinking.identity() and quiet.identity()["template"] == {
        "enable_thinking": False
    }
    short = thinking.chat(asked[:1], Decoding(4), [0])[0]
    assert short.status == "truncated" and not split_reply(short.text).complete


def test_a_block_that_the_template_opens_belongs_to_the_reply(thinker: Path) -> None:
    lm = LocalTextLM.from_pretrained(thinker, template={"opens": True})
    assert lm.opened == "<think>\n"
    found = lm.chat([TURNS[0][0]], Decoding(3), [0])[0]
    assert found.text.startswith("<think>") and not split_reply(found.text).complete


def test_a_variable_that_the_template_does_not_know_is_said(
    thinker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LocalTextLM.from_pretrained(thinker, template={"enable_thinking": False})
    assert "does not read" not in capsys.readouterr().err
    LocalTextLM.from_pretrained(thinker, template={"enable_thinkng": False})
    said = [line for line in capsys.readouterr().err.splitlines() if "does not read" in line]
    assert len(said) == 1 and "enable_thinkng" in said[0]


def test_a_local_judge_does_not_think_unless_told_to(thinker: Path) -> None:
    question = Question((Message("user", TURNS[1][0]),), 60)
    judge = load_judge_model(str(thinker))
    assert judge.identity()["template"] == {"enable_thinking": False}
    assert dict(judge.ask([question]))[0].text == TURNS[1][1]
    thinks = load_judge_model(str(thinker), template={"enable_thinking": True})
    assert dict(thinks.ask([question]))[0].text == f"{THOUGHT}{TURNS[1][1]}"


def test_the_ceiling_over_a_local_model_is_named_and_identified_by_its_variables(thinker: Path) -> None:
    plain, told = (
        load_speech_model(f"text:{thinker}"),
        load_speech_model(f"text:{thinker}", template={"enable_thinking": False}),
    )
    assert (plain.name, told.name) == ("text-thinker", "text-thinker+enable_thinking=false")
    assert told.identity()["template"] == {"enable_thinking": False} and "template" not in plain.identity()
    assert (
        load_speech_model(f"text:{thinker}", template="enable_thinking=false").identity() == told.identity()
    )


def test_a_composite_renders_its_turn_with_the_variables(tiny_composite_dir: Path, tmp_path: Path) -> None:

    from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM

    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_composite_dir, folder)
    for file in folder.glob("*.jinja"):
        file.write_text(TEMPLATE)
    told = TransformersSpeechLM.from_pretrained(folder, template={"enable_thinking": False})
    for prompt in ("", "hi"):
        turn = told.family.tokenizer.decode(list(told.family.prompt_ids(prompt)))
        assert turn.endswith(f"<|assistant|>{EMPTY}")
        assert told.family.opened(prompt) == ""
    assert told.identity()["template"] == {"enable_thinking": False}
    opens = TransformersSpeechLM.from_pretrained(folder, template={"opens": True}).family
    assert opens.opened("") == opens.opened("hi") == "<think>\n"


def test_servers_get_the_variables_with_every_chat() -> None:
    with serving(lambda _: answer("fine")) as server:
        told = EndpointLM.from_spec(server.spec, template={"enable_thinking": False})
        plain = EndpointLM.from_spec(server.spec)
        for lm in (told, plain):
            lm.chat(["hi"], Decoding(4), [0])
            list(lm.ask([Question((Message("user", "hi"),))]))
            lm.complete(["hi"], Decoding(4), [0])
        sent = [seen.body.get("chat_template_kwargs") for seen in server.seen]
    assert sent == [{"enable_thinking": False}] * 2 + [None] * 4
    assert told.identity() == {**plain.identity(), "template": {"enable_thinking": False}}
