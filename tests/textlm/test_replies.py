"""What of a reply is the answer: by kind of thinking and of leaked marks, with the right values by hand."""

import random
import time

import pytest

from rba_bench.textlm.replies import ReplyParts, answer_of, is_turn_mark, opened_thinking, split_reply

BLOCKS = {
    "qwen3": "<think>\nParis, London or Rome?\n</think>\n\nI have no idea",
    "empty block of a model told not to think": "<think>\n\n</think>\n\nI have no idea",
    "template opened it": "Paris, London or Rome?\n</think>\n\nI have no idea",
    "thinking": "<thinking>Paris</thinking>I have no idea",
    "reasoning": "<reasoning>Paris</reasoning> I have no idea",
    "exaone deep": "<thought>\nParis\n</thought>\nI have no idea",
    "seed-oss": "<seed:think>Paris</seed:think>I have no idea<seed:eos>",
    "upper case, attributes, spaces": '<THINK type="long" >Paris</ Think >I have no idea',
    "audio-reasoner": "<THINK><PLANNING>Paris</PLANNING></THINK><RESPONSE>I have no idea</RESPONSE>",
    "granite 3.3": "<think>Paris</think><response>I have no idea</response>",
    "r1-zero": "<think>Paris</think> <answer>I have no idea</answer>",
    "wrapper cut off": "<think>Paris</think><response>I have no idea",
    "granite 3.2": "Here is my thought process:\nParis\n\nHere is my response:\nI have no idea",
    "magistral": "[THINK]Paris[/THINK]I have no idea",
    "kimi": "◁think▷Paris◁/think▷I have no idea",
    "harmony": "<|channel|>analysis<|message|>Paris<|end|>"
    "<|start|>assistant<|channel|>final<|message|>I have no idea<|return|>",
    "harmony from the header on": "<|start|>assistant<|channel|>analysis<|message|>Paris<|end|>"
    "<|start|>assistant<|channel|>final<|message|>I have no idea",
    "harmony with a tool channel": "<|channel|>analysis<|message|>Paris<|end|>"
    "<|start|>assistant<|channel|>commentary to=f <|constrain|>json<|message|>{}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>I have no idea",
    "harmony, analysis opened by the prompt": "Paris<|end|><|start|>assistant<|channel|>final<|message|>I have no idea",
    "harmony, final alone": "<|channel|>final<|message|>I have no idea<|return|>",
    "harmony without special tokens": "analysisUser asks. Paris?assistantfinalI have no idea",
    "harmony without special tokens, tool": "analysisthe user. Paris?assistantcommentaryx.assistantfinalI have no idea",
    "harmony without special tokens, final alone": "assistantfinalI have no idea",
    "gemma 4": "<|channel>thought\nParis\n<channel|>I have no idea<turn|>",
    "cohere": "<|START_THINKING|>Paris<|END_THINKING|><|START_RESPONSE|>I have no idea<|END_RESPONSE|>",
    "apertus": "<|inner_prefix|>Paris<|inner_suffix|>I have no idea",
    "open thoughts": "<|begin_of_thought|>Paris<|end_of_thought|>"
    "<|begin_of_solution|>I have no idea<|end_of_solution|>",
    "medgemma": "<unused94>thought\nParis<unused95>I have no idea",
    "closed by another name": "<thinking>Paris</think>I have no idea",
    "nested": "<think>Paris<think>London</think>Rome</think>I have no idea",
    "opening tag said within": "<think>the <think> tag, Paris</think>I have no idea",
    "closing tag quoted within": "<think>they ask for `</think>`. Paris</think>I have no idea",
    "closed twice": "<think>Paris</think></think>I have no idea",
    "two blocks in a row": "<think>Paris</think>\n<think>London</think>\nI have no idea",
    "after a header": "<|im_start|>assistant\n<think>Paris</think>I have no idea<|im_end|>",
    "self-closing": "<think/>I have no idea",
    "end of turn named in a block that the template opened": "the <|im_end|> mark, Paris</think>I have no idea",
    "stray backtick in the block": "<think>a ` Paris</think>I have no idea",
}


