"""Answers that refuse, and answers that say nothing: "I'm sorry, but I can't", "As an AI language model".

A refusal stands where an answer begins: the same words later in it are told, quoted or explained. So the rules look at
its first sentences. "I'm sorry that your parcel arrived late" is an apology in a letter, "I can't sleep, whispered
Tom" a story: what cannot be done must be something that one asks an assistant for. A question about refusals, and a
part that the user asked the model to play, stay.

English in full, and the usual phrases in German, French, Spanish, Italian, Portuguese and Dutch; others pass.
"""

import re

_SENTENCE = re.compile(r"[^.!?]*[.!?]+[\"'”’)]*\s*|[^.!?]+$")
_BEGINNING, _SENTENCE_SIZE = 2, 300  # sentences in which a refusal is looked for, and characters of each
_LONGEST_FILLER = 500  # characters; a longer answer says something
_TASKS = (
    r"(?:help|assist|answer|provide|fulfil|comply|do that|do this|discuss|access|predict|generate|create"
    r"|writ|produc"
    r"|engag|support|continue|respond|complet|process|brows|recommend|tell (?:you|a |stor|joke)|play |sing"
    r"|see |hear"
    r"|speak (?:about|on)|talk about|offer|giv|shar|express|form |participat|perform|execut|translat"
    r"|summari|explain"
    r"|advis|condon|encourag|endors|open |set |send|search|check|control|order|book |call )"
)
_CANNOT = (
    r"(?:can(?:no|')?t|can not|won't be able to|will not be able to|(?:am|'m) (?:not able|unable|not "
    r"allowed)(?: to)?"
    r"|(?:am|'m) not (?:capable|designed|programmed|trained|equipped|comfortable)(?: of| to| with)?|must "
    r"(?:decline|refuse)"
    r"(?: to)?|have to decline(?: to)?|(?:do not|don't) feel comfortable(?: with)?|refuse to"
    r"|(?:do not|don't) have (?:the (?:ability|capability|capacity)|access|enough (?:information|context|data)"
    r"|(?:real-time|personal) )(?: to)?)"
)
# No two ways to read the same words, and a bound: a text of the same words over and over must not take for ever.
_LEAD = (
    r"(?:(?:well|oh|hello|hi|sure|no|unfortunately|regrettably|(?:i'm |i am )?(?:so |very |really |truly "
    r")?sorry"
    r"|my apologies|i (?:do |sincerely )?apologi[sz]e|i regret|i'm afraid|i am afraid|as much as i'd like to"
    r"|i (?:appreciate|understand)(?: [a-z']+){1,8}(?=,)|however|but|that|to say|for the inconvenience|at "
    r"this time"
    r"|currently)[,;:]?\s+){0,6}"
)
_REFUSALS = (
    rf"{_LEAD}(?:that |but |and )*i(?: |')?(?:am |'m )?(?:currently |still |really |simply |also )*{_CANNOT}"
    rf"[\s,]+(?:\w+ ){{0,3}}?{_TASKS}",
    rf"{_LEAD}(?:that |but |and )*i (?:must (?:decline|refuse)|have to decline|(?:do not|don't) feel "
    rf"comfortable|refuse to)\b",
    rf"{_LEAD}i (?:do not|don't) have (?:enough|sufficient) (?:information|context|data)\b",
    rf"{_LEAD}i (?:do not|don't) have (?:real-time|the ability|the capability|access to)\b",
    r"(?:i'm sorry|i am sorry|i apologi[sz]e|sorry)[,.!]?\s*(?:but\s+)?(?:this|that|your) (?:request"
    r"|question|topic)\b"
    r"[^.]*\b(?:can't|cannot|not)\b",
    rf"{_LEAD}(?:it is|it's|that is|that's|this is|this goes|it goes|that goes) against my "
    r"(?:programming|guidelines|policy|policies|principles|ethic\w*)",
    rf"{_LEAD}(?:please consult|you should consult) an? (?:\w+ )?(?:doctor|professional|lawyer"
    rf"|expert)[^.]*\.?$",
    r"[^.!?]{0,60}\b(?:something (?:that )?i (?:can't|cannot|am not able to|'m unable to) (?:do|help"
    r"|assist|answer|provide)"
    r"|(?:beyond|outside) my (?:abilities|capabilities|scope|knowledge|programming|reach))\b",
    rf"{_LEAD}i lack (?:access|the (?:ability|information|data))\b",
    rf"{_LEAD}i(?:'d rather not| would rather not|'d prefer not to| prefer not to) {_TASKS}",
    rf"{_LEAD}it (?:would be|is) (?:in|not )appropriate (?:for me )?to\b|{_LEAD}it (?:wouldn't|would not) "
    rf"be appropriate\b",
    # the usual phrases of other languages
    r"(?:es tut mir leid|tut mir leid|leider|entschuldigung)[^.!?]*\bkann ich\b[^.!?]*\b(?:nicht|keine?n?)\b",
    r"(?:es tut mir leid|tut mir leid|leider)[^.!?]*\bich kann\b[^.!?]*\bnicht (?:helfen|beantworten"
    r"|erfüllen|bereitstellen)",
    r"(?:je suis désolée?|désolée?|malheureusement)[^.!?]*\bje ne (?:peux|suis|puis)\b[^.!?]*\b(?:pas|en "
    r"mesure)\b",
    r"(?:lo siento|lo lamento|lamentablemente|disculpa)[^.!?]*\bno puedo\b",
    r"(?:mi dispiace|purtroppo)[^.!?]*\bnon (?:posso|sono in grado)\b",
    r"(?:sinto muito|desculpe|infelizmente|lamento)[^.!?]*\bnão (?:posso|consigo)\b",
    r"(?:het spijt me|sorry|helaas)[^.!?]*\bkan ik\b[^.!?]*\bniet\b",
)
_REFUSAL = re.compile("|".join(f"(?:{pattern})" for pattern in _REFUSALS))
# The model asks back for what the instruction did not need; it refuses if that is all there is.
_ASKS_BACK = re.compile(
    r"(?:(?:could|can|would) you (?:please |kindly )?|please |i(?:'d| would)? need you to )"
    r"(?:provide|specify|clarify|share|give|send|tell|elaborate)\b[^.!?]*"
    r"\b(?:more|further|additional|details?|information|context|specific\w*|text|article|passage|topic"
    r"|question|what)\b"
)
_BOILERPLATE = re.compile(
    r"\bas an? (?:\w+ ){0,2}?(?:ai\b|artificial intelligence|(?:language|learning) model|chatbot|machine"
    r"|computer program|virtual assistant)"
    r"|\bi(?:'m| am) (?:just|only|merely|simply) an? (?:\w+[- ]){0,2}?(?:ai\b|artificial|language model"
    r"|computer|program"
    r"|machine|chatbot|bot\b|virtual|digital)"
    r"|\bi (?:do not|don't) have (?:personal |any |my own |human )*(?:feelings|emotions|opinions"
    r"|preferences|beliefs"
    r"|experiences|consciousness|taste buds|a physical (?:body|form))"
    r"|\bmy (?:knowledge|training)(?: data)? (?:cut-?off|only goes|ends|was last updated|is limited)"
    r"|\bmy (?:last|latest) (?:knowledge )?update\b|\bas of my (?:last|knowledge|training)"
)
# Sentences that hold nothing of an answer
_FILLER = re.compile(
    r"(?:(?:wow|oh|ah|well|absolutely|sure|sure thing|certainly|of course|definitely|okay|ok|alright|all "
    r"right|yes|great"
    r"|awesome|amazing|fantastic|wonderful|excellent|got it|no problem|hello|hi|hey)(?: there)?\W*)*"
    r"(?:(?:what an? |that(?: i|')s an? |this is an? )?(?:\w+ )?(?:great|good|excellent|interesting"
    r"|fascinating|wonderful"
    r"|fantastic|important|amazing) (?:question|topic|idea|request|choice)"
    r"(?:,? and it depends on[^.!?]*|,? (?:and|but) the answer (?:is not|isn't|may)[^.!?]*)?"
    r"|i(?:'d| would|'ll| will)? (?:be |am |really |absolutely )*(?:happy|glad|delighted|love|pleased)"
    r" to (?:help|assist)[^.!?]*"
    r"|i(?:'m| am) (?:so |very |really |always |more than )*(?:excited|happy|glad|thrilled|delighted|here"
    r"|ready|eager)"
    r" (?:to|for) [^.!?]*"
    r"|let'?s (?:dive (?:right )?in|get started|begin|go|explore)[^.!?]*"
    r"|are you ready[^.!?]*|here we go|i hope (?:this|that|it) (?:helps|was helpful)[^.!?]*"
    r"|(?:please )?(?:let me know|feel free|don't hesitate)[^.!?]*|(?:do you have|is there) "
    r"any(?:thing)?[^.!?]*"
    r"|it depends on (?:many|several|various|a lot of|a number of)(?: different)? (?:factors|things)"
    r"|how (?:can|may) i (?:help|assist)[^.!?]*)?\W*"
)
_PLAYED = re.compile(
    r"\b(?:act (?:as|like)|play the (?:part|role)|role-?play|pretend|imagine|impersonate|parod\w+|letter"
    r"|e-?mail|apology|"
    r"dialogue|lyrics)\b"
)
_YES_OR_NO = re.compile(
    r"(?:is|are|am|was|were|do|does|did|can|could|will|would|should|has|have|had|may|shall)(?:n't)?\b"
)
_ABOUT_MODELS = re.compile(r"\b(?:ai|chatbots?|assistants?|language models?|refus\w+)\b")


