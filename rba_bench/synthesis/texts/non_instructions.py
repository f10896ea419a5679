"""Sampled "instructions" that nobody would say to an assistant.

Magpie lets the teacher write the user's turn (Xu et al. 2024, arXiv:2406.08464), and some turns come out as something
else: the assistant's greeting, an answer, question and answer in one, a system prompt, a prompt template, a text
without a request. The rules know English; in other languages only marks of roles are found.

A plain statement of one sentence stays, as does one in the first person: "I feel lonely since I moved" is said to be
answered.
"""

import re

KINDS = {
    "assistant": "what an assistant says: a greeting, an offer, a question back",
    "answer": "an answer, or a statement, story or letter without a request",
    "two_turns": "a question with its answer, or marks of several speakers",
    "system_prompt": "rules for an assistant, or a template without its task",
}
_HELP = r"(?:help|assist)"
_ASSISTANT = re.compile(
    rf"\bhow (?:can|may|could|might) i (?:best )?(?:{_HELP}|be of (?:help|service|assistance)|support) "
    rf"(?:to )?you\b"
    rf"|\bwhat (?:can|may) i (?:do for|{_HELP}) you\b|\b(?:anything else|something) (?:that )?i can {_HELP}\b"
    rf"|\bi(?:'d| would|'ll| will) be (?:more than )?(?:happy|glad|delighted|pleased) to (?:{_HELP}|answer"
    rf"|explain|provide)\b"
    rf"|\bi(?:'m| am) (?:always )?here to {_HELP}(?: you)?(?: with (?:any|your|whatever)|\s*[.!?,]|$)"
    rf"|\b(?:so|in order) (?:that )?i can (?:better |best )?{_HELP} you\b"
    r"|^(?:(?:hello|hi|hey|greetings|welcome)[^.!?]*[.!?,]\s*)?(?:i'm|i am|this is|my name is) (?:\w+, "
    r")?(?:your|an?) "
    r"(?:\w+ ){0,3}(?:assistant|chatbot|language model)\b"
    r"|\bi can do that for you\b|\bfeel free to (?:ask|reach out)\b|\bi apologi[sz]e for (?:the|any|my) "
    r"(?:confusion"
    r"|mistake|error|inconvenience)\b|\bmy (?:earlier|previous|last) (?:answer|response|reply)\b"
    r"|\bthank you for (?:contacting|reaching out|your (?:inquiry|enquiry|message|patience|request))\b"
    r"|\bas an? (?:\w+ ){0,2}?(?:ai\b|language model)[^.?!]*\bi (?:can|cannot|can't|do|am|don't)\b"
    r"|\bi (?:do not|don't) have (?:personal |any |human )+(?:opinions|feelings|preferences|experiences"
    r"|beliefs|emotions)\b"
    r"|^what (?:would|do) you (?:like|want|need) (?:to (?:talk|chat|know|discuss)|me to)\b[^?]*\?$"
)
# An opening that only answers have; with a question at the end it may be a user's
_OPENING = re.compile(
    r"^(?:sure(?: thing)?|certainly|absolutely|of course|definitely|great question|good question|no "
    r"problem|i understand)\s*"
    r"(?:!|\.|,|:)(?!\s*(?:but|why|what|how|i know)\b)"
)
_LISTS = re.compile(
    r"here (?:are|is) (?:some|a few|an?|the|your|two|three|four|five|six|seven|ten|\d+) (?:\w+ "
    r"){0,2}?(?:tips|ways|steps"
    r"|ideas|examples|reasons|facts|things|suggestions|list|recipe|summary|answer)\b[^?]*[:.]"
)
_ROLE = re.compile(
    r"(?:^|[\s.!?\"'*#])(user|human|person|student|customer|question|q|instruction|task|assistant|ai|bot"
    r"|chatbot|gpt|model"
    r"|answer|a|response|output|solution|input|system)\s*:(?=\s)"
)
_ASKING = {
    "user",
    "human",
    "person",
    "student",
    "customer",
    "question",
    "q",
    "instruction",
    "task",
    "input",
    "system",
}
_SYSTEM = re.compile(
    r"^(?:system\s*:|you are|you're|act as|you will (?:be|act as)) (?:an? |the |now |my )*(?:[\w-]+ ){0,4}?"
    r"(?:assistant|chatbot|bot|ai|language model|expert|tutor)\b"
    r"|^you are an? [^.!?]*\b(?:your (?:task|job|role|goal) is|you (?:must|should|will) (?:always|never"
    r"|answer|respond))"
    r"|\b(?:always (?:answer|respond|reply)|never reveal) [^.?!]*\b(?:rules|instructions|prompt|truthfully"
    r"|politely)\b"
)
_TEMPLATE = re.compile(
    r"\bbelow is an? (?:instruction|question|conversation|task)\b|\bwrite a response that (?:appropriately "
    r")?completes\b"
    r"|^(?:the following is|here is) a (?:conversation|dialogue|chat) between (?:an? )?(?:user|human|ai"
    r"|assistant)\b"
)
# A request in the middle or at the end of a text
_REQUEST = re.compile(
    r"\?|\b(?:please|tell me|give me|show me|help me|can you|could you|would you|i (?:want|need|would like"
    r"|wonder)|let us"
    r"|let's)\b|(?:^|[.!,:;] (?:(?:then|and|now|so) )?)(?:write|explain|describe|list|name|translate"
    r"|summari[sz]e"
    r"|continue|reply|suggest|recommend|compare|define|create|make|play|set|find|imagine|complete|finish"
    r"|rewrite"
    r"|rephrase|convert|tell|give|show|answer|calculate|plan|design|discuss|identify|classify|correct"
    r"|guess|invent"
    r"|read|sing|say)\b|(?:^|[.!:;] )(?:what|how|why|who|when|where|which)\b"
)
_FIRST_PERSON = re.compile(r"\b(?:i|me|my|mine|we|our|us|i'm|i've|i'd)\b")
_ASKS_ON = re.compile(
    r"\?|\b(?:please|thanks?|help|quick\w*|hurry|urgent\w*|explain|why|how|answer|briefly|them|it|me|us|now|honestly|seriously)\b"
)
_LETTER = re.compile(r"^(?:dear|to whom it may concern)\b[^.!?]{0,40},")
_STORY = re.compile(r"^(?:once upon a time|long ago|in a (?:small|faraway|distant|land))\b")
_SENTENCE = re.compile(r"[^.!?]*[.!?]+[\"')]*\s*|[^.!?]+$")
_QUESTION_WORD = re.compile(r"^(?:what|who|whom|whose|which|when|where|why|how|is|are|do|does|did|can)\b")
_ENGLISH = (
    "a an the of in on at to for and or is are was were do does did can could it its this that these those "
    "what who "
    "which when where why how there with from by as be been has have had will would should"
)
_SMALL_WORDS = frozenset(_ENGLISH.split())
_SENTENCES_OF_TEXT = 2
LONGEST = 3000  # characters that are looked at: what is spoken is shorter


