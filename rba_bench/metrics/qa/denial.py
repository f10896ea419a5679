"""English phrases that take an answer back, deny it, or name it without asserting it, as patterns over token texts.

Texts are joined by single blanks with one at each end; contractions are written out and marks are words of their own
(`paris ? no , lyon .`).
"""

import re
from collections.abc import Sequence

from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import FUNCTION, VERBS, words

# Phrases with a negative word that deny nothing
_HARMLESS = re.compile(
    r" (?:(?:there is )?(?:no|little) (?:doubt|question)(?: about (?:it|that))?|without (?:a |any )?(?:doubt"
    r"|question)"
    r"|not (?:only|just|merely|simply|surprisingly)|(?:none|no) other than|nothing (?:but|other than|else than)"
    r"|no (?:one|body) (?:else )?(?:but|other than)|nobody (?:else )?(?:but|other than)|if i am not mistaken"
    r"|not to mention|can not be any(?:thing|one|body) (?:but|other than)|why not|can not go wrong with"
    r"|(?:is|was|would|could|might) not (?:it|that|this)(?: be)?|not (?:in|open to) (?:any )?doubt"
    r"|do not doubt|not doubt|not wrong|not mistaken|not long ago|not surprising)(?= )"
)
_DENIED = re.compile(
    r" (?:not|never|neither|hardly|doubts?|doubtful|deny|denies|denied|unlikely|wrong|incorrect|false|mistaken"
    r"|mistake|misconception|impossible|disagree|rules? out|ruled out|rule out"
    r"|confused?(?: it| this| that| them)? with|far from"
    r"|no (?:way|chance)"
    r"|refuses?|rejects?|rejected|dismiss(?:ed)?|excludes?|excluded|eliminated?|nobody"
    r"|no one|no 1|myths?"
    r"|(?:anything|everything|anywhere|anyone|all) (?:but|except))(?= )"
)
_EXCEPTED = re.compile(
    r" (?:without|except(?: for)?|excluding|unlike|(?:rather|other) than|instead of|apart from|aside from|besides"
    r"|opposed to|in place of|contrary to|beside|nor|no)(?= )"
)
_DENIED_BEHIND = re.compile(
    r" (?:(?:is|was|are|were|do|does|did|has|had|have|can|could|would|will|should|must|might|may)"
    r"(?: (?:definitely|certainly|probably|actually|clearly|surely|really))? not(?! (?:only|just|merely))"
    r"|(?:is|was|would be|seems|sounds|are|were)(?: (?:just|simply|clearly|definitely|probably|also|the))*"
    r" (?:wrong|incorrect|false|unlikely|impossible|out|excluded|ruled out|mistaken|a (?:common )?(?:mistake"
    r"|misconception"
    r"|myth|error))|, (?:which is|that is) (?:wrong|incorrect|false|not)|[?] not"
    r"|(?:(?:[?.!,—;…]|\.\.+) )*(?:but )?(?:i do not (?:think|believe) so|i doubt (?:it|that)|(?:certainly|definitely"
    r"|absolutely) not"
    r"|not at all|no way|(?:that|this|it) is (?:wrong|incorrect|false|not (?:right|correct|true|it|so|the answer))"
    r"|wrong|incorrect|false|no|not true|not really|no chance|not likely|never)(?= [.!,]| $)) "
)
_SUPPOSED = re.compile(
    r" (?:(?:you|one|1) (?:might|may|could|would) (?:have )?(?:think|guess|say|expect|assume"
    r"|believe|thought"
    r"|guessed|said|expected|assumed|answer)|i (?:first |initially |once |always |had )?(?:thought|assumed|believed)"
    r"|i would have (?:said|thought|guessed)|used to (?:think|believe|say|be)|at first|my first (?:guess"
    r"|thought|instinct)"
    r"|initially|mistakenly|wrongly|falsely|erroneously|incorrectly|if (?:it|that|this) (?:were|was|is|had been)"
    r"|are you asking|do you mean|did you mean|you asked|you said|you mentioned|whether)(?= )"
)
_SAID = re.compile(
    r" (?:many|some|people|others|often|commonly|they|several|everyone|popular|sometimes|most)(?: \S+){0,3}?"
    r" (?:think|thinks|say|says|said|believe|believes|believed|claim|claims|assume|thought|answer|guess"
    r"|credit|credits|attribute)(?= )"
)
_CONTRAST = re.compile(r" (?:but|however|actually|others|although|really|wrong|in fact|in reality) ")
_RELATED = re.compile(
    r" (?:near|nearby|outside|than|against|versus|vs|beside|beyond|bordering|borders?|bordered by"
    r"|neighbou?ring|resembles?"
    r"|similar to|close to|next to|adjacent to|compared (?:to|with)|different from|unlike|like|beats?"
    r"|defeated|defeats"
    r"|(?:north|south|east|west|northeast|northwest|southeast|southwest) of|miles from|kilometers from|influenced by"
    r"|(?:contemporary|rival|friend|colleague|student|pupil|teacher|wife|husband|son|daughter|brother|sister|father"
    r"|mother|successor|predecessor|opposite|part|suburb|cousin|fan|admirer) of)(?: (?:the|a|an|city of|town of))* $"
)
_BOUNDED = re.compile(
    r" (?:before|after|prior to|later than|earlier than|(?:more|less|fewer|greater|smaller|higher|lower) than"
    r"|under|below"
    r"|up to)(?: the)? $"
)
_LIKE_FILLER = re.compile(r" (?:sounds|looks|something|was|is|it) like $")
_BETWEEN = re.compile(r" between \S+(?: \S+){0,3} and $| between $")
_STRONG = re.compile(
    r" (?:no ,? ?wait|wait ,? ?no|no no|scratch that|strike that|correction|or rather|i meant|i should say"
    r"|let me correct(?: myself| that)?|on second thoughts?|i take that back|i misspoke|my mistake|never ?mind"
    r"|(?<=[?.!,;—…] )no [,.!—])(?= )"
)
_WEAK = re.compile(r" (?:actually|sorry|i mean|wait|hold on|hmm+|er|well)(?= )")
_FINAL = re.compile(
    r" (?:the|my|your)(?: (?:final|right|correct|best|short|actual|real|true))* (?:answer|guess)"
    r"(?: to (?:your|the|this|that) question)? (?:is|would be|will be|must be|should be|was|:)(?= )(?! not)"
)
_NEW_CLAUSE = re.compile(r" (\S+) ((?:it|that|this|he|she|they) (?:is|was|are|were|will be|would be))(?= )")
_TAKES_CLAUSE = words(
    "sure certain way chance evidence proof reason idea case convinced true false wrong that claim"
)
_INQUIRY = re.compile(
    r" (?:do|did|does|are|were|can|could|would|will|what|which|who|where|when|how|why|have|has|shall|should"
    r"|(?:is|was)(?! (?:not|it|that|this|he|she) ))(?= )"
)
_GUESS = re.compile(r" (?:could|would|might)(?: not)? (?:it|that|this) be(?= )")


