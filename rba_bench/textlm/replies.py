"""Replies of models: the answer in a reply is what follows the thinking, up to the end of the turn.

Every reply of a model goes through `split` once, where it enters: answers that are scored, votes of judges, grades of
rewards, answers of teachers. The raw reply is kept beside it.

A thinking block is not part of the answer, wherever it stands and however many there are:

    <think> ... </think>                       Qwen3, DeepSeek-R1, GLM, Granite 3.3; also thinking, thought, reasoning,
                                               seed:think; any case, with attributes
    [THINK] ... [/THINK]                       Magistral
    ◁think▷ ... ◁/think▷                       Kimi
    <|channel|>analysis<|message|> ... <|channel|>final<|message|>     gpt-oss ("harmony"), also without its marks
    <|channel>thought ... <channel|>           Gemma 4
    <|START_THINKING|> ... <|END_THINKING|>    Cohere
    <|inner_prefix|>, <|begin_of_thought|>, <unused94>thought          Apertus, Open Thoughts, MedGemma
    Here is my thought process: ... Here is my response:               Granite 3.2, at the start alone

A block ends at the first closing tag (models quote the opening tag while they think). Where a closing tag has no
opening one the chat template had opened the block, so all before it is thought. A block that is never closed leaves no
answer at all: the reply was cut off, whatever the server says of it. A wrapper behind a block (`<response>`,
`<answer>`) goes.

Marks of the chat template that leak into the text are not words of the answer either: what follows an end of turn or
the header of another turn is dropped, headers of the answer itself are taken off its front.

Tags inside code (a fenced block, or backticks on one line) are what the answer talks about, and stay.
"""

import re
from dataclasses import dataclass

VERSION = 1  # raise it when an answer may come out differently
RULE = f"behind the thinking, up to the end of the turn|rules:{VERSION}"  # part of every protocol
_BAR = "[|\uff5c]"  # DeepSeek writes its marks with full-width bars

_NAME = r"(?:[a-z]+:)?(?:think|thinking|thought|reasoning|antthinking)"
_OPEN = (
    rf"<\s*{_NAME}(?:\s[^<>]*)?(?:>|\Z)|\[think\]|◁think▷"
    r"|<\|channel\|>\s*(?:analysis|commentary)\b[^<]*(?:<\|constrain\|>[^<]*)?(?:<\|message\|>|\Z)"
    r"|<\|channel>\s*thought\b|<unused94>\s*thought\b"
    r"|<\|start_thinking\|>|<\|inner_prefix\|>|<\|begin_of_thought\|>"
)
_CLOSE = (
    rf"<\s*/\s*{_NAME}\s*>|\[/think\]|◁/think▷|<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|<channel\|>|<unused95>"
    r"|<\|end_thinking\|>|<\|inner_suffix\|>|<\|end_of_thought\|>"
)
_EMPTY = rf"<\s*{_NAME}\s*/>"
_END = (
    rf"<{_BAR}(?:im_end|endoftext|end_of_text|eot_id|eom_id|eot|end|return|call|end_of_turn|endofturn|eos|eod"
    rf"|end[_\u2581]of[_\u2581]sentence|end_of_turn_token|end_response|end_of_solution){_BAR}>"
    r"|\[\|endofturn\|\]|<end_of_turn>|<turn\|>|<eos>|<seed:eos>|</s>"
)
_ASSISTANT = (
    r"<\|im_start\|>\s*assistant\b(?:<\|im_sep\|>)?|<\|(?:start_header_id|header_start)\|>\s*assistant\s*"
    r"<\|(?:end_header_id|header_end)\|>|<start_of_turn>\s*model\b|<\|turn>\s*model\b|<seed:bos>\s*assistant\b"
    r"|<\|start_of_role\|>\s*assistant\s*<\|end_of_role\|>|<\|im_assistant\|>\s*assistant\s*<\|im_middle\|>"
    rf"|<\|start\|>\s*assistant\b|(?:<\|start_of_turn_token\|>)?<\|chatbot_token\|>|<{_BAR}assistant{_BAR}>"
    r"|\[\|assistant\|\]|\[/inst\]"
)
_OTHER = (  # anybody else's turn; the assistant's headers are tried first
    r"<\|im_start\|>|<\|start_header_id\|>|<\|header_start\|>|<start_of_turn>|<\|turn>|<\|start_of_role\|>|<\|start\|>"
    rf"|<\|im_(?:user|system)\|>|<\|start_of_turn_token\|>|<{_BAR}(?:user|system){_BAR}>|\[\|(?:user|system)\|\]|\[inst\]"
)
_FRONT = (
    rf"<s>|<bos>|<{_BAR}(?:begin_of_text|startoftext|begin[_\u2581]of[_\u2581]sentence){_BAR}>|<seed:bos>"
    r"|<\|start_response\|>|<\|begin_of_solution\|>|<\|message\|>"
)
_FENCE = r"^[ \t]*```[^\n]*\n.*?^[ \t]*```[ \t]*$"
_TICKS = r"(?P<ticks>`+)(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)"


