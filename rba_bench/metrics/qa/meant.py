"""Whether an everyday word or a single letter is meant as a name where it stands: `US`, `May`, `WHO`, `I`, `no`.

`us` in "tell us" is not the country, `may` in "it may be" not the month. Such an answer counts where something marks
it: it is all that is said, it is written in capitals or with a capital inside a sentence, it is quoted, it closes "the
answer is ...", or (May) it follows a preposition of time.
"""

from collections.abc import Sequence

from rba_bench.metrics.qa.spans import Span
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import ARTICLES, AUXILIARIES, FILLERS, words

POLAR = {
    "yes": frozenset({"yes", "yeah", "yep", "true", "correct"}),
    "no": frozenset({"no", "nope", "false"}),
    "true": frozenset({"true", "yes"}),
    "false": frozenset({"false", "no"}),
}
_CLOSED_BY = words("is was are were be been called letter symbol word say named spelled it's answer")
_TIME = words("in of since by until during early late mid last next every through for from before after")
_AFTER_POLAR = words("it they he she the that this there i you we sir")
_LEADS_TO = words("so but then hence thus therefore and well")
_DESCRIBES = words("by a an the directed written starring based published released")  # It, by Stephen King
_NOUNS = AUXILIARIES - words("let")
_THIRD_PERSON = words(
    "is was has comes follows precedes falls starts begins ends won wins made makes stands means"
)
_STOPS = frozenset(".?!;\n")


def is_cased(tokens: Sequence[Token]) -> bool:
    """Whether capitals tell anything: both cases occur."""
    raw = "".join(token.raw for token in tokens)
    return raw != raw.lower() and raw != raw.upper()


def is_meant(span: Span, text: Sequence[Token]) -> bool:
    """Whether the words of a span are the answer and not everyday words that are spelled like it."""
    if not span.wanted.ordinary:
        return True
    alone = all(token.skip for token in [*text[: span.start], *text[span.end :]])
    if alone or _quoted(span, text):
        return True
    single = text[span.start]
    if span.end - span.start == 1 and single.text in FILLERS:
        return False
    if span.end - span.start == 1 and single.own & POLAR.keys():
        return _leads(span, text)
    if is_cased(text):
        return _written_as_name(span, text)
    return _closes(span, text) or _after_time(span, text) or _with_article(span, text)


def _quoted(span: Span, text: Sequence[Token]) -> bool:
    before = text[span.start - 1].text if span.start else ""
    after = text[span.end].text if span.end < len(text) else ""
    return before == '"' and after == '"'


def _leads(span: Span, text: Sequence[Token]) -> bool:
    """Whether "no" answers, as in `No, it is round`, unlike `No one knows`."""
    if any(not token.skip for token in text[: span.start]):
        return _closes(span, text) or _apart(span, text)
    after = text[span.end] if span.end < len(text) else None
    return after is None or after.kind == "mark" or after.text in _AFTER_POLAR


def _apart(span: Span, text: Sequence[Token]) -> bool:
    """Whether the words stand between marks, as `It is round, so yes` does."""
    start = span.start
    while start and text[start - 1].text in _LEADS_TO:
        start -= 1
    return (start == 0 or text[start - 1].kind == "mark") and (
        span.end == len(text) or text[span.end].kind == "mark"
    )


def _closes(span: Span, text: Sequence[Token]) -> bool:
    before = [token for token in text[: span.start] if not token.skip]
    ends = span.end == len(text) or text[span.end].kind == "mark"
    return ends and bool(before) and before[-1].text in _CLOSED_BY


def _after_time(span: Span, text: Sequence[Token]) -> bool:
    return text[span.start].text == "may" and span.start > 0 and text[span.start - 1].text in _TIME


def _with_article(span: Span, text: Sequence[Token]) -> bool:
    return (
        span.wanted.article
        and span.start > 0
        and text[span.start - 1].skip
        and text[span.start - 1].kind == "word"
    )


def _written_as_name(span: Span, text: Sequence[Token]) -> bool:
    words = text[span.start : span.end]
    wanted = "".join(token.raw for token in span.wanted.tokens)
    heard = "".join(token.raw for token in words if token.kind != "mark").replace(".", "")
    if len(heard) == 1:
        if heard.upper() == "I" or heard != heard.upper():
            return _closes(span, text) and heard.isupper() == wanted.isupper()
        return not _opens(span, text) or _closes(span, text)
    if heard.isupper() and heard.isalpha() and wanted.isupper():
        return True
    capital = heard[:1].isupper()
    if capital and not (wanted.isupper() and len(wanted) > 1):
        return not _opens(span, text) or _stated(span, text)
    same = heard.islower() and wanted.islower()
    if same and span.start and text[span.start - 1].text in ARTICLES:
        return span.end == len(text) or text[span.end].kind == "mark"  # from the well
    return (_after_time(span, text) and not capital) or (same and _closes(span, text))


def _stated(span: Span, text: Sequence[Token]) -> bool:
    """`May is the month`, `May. It follows April`: no modal verb goes before "is" or a stop, and no pronoun alone."""
    if span.end == len(text) or text[span.end].text in _STOPS:
        return span.end - span.start == 1 and len(text[span.start].text) > 1
    after = text[span.end].text
    if after == ",":
        further = text[span.end + 1].text if span.end + 1 < len(text) else ""
        return text[span.start].text in _NOUNS or further in _DESCRIBES
    return after in _THIRD_PERSON and text[span.start].text in _NOUNS


def _opens(span: Span, text: Sequence[Token]) -> bool:
    """Whether the span opens a sentence, where a capital tells nothing."""
    for token in reversed(text[: span.start]):
        if token.kind == "mark":
            if token.text in _STOPS:
                return True
        elif not token.skip:
            return False
    return True