@pytest.mark.parametrize("reply", BLOCKS.values(), ids=BLOCKS)
def test_what_follows_the_thinking_is_the_answer(reply: str) -> None:
    assert split_reply(reply) == ReplyParts("I have no idea")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Let me see. <think>London?</think> It is Paris.", "Let me see. It is Paris."),
        ("<think>a</think>First.\n<think>b</think>\nSecond.", "First.\nSecond."),
        ("First.<think>b</think>Second.", "First. Second."),
        ("<think>Paris</think>", ""),
        ("Paris</think>", ""),
        ("<think>Paris</think>\n\n", ""),
        ("<think>a `x` b</think>Call `f(x)`", "Call `f(x)`"),
        ("use ` here</think>Paris or `x`", "Paris or `x`"),
    ],
)
def test_blocks_go_wherever_they_stand(reply: str, answer: str) -> None:
    assert split_reply(reply) == ReplyParts(answer)


UNCLOSED = [
    "<think>Paris, London or Rome?",
    "<think>\n",
    "<think",
    "Paris <think>or London",
    "<think>a</think>Paris<think>or London",
    "[THINK]Paris",
    "◁think▷Paris",
    "<|channel|>analysis<|message|>Paris",
    "<|channel|>analysis<|message|>Paris<|end|>",
    "<|channel|>analysis",
    "<|channel>thought\nParis",
    "<|START_THINKING|>Paris",
    "analysisWe know that it is Paris",
    "<think>it ends with `</think>`",
    "<think>Paris<|im_end|>",
    "<thinking>Paris</thinki",
]


@pytest.mark.parametrize("reply", UNCLOSED)
def test_a_block_that_is_never_closed_leaves_no_answer(reply: str) -> None:
    assert split_reply(reply) == ReplyParts("", complete=False)


@pytest.mark.parametrize(
    "mark",
    [
        *(
            "<|im_end|>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "</s>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|eot|>",
            "<|end|>",
        ),
        *("<|return|>", "<end_of_turn>", "<turn|>", "<|end_of_turn|>", "<eos>", "<｜end▁of▁sentence｜>"),
        *("<|END_OF_TURN_TOKEN|>", "[|endofturn|]", "<seed:eos>", "<|IM_END|>"),
        *(
            "<|im_start|>user\n",
            "<|im_start|>assistant\n",
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "[INST]",
        ),
        *(
            "[/INST]",
            "<|user|>",
            "<|assistant|>",
            "<start_of_turn>user\n",
            "<|turn>user\n",
            "<｜User｜>",
            "[|user|]",
        ),
    ],
)
def test_the_answer_ends_where_the_turn_does(mark: str) -> None:
    assert answer_of(f"Paris {mark}") == "Paris"
    assert answer_of(f"Paris{mark}\nLondon <think>Rome") == "Paris"
    assert answer_of(f"<think>Rome</think>\nParis{mark}London") == "Paris"