def _compiled(**kinds: str) -> re.Pattern[str]:
    parts = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items())
    return re.compile(parts, re.IGNORECASE | re.DOTALL | re.MULTILINE)


_IN_ANSWER = _compiled(
    code=f"{_FENCE}|{_TICKS}",
    empty=_EMPTY,
    close=_CLOSE,
    open=_OPEN,
    end=_END,
    assistant=_ASSISTANT,
    front=_FRONT,
    other=_OTHER,
)
_IN_THOUGHT = _compiled(
    quoted=rf"`\s*(?:{_OPEN}|{_CLOSE})[^`\n]*`|`[^`\n]*(?:{_OPEN}|{_CLOSE})\s*`", close=_CLOSE
)
_TAG = _compiled(empty=_EMPTY, close=_CLOSE, open=_OPEN)
_TURN = _compiled(assistant=_ASSISTANT, other=_OTHER)
_NEXT_ASSISTANT = re.compile(rf"\s*(?:{_ASSISTANT})", re.IGNORECASE)
_WRAPPER = re.compile(r"\s*<(response|answer|output)>(.*?)(?:</\1>.*)?\Z", re.IGNORECASE | re.DOTALL)
_MAYBE = re.compile(r"[<\[◁]|\A\s*(?:Here|analysis|commentary|assistant)")
_OPENED = re.compile(rf"(?:{_OPEN})\s*\Z", re.IGNORECASE)
# Marks of turns and of thinking, as tokenizers name their special tokens
_MARK = _compiled(
    whole="|".join((_OPEN, _CLOSE, _END, _OTHER, _FRONT)),
    part=rf"<\|(?:channel|constrain|im_sep|end_header_id|header_end|end_of_role|im_assistant|im_middle)\|>"
    rf"|<\|channel>|<unused94>|<{_BAR}assistant{_BAR}>|<\|chatbot_token\|>|\[\|assistant\|\]|\[/inst\]",
)
_PHRASES = (  # thinking that is marked by words: where it begins, and what stands before the answer
    (
        re.compile(r"\A\s*Here(?:'s| is) my thought process:(?=.*Here(?:'s| is) my response:)", re.DOTALL),
        re.compile(r"Here(?:'s| is) my response:"),
    ),
    (  # harmony without its special tokens: words run together as nobody writes them
        re.compile(
            r"\A\s*(?:assistant)?(?:analysis|commentary)(?=[A-Z\"\u201c]|\S.*assistantfinal)", re.DOTALL
        ),
        re.compile(r".*assistantfinal", re.DOTALL),
    ),
)
_BARE_FINAL = re.compile(r"\A\s*assistantfinal(?=\S)")


@dataclass(frozen=True)
class ReplyParts:
    """A reply taken apart.

    Attributes:
        answer: What counts; the reply as it is where nothing is to be taken away.
        complete: False where a thinking block was never closed; the answer is "" then.
    """

    answer: str
    complete: bool = True


def split_reply(reply: str) -> ReplyParts:
    """Take a reply apart; see the module. Applied to an answer it changes nothing."""
    text, parts = reply, ReplyParts(reply)
    while _MAYBE.search(text):
        parts = _Scan(_spelled(text)).parts()
        if not parts.complete or len(parts.answer) >= len(text):
            break
        text = parts.answer
    return parts


def answer_of(reply: str) -> str:
    """The answer in a reply, "" where it never came."""
    return split_reply(reply).answer


def opened_thinking(prompt: str) -> str:
    """The tag with which a rendered prompt has begun to think for the model (`<think>`), "" if it has not.

    What the model writes then continues the block, so the tag belongs in front of its reply.
    """
    match = _OPENED.search(prompt)
    return match[0] if match else ""


