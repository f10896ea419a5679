"""What a chat template says: how a user turn looks, where the user's words begin, which tokens end a turn."""

from typing import Any

from rba_bench.errors import UserError

# A word no template writes. No spaces or capitals: templates trim, and some tokenizers lower-case.
SENTINEL = "zqusertextqz"
ANSWER = "zqanswertextqz"


def render_user(tokenizer: Any, text: str, **template: Any) -> str:
    """A user turn and the header of the answer, ready for generation; special tokens are written out."""
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, **template
        )
    )


def pre_query_template(tokenizer: Any, **template: Any) -> str:
    """The rendered conversation up to the user's first character (with the system turn, if there is one).

    Raises:
        UserError: the template does not show the user's words.
    """
    return _around(_render(tokenizer, template), SENTINEL)[0]


def stop_ids(tokenizer: Any, model: Any, **template: Any) -> tuple[list[int], list[int]]:
    """Tokens that end an answer, and those that end a completion of either turn; at least one each.

    They are what the template writes behind a turn, the tokenizer's `eos_token`, and what the model's authors put
    into its generation config (Llama 3 names three), in this order. No single source is enough: base tokenizers
    keep `<|endoftext|>` as eos while the template closes turns with `<|im_end|>`. Of the template only special
    tokens count: ordinary text may occur inside an answer.

    Raises:
        UserError: no chat template, or none of the three names a token.
    """
    rendered = _render(tokenizer, template)
    after_user = _around(rendered, SENTINEL)[1].partition(ANSWER)[0]
    after_answer = _around(rendered, ANSWER)[1]
    shipped = model.generation_config.eos_token_id
    named = [tokenizer.eos_token_id, *(shipped if isinstance(shipped, list) else [shipped])]
    answer = [*_leading_special(tokenizer, after_answer), *(i for i in named if i is not None)]
    if not answer:
        raise UserError(
            "no token ends a turn: the tokenizer needs an eos_token, or a template that writes one"
        )
    either = [*_leading_special(tokenizer, after_user), *answer]
    return list(dict.fromkeys(answer)), list(dict.fromkeys(either))


def _render(tokenizer: Any, template: dict[str, Any]) -> str:
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template: use an instruction-tuned model, or add chat_template.jinja"
        )
    messages = [{"role": "user", "content": SENTINEL}, {"role": "assistant", "content": ANSWER}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **template))


def _around(rendered: str, word: str) -> tuple[str, str]:
    before, found, after = rendered.partition(word)
    if not found:
        raise UserError("the chat template does not show the words of a turn: it cannot be used here")
    return before, after


def _leading_special(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:1]
    return [i for i in ids if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder]