def judge_reply(instruction: str, answer: str) -> str | None:
    """`refusal`, `boilerplate`, or None for an answer that answers."""
    asked, text = _plain(instruction), _plain(answer)
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text) if re.search(r"\w", sentence)]
    if not sentences:
        return None
    beginning = [sentence[:_SENTENCE_SIZE] for sentence in sentences[:_BEGINNING]]
    about_models = _ABOUT_MODELS.search(asked) is not None
    if _BOILERPLATE.search(" ".join(beginning)) and not about_models:
        return "boilerplate"
    played = _PLAYED.search(asked) is not None
    if not played and any(_REFUSAL.match(sentence) for sentence in beginning):
        return "refusal"
    if len(sentences) == 1 and _ASKS_BACK.match(beginning[0].removeprefix("i'm sorry, but ")):
        return "refusal"
    bare_yes = len(sentences) == 1 and len(text.split()) <= 2 and _YES_OR_NO.match(asked) is not None
    if len(text) > _LONGEST_FILLER or bare_yes:
        return None
    return "boilerplate" if all(_FILLER.fullmatch(sentence) for sentence in sentences) else None


def _plain(text: str) -> str:
    """Lower case, on one line, with straight apostrophes."""
    return " ".join(text.replace("’", "'").replace("‘", "'").casefold().split())