@pytest.mark.parametrize(
    "header",
    [
        *(
            "<|im_start|>assistant\n",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<start_of_turn>model\n",
        ),
        *("<|assistant|>\n", "[/INST]", " [/INST] ", "<|turn>model\n", "<s>", "<bos>", "<|begin_of_text|>"),
        *("<｜Assistant｜>", "<|im_start|>assistant<|im_sep|>", "<|start_of_role|>assistant<|end_of_role|>"),
        *("<|im_end|>\n<|im_start|>assistant\n", "[|assistant|]", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
        *("<s><|im_start|>assistant\n", "<|im_start|>user\nWhich city?<|im_end|>\n<|im_start|>assistant\n"),
        *("[INST] Which city? [/INST] ", "<|im_assistant|>assistant<|im_middle|>"),
    ],
)
def test_headers_of_the_answer_itself_are_taken_off(header: str) -> None:
    assert answer_of(f"{header}Paris") == "Paris"
    assert answer_of(f"{header}Paris<|im_end|>") == "Paris"


@pytest.mark.parametrize(
    "reply", ["<|im_end|>", "</s>Paris", "<|im_start|>user\nWhich city?", "<|user|>Which city?"]
)
def test_a_turn_that_ends_before_a_word_is_empty(reply: str) -> None:
    assert split_reply(reply) == ReplyParts("")


WORDS = [
    "Paris",
    "  Paris \n",
    "",
    "a < b and b > c, think about it",
    "[thinking aloud] Paris",
    "Use the `<think>` tag, and close it with `</think>`.",
    "Write `<think>...</think>` around it",
    "The mark `<|im_end|>` ends a turn.",
    "Like this:\n```html\n<think>\nhello\n</think>\n```\nThat is all.",
    "```\n<|im_start|>user\nhi<|im_end|>\n```",
    "<b>Paris</b>, <response>not</response> Rome",
    "It was <s>London</s> Paris",
    "<answer>Paris</answer>",
    "analysis of the text",
    "analysis: Paris",
    "Here is my thought process: first, Paris.",
    "assistant professor",
    "[redacted]",
    "list[INT]",
    "<|audio|> Paris",
    "i think</thin air>",
]


@pytest.mark.parametrize("reply", WORDS)
def test_what_is_no_mark_stays_to_the_letter(reply: str) -> None:
    assert split_reply(reply) == ReplyParts(reply)


def test_taking_apart_an_answer_changes_nothing() -> None:
    draw = random.Random(3)
    bits = [
        *(
            "<think>",
            "</think>",
            "<thi",
            "nk>",
            "`",
            "```\n",
            "\n",
            " ",
            "Paris",
            "[THINK]",
            "[/THINK]",
            "<s>",
            "</s>",
        ),
        *(
            "<|im_end|>",
            "<|im_start|>",
            "assistant",
            "user",
            "<|channel|>",
            "final",
            "analysis",
            "<|message|>",
            "</",
        ),
        *(
            "<|end|>",
            "<answer>",
            "</answer>",
            "<think/>",
            "[INST]",
            "[/INST]",
            "final",
            "Here is my response:",
        ),
    ]
    for _ in range(20_000):
        reply = "".join(draw.choices(bits, k=draw.randint(1, 9)))
        once = split_reply(reply)
        assert split_reply(once.answer) == ReplyParts(once.answer), reply


def test_a_long_reply_is_read_in_little_time() -> None:
    hostile = [
        "<" * 50_000,
        "`" * 50_000,
        "<think " * 10_000,
        "```\n" * 20_000,
        "<s>" * 20_000,
        "` `" * 20_000,
    ]
    hostile += [
        "<think>" + "`<think>" * 10_000,
        "<|im_start|>" * 10_000,
        "<think>a</think>" * 10_000,
        "a</think>" * 9_000,
    ]
    started = time.process_time()
    for reply in hostile:
        assert len(split_reply(reply).answer) <= len(reply)
    assert time.process_time() - started < 30  # what grows with the square takes minutes


def test_the_tag_that_a_template_opens_is_found_at_the_end_of_the_prompt_alone() -> None:
    assert opened_thinking("<|im_start|>assistant\n<think>\n") == "<think>\n"
    assert (
        opened_thinking("<|start|>assistant<|channel|>analysis<|message|>")
        == "<|channel|>analysis<|message|>"
    )
    assert opened_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n") == ""
    assert opened_thinking("say <think> please<|im_end|>\n<|im_start|>assistant\n") == ""


def test_special_tokens_that_matter_are_known() -> None:
    kept = (
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "<|channel|>",
        "<|message|>",
        "<|start|>",
        "<|im_start|>",
        "<|end|>",
    )
    assert all(is_turn_mark(token) for token in kept)
    assert not any(is_turn_mark(token) for token in ("<|pad|>", "<pad>", "<|audio|>", "<unk>", "<|image|>"))
