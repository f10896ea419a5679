"""What is wrong with a later turn of a dialogue as part of it: the user asks nothing new, or an answer comes again.

A model that writes the user's later turns may ask the same again in other words, copy a sentence of the answer, or
close the subject. What is no instruction by itself (an answer instead of a question, say) is found as in every text.
Words for asking and for closing are English; in other languages equal and nearly equal words are found.
"""

import re
from collections.abc import Sequence

from rba_bench.synthesis.texts.near_duplicates import text_shingles
from rba_bench.synthesis.texts.text_rules import Drop
from rba_bench.synthesis.texts.words import words

REASONS = {
    "repeated": "says again what was said earlier in the dialogue",
    "closing": "thanks, agrees or says goodbye, and asks nothing",
}
PAIRS = 2  # words in a run
ASKED = 0.5  # part of a turn's runs that an earlier turn of the user has, if none of its words is new
COPIED = 0.8  # part of a turn's runs that an earlier answer has
SAME_ANSWER = 0.7  # Jaccard similarity of two answers
# Words that ask: one of them in the place of another asks nothing new
_ASK = (
    "a about also an again any are be can could describe detail detailed details do does elaborate explain "
    "explanation for further give go help how i in information is it like list me more of on please provide say show "
    "some suggest tell that the to us want what with would you your"
)
_ASKING = frozenset(_ASK.split())
_CLAUSE = re.compile(r"[^,.!?]+[,.!?]*")
_FILLER = r"(?:(?:oh|ah|well|and|wow|yes|yeah|no|ok|okay|alright|hello|hi|sure|right)\b[,!. ]*)*"
_PRAISE = (
    r"(?:great|good|helpful|useful|perfect|wonderful|fantastic|excellent|amazing|interesting|informative|insightful|"
    r"clear|fascinating|awesome|nice|brilliant)"
)
_CLOSING = re.compile(
    rf"{_FILLER}(?:(?:many )?thanks?\b|cheers\b|(?:i(?:'m| am) )?(?:very |so |really |truly )?(?:grateful|glad)\b"
    r"|(?:i )?(?:really |truly |greatly )?appreciate\b|you(?:'re| are) (?:very |most )?welcome|my pleasure"
    r"|(?:good)?bye\b|good ?night|see you\b|take care\b"
    r"|have an? (?:\w+ )?(?:day|time|evening|weekend)\b|talk to you (?:soon|later)"
    rf"|(?:that|this|it|these)(?:'s| is| was| are| sounds| has been) (?:\w+ )?(?:an? )?{_PRAISE}"
    rf"|{_PRAISE}(?: (?:idea|point|answer|advice|tips?|suggestions?|job|news))?\W*$"
    r"|that helps\b|got it\b|i (?:see|understand|agree)\b"
    r"|i(?:'ll| will) (?:\w+ )?(?:try|do|keep|check|give)\b|that(?:'s| is) all\b)"
    rf"|{_FILLER}$"
)


def judge_follow_up(text: str, earlier: Sequence[tuple[str, str]]) -> Drop | None:
    """What is wrong with the user's next turn, None to keep it.

    Args:
        text: The turn.
        earlier: What user and assistant said before it, in turn; without any nothing is wrong.
    """
    if not earlier:
        return None
    own = set(text_shingles(text, PAIRS))
    for said, answer in earlier:
        new = set(words(text)) - set(words(said)) - _ASKING
        if not new and _shared(own, said) >= ASKED:
            return Drop("repeated", "question")
        if _shared(own, answer) >= COPIED:
            return Drop("repeated", "answer")
    return Drop("closing") if _only_closes(text) else None


def judge_next_answer(answer: str, earlier: Sequence[tuple[str, str]]) -> Drop | None:
    """What is wrong with the answer to a later turn, None to keep it. Arguments as of `judge_follow_up`."""
    own = set(text_shingles(answer, PAIRS))
    for _, before in earlier:
        other = set(text_shingles(before, PAIRS))
        if len(own & other) >= SAME_ANSWER * len(own | other):
            return Drop("repeated", "answer")
    return None


def _shared(runs: set[str], text: str) -> float:
    return len(runs & set(text_shingles(text, PAIRS))) / max(len(runs), 1)


def _only_closes(text: str) -> bool:
    """Whether every clause closes the subject; one with a question mark does not."""
    plain = " ".join(text.replace("’", "'").casefold().split())
    clauses = [clause.strip() for clause in _CLAUSE.findall(plain)]
    return all(_CLOSING.match(clause) and not clause.endswith("?") for clause in clauses)
