"""Chat templates of others: what they refuse, and where they fail, is one line."""

import pytest
from transformers import AutoTokenizer

from rba_bench.assets import model_folder
from rba_bench.errors import UserError
from rba_bench.textlm.chat import pre_query_template, render_chat, render_user_turn

REFUSES = "{{ raise_exception('Conversation roles must alternate\nuser/assistant') }}"
FAILS = "{{ messages[0]['content'] + 1 }}"
UNKNOWN = "{{ messages[0].nothing.at_all }}"
BROKEN = "{% if %}"


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(model_folder("teacher"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (REFUSES, "roles must alternate"),
        (FAILS, "int"),
        (UNKNOWN, "nothing"),
        (BROKEN, "xpected"),
        (None, "template"),
    ],
)
def test_a_template_that_cannot_write_is_one_line_naming_the_fix(tokenizer, template, reason):
    tokenizer.chat_template = template
    for call in (
        lambda: render_chat(tokenizer, [{"role": "user", "content": "hello"}]),
        lambda: render_user_turn(tokenizer, "hello"),
        lambda: pre_query_template(tokenizer),
    ):
        with pytest.raises(UserError, match=reason) as refused:
            call()
        assert "\n" not in str(refused.value) and "chat_template.jinja" in str(refused.value)


def test_the_roles_that_were_refused_are_named(tokenizer):
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    )
    assert render_chat(tokenizer, [{"role": "user", "content": "hello"}]) == "x"
    with pytest.raises(UserError, match=r"conversation of system, user \(no system\)"):
        render_chat(tokenizer, [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