def judge_request(text: str) -> str | None:
    """The first key of KINDS that the text is, None for what a person may say to an assistant."""
    plain = " ".join(text[:LONGEST].replace("’", "'").replace("‘", "'").casefold().split())
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(plain) if re.search(r"\w", sentence)]
    roles = set(_ROLE.findall(plain))
    if len(roles) > 1 and roles & _ASKING and roles - _ASKING or re.match(r"(?:assistant|ai|bot)\s*:", plain):
        return "two_turns"
    if _TEMPLATE.search(plain) or (_SYSTEM.search(plain) and not _asks_after_first(sentences)):
        return "system_prompt"
    if _ASSISTANT.search(plain):
        return "assistant"
    if _LISTS.match(plain) and not _asks_after_first(sentences):
        return "answer"
    if _OPENING.match(plain) and not plain.endswith("?"):
        return "answer"
    if _answers_itself(sentences):
        return "two_turns"
    return "answer" if _only_tells(plain, sentences) else None


def _asks_after_first(sentences: list[str]) -> bool:
    """Whether a text that gives the model a role goes on with a request."""
    return any(_REQUEST.search(sentence) for sentence in sentences[1:])


def _answers_itself(sentences: list[str]) -> bool:
    """A question, then statements that take up its words and end the text."""
    if len(sentences) < 2 or not sentences[0].endswith("?") or not _QUESTION_WORD.match(sentences[0]):
        return False
    rest = sentences[1:]
    if (
        len(rest) == 1
        and len(rest[0].split()) <= 2
        and not _ASKS_ON.search(rest[0])
        and not _REQUEST.search(rest[0])
    ):
        return True  # "How many legs has a spider? Eight."
    if any(_REQUEST.search(sentence) or _FIRST_PERSON.search(sentence) for sentence in rest):
        return False
    asked = set(re.findall(r"\w+", sentences[0])) - _SMALL_WORDS
    told = set(re.findall(r"\w+", " ".join(rest))) - _SMALL_WORDS
    return bool(asked) and len(asked & told) >= max(1, len(asked) / 2)


def _only_tells(plain: str, sentences: list[str]) -> bool:
    """Two sentences or more without a request and without the speaker, or a letter or story."""
    if _REQUEST.search(plain):
        return False
    if _LETTER.match(plain) or _STORY.match(plain):
        return True
    statements = len(sentences) >= _SENTENCES_OF_TEXT and all(s.endswith((".", "!")) for s in sentences[:1])
    starts = re.match(
        r"(?:(?:yes|no), )?(?:the|an?|this|these|those|it|he|she|they|there|in|on|at|during|many|most|some"
        r"|one|\w+s (?:are|have|do|can))\b",
        plain,
    )
    return statements and starts is not None and not _FIRST_PERSON.search(plain)