def is_turn_mark(token: str) -> bool:
    """Whether a special token of a tokenizer marks thinking or turns, so that decoding must not drop it."""
    return _MARK.fullmatch(token.strip()) is not None


def _spelled(text: str) -> str:
    """The same with tags where words mark the thinking."""
    for begins, ends in _PHRASES:
        if begins.match(text):
            return begins.sub("<think>", ends.sub("</think>", text, count=1), count=1)
    return _BARE_FINAL.sub("", text)


class _Scan:
    """One pass over a reply, from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0  # everything before has been read
        self.kept = 0  # where the piece of the answer that is being read began
        self.pieces: list[str] = []
        self.thought = False  # whether a block has been met
        self.struck = 0  # <s> of HTML that wait for their </s>

    def parts(self) -> ReplyParts:
        """The answer, without spaces around it if anything was taken away."""
        while (match := _IN_ANSWER.search(self.text, self.at)) is not None:
            self.at = match.end()
            meaning = self._meaning(match)
            if meaning == "text":
                continue
            self.pieces.append(self.text[self.kept : match.start()])
            if meaning == "stop":
                return self._whole()
            if meaning == "close":  # the template had opened the block
                self.pieces = []
            self.thought |= meaning in ("open", "close")
            if meaning == "open":
                closes = (tag for tag in _IN_THOUGHT.finditer(self.text, self.at) if tag.lastgroup == "close")
                if (close := next(closes, None)) is None:
                    return ReplyParts("", complete=False)
                self.at = close.end()
            self.kept = self.at
        self.pieces.append(self.text[self.kept :])
        return self._whole()

    def _meaning(self, match: re.Match[str]) -> str:
        """What a mark means where it stands: `text`, `skip`, `open`, `close` or `stop`."""
        kind = str(match.lastgroup)
        if kind in ("open", "close"):
            return kind
        if kind == "code":
            # text, but for backticks that happen to stand on both sides of a block's end
            tag = _TAG.search(match[0])
            inside = match[0].strip("`").strip()
            quoted = tag is not None and (inside.startswith(tag[0]) or inside.endswith(tag[0]))
            if tag is not None and tag.lastgroup == "close" and not quoted:
                self.at = match.end() - len(match[0].lstrip().lstrip("`"))
            return "text"
        if kind == "empty":
            return "skip"
        if "".join(self.pieces).strip() or self.text[self.kept : match.start()].strip():
            return self._behind_words(match, kind)
        if kind == "end":  # an empty turn was closed first; else nothing was said
            return "skip" if _NEXT_ASSISTANT.match(self.text, match.end()) else "stop"
        if kind != "other":
            return "skip"
        header = next(
            (turn for turn in _TURN.finditer(self.text, match.end()) if turn.lastgroup != "other"), None
        )
        if header is None:
            return "stop"
        self.at = header.end()  # the conversation so far, said again
        return "skip"

    def _behind_words(self, match: re.Match[str], kind: str) -> str:
        if kind == "front":
            self.struck += match[0].lower() == "<s>"
            return "text"
        if self.struck and match[0].lower() == "</s>":
            self.struck -= 1
            return "text"
        # within a block that the template had opened, whose end comes before anybody else's turn, it is text
        tag = _TAG.search(self.text, match.end())
        if self.thought or tag is None or tag.lastgroup != "close":
            return "stop"
        turns = _TURN.finditer(self.text, match.start(), tag.start())
        return "text" if all(turn.lastgroup == "assistant" for turn in turns) else "stop"

    def _whole(self) -> ReplyParts:
        if self.pieces == [self.text]:
            return ReplyParts(self.text)
        # what stood between pieces is reduced to a space, or to a line's end where there was one
        answer = ""
        for piece in self.pieces:
            around = answer[len(answer.rstrip()) :] + piece[: len(piece) - len(piece.lstrip())]
            gap = "\n" if "\n" in around else " "
            both = answer.strip() and piece.strip()
            answer = f"{answer.rstrip()}{gap}{piece.lstrip()}" if both else answer + piece
        answer = answer.strip()
        if self.thought and (wrapped := _WRAPPER.match(answer)):
            answer = wrapped[2].strip()
        return ReplyParts(answer)
