"""What a chat template says: how a user turn looks, where the user's words begin, which tokens end a turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from rba_bench.errors import UserError

# A word no template writes. No spaces or capitals: templates trim, and some tokenizers lower-case.
SENTINEL = "zqusertextqz"
ANSWER = "zqanswertextqz"


def render(speaker: Any, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """A conversation as the chat template of a tokenizer or processor writes it.

    Args:
        speaker: Has `apply_chat_template`.
        messages: Turns with `role` and `content`.
        options: `add_generation_prompt`, and variables of the template.

    Raises:
        UserError: there is no template, or it refuses the conversation (templates may `raise_exception`), or it fails.
    """
    try:
        return str(speaker.apply_chat_template(messages, tokenize=False, **options))
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
        whose = getattr(getattr(speaker, "tokenizer", speaker), "name_or_path", "") or "this model"
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise UserError(
            f"the chat template of {whose} cannot write a conversation of {roles} ({reason}): use an instruction-tuned "
            "model, or correct its chat_template.jinja"
        ) from error


def render_user(tokenizer: Any, text: str, **template: Any) -> str:
    """A user turn and the header of the answer, ready for generation; special tokens are written out."""
    return render(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True, **template)


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
    return render(tokenizer, messages, **template)


def _around(rendered: str, word: str) -> tuple[str, str]:
    before, found, after = rendered.partition(word)
    if not found:
        raise UserError("the chat template does not show the words of a turn: it cannot be used here")
    return before, after


def _leading_special(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:1]
    return [i for i in ids if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder]