def joined(tokens: Sequence[Token]) -> str:
    """Texts of tokens with a blank around each."""
    return f" {' '.join(token.text for token in tokens)} "


def _place(text: str, position: int) -> int:
    """Number of tokens before a position of a joined text."""
    return text.count(" ", 0, position + 1) - 1


def corrections(tokens: Sequence[Token]) -> list[tuple[int, bool]]:
    """Where a correction ends, and whether its words can be nothing else."""
    text = joined(tokens)
    strong = [(_place(text, found.end()), True) for found in _STRONG.finditer(text)]
    weak = [(_place(text, found.end()), False) for found in _WEAK.finditer(text)]
    return sorted(strong + weak)


def final_answer(tokens: Sequence[Token]) -> int:
    """Where the last `the answer is` begins; 0 if there is none."""
    text = joined(tokens)
    starts = [found.start() for found in _FINAL.finditer(text)]
    return _place(text, starts[-1]) if starts else 0


def denied_before(clause: Sequence[Token]) -> bool:
    """Whether the words of a clause before an answer deny it."""
    text = _HARMLESS.sub(" ", joined(clause))
    for begins in reversed(list(_NEW_CLAUSE.finditer(text))):
        ended = re.search(r" (?:is|was|are|were) not ", text[: begins.start()])
        if ended and begins[1] not in VERBS | FUNCTION | _TAKES_CLAUSE:
            text = text[begins.start(2) - 1 :]  # it is not Lyon it is ...
            break
    if _DENIED.search(text):
        return True
    found = list(_EXCEPTED.finditer(text))
    return bool(found) and not any(word in VERBS for word in text[found[-1].end() :].split())


def denied_behind(rest: Sequence[Token]) -> bool:
    """Whether the words behind an answer deny it: `Paris is not the capital`, `Paris would be wrong`."""
    return _DENIED_BEHIND.match(joined([token for token in rest if token.text != '"'])) is not None


def supposed(clause: Sequence[Token], later: Sequence[Token]) -> bool:
    """Whether an answer is only thought of: `you might think`, `some say ..., but`."""
    text = joined(clause)
    if _SUPPOSED.search(text):
        return True
    return bool(_SAID.search(text)) and bool(_CONTRAST.search(joined(later)))


def related(before: Sequence[Token], asked: frozenset[str], numeric: bool) -> bool:
    """Whether an answer is only what something else is compared with: `near Paris`, `bigger than Paris`."""
    text = _HARMLESS.sub(" ", joined(before))
    if _BETWEEN.search(text):
        return "between" not in asked
    if numeric:
        return _BOUNDED.search(text) is not None
    found = _RELATED.search(text)
    if not found or _LIKE_FILLER.search(text):
        return False
    return not set(found[0].split()) - {"the", "a", "an", "of", "to"} <= asked


def inquires(sentence: Sequence[Token]) -> bool:
    """Whether a sentence asks back instead of guessing."""
    text = joined(sentence)
    return text.rstrip().endswith("?") and bool(_INQUIRY.match(text)) and not _GUESS.match(text)
