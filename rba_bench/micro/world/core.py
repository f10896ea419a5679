"""Items of the micro world: draw them, answer them, recognise them in a text, grade a response.

The same code generates, parses and grades, so that training data, rewards' labels and evaluation agree by construction.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, product

from rba_bench.micro.world import translation as tr
from rba_bench.micro.world.intents import INSTRUCTIONS, QUESTIONS, TOPICS, UNUSABLE, Choices, Intent
from rba_bench.seeding import stable_seed

KINDS = ("instruct", "qa", "s2tt")
TEST_SHARE = 5  # one instruction in five is held out
CANONICAL_SHARE = 0.6  # how often the teacher uses the canonical wording of a translation
_BY_NAME = {intent.name: intent for intent in (*INSTRUCTIONS, *QUESTIONS, *UNUSABLE)}
_SLOT = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class WorldItem:
    """Something to ask: `prompt` is text beside the audio ("" unless s2tt), `instruction` is what is spoken."""

    kind: str
    topic: str
    intent: str
    instruction: str
    prompt: str = ""
    source_lang: str = "en"
    target_lang: str = "en"
    slots: tuple[tuple[str, str], ...] = ()
    sentence: tr.Sentence | None = field(default=None, compare=False)

    @property
    def user_text(self) -> str:
        """The user's turn as a text LLM reads it."""
        return f"{self.prompt} {self.instruction}".strip()

    @property
    def split(self) -> str:
        """`test` for one instruction in five, by a hash of the text: held out from every training set."""
        return "test" if stable_seed("split", self.user_text) % TEST_SHARE == 0 else "train"

    @property
    def source(self) -> str:
        """The question set or sentence domain the item belongs to ("" for instructions)."""
        return self.intent if self.kind == "s2tt" else _BY_NAME[self.intent].source

    @property
    def difficulty(self) -> str:
        """Five levels by the number of words in the user's turn."""
        words = len(self.user_text.split())
        return ("very easy", "easy", "medium", "hard", "very hard")[sum(words > n for n in (5, 8, 11, 15))]


@dataclass(frozen=True)
class Grade:
    """`score` in [0, 1]; 1.0 exactly when the response is one of the valid answers, at most 0.5 otherwise."""

    score: float
    valid: bool
    reason: str


def translation_prompt(source: str, target: str) -> str:
    """The text that stands before the speech (or the words) to translate."""
    return f"translate {tr.LANGUAGE_NAMES[source]} to {tr.LANGUAGE_NAMES[target]} :"


def _choices(intent: Intent, slots: dict[str, str]) -> Choices:
    return {**{name: (value,) for name, value in slots.items()}, **intent.fill(slots)}


def _are_distinct(values: dict[str, str]) -> bool:
    """Slots that share a base (tip1, tip2) must hold different values."""
    numbered = [(re.sub(r"\d+$", "", name), value) for name, value in values.items() if name[-1].isdigit()]
    shared = [pair for pair in numbered if pair[0] in ("tip", "act", "idea", "person", "animal", "word")]
    return len(set(shared)) == len(shared)


def _fill_randomly(rng: random.Random, template: str, choices: Choices) -> str:
    while True:
        values = {name: rng.choice(choices[name]) for name in dict.fromkeys(_SLOT.findall(template))}
        if _are_distinct(values):
            return template.format(**values)


def _draw_instruction(rng: random.Random, intent: Intent) -> WorldItem:
    ask = rng.choice(intent.asks)
    names = [name for name in dict.fromkeys(_SLOT.findall(ask)) if name in intent.slots]
    while True:
        slots = {name: rng.choice(intent.slots[name]) for name in names}
        if _are_distinct(slots):
            break
    text = _fill_randomly(rng, ask, _choices(intent, slots))
    return WorldItem(intent.kind, intent.topic, intent.name, text, slots=tuple(slots.items()))


def _draw_translation(rng: random.Random, domain: str | None) -> WorldItem:
    source, target = rng.choice((tr.DIRECTIONS[0], rng.choice(tr.DIRECTIONS[1:])))
    domain = domain or rng.choice(("covost2", "fleurs"))
    sentence = tr.sample_sentence(rng, domain)
    text = tr.wordings(sentence, source)[0 if domain == "covost2" else rng.randrange(2)]
    return WorldItem(
        "s2tt", "others", domain, text, translation_prompt(source, target), source, target, sentence=sentence
    )


def sample_item(
    rng: random.Random,
    kind: str | None = None,
    topic: str | None = None,
    split: str = "train",
    source: str | None = None,
    usable: bool = True,
) -> WorldItem:
    """Draw an item of `split`.

    Args:
        rng: source of randomness.
        kind: "instruct", "qa" or "s2tt"; by default 40 %, 15 % and 45 %: translation is what takes longest to learn.
        topic: one of TOPICS, for instructions.
        split: "train" or "test" (held-out texts).
        source: "triviaqa" or "webquestions" (qa), "covost2" or "fleurs" (s2tt).
        usable: False draws what the synthesis filters should drop.
    """
    while True:
        drawn_kind = kind or rng.choices(KINDS, (40, 15, 45))[0]
        if not usable:
            item = _draw_instruction(rng, rng.choice(UNUSABLE))
        elif drawn_kind == "s2tt":
            item = _draw_translation(rng, source)
        elif drawn_kind == "qa":
            item = _draw_instruction(rng, rng.choice([i for i in QUESTIONS if source in (None, i.source)]))
        else:
            theme = topic or rng.choice(TOPICS)
            item = _draw_instruction(rng, rng.choice([i for i in INSTRUCTIONS if i.topic == theme]))
        if item.split == split:
            return item


def sample_answer(rng: random.Random, item: WorldItem) -> str:
    """A valid answer in a random wording."""
    if item.sentence is not None:
        canonical, variant = tr.wordings(item.sentence, item.target_lang)
        return canonical if rng.random() < CANONICAL_SHARE else variant
    intent = _BY_NAME[item.intent]
    return _fill_randomly(rng, rng.choice(intent.answers), _choices(intent, dict(item.slots)))


def references(item: WorldItem) -> list[str]:
    """Valid answers, canonical first: aliases (qa), both word orders (s2tt), a few wordings (instruct)."""
    if item.sentence is not None:
        return list(tr.wordings(item.sentence, item.target_lang))
    intent = _BY_NAME[item.intent]
    choices = _choices(intent, dict(item.slots))
    if item.kind == "qa":
        return list(choices["answer"])
    return [next(_fillings(template, choices)) for template in intent.answers]


def _fillings(template: str, choices: Choices) -> Iterator[str]:
    names = list(dict.fromkeys(_SLOT.findall(template)))
    for values in product(*(choices[name] for name in names)):
        slots = dict(zip(names, values, strict=True))
        if _are_distinct(slots):
            yield template.format(**slots)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], Intent, str]]:
    patterns = []
    for intent in _BY_NAME.values():
        for ask in intent.asks:
            names: set[str] = set()

            def group(match: re.Match[str], intent: Intent = intent, names: set[str] = names) -> str:
                name = match.group(1)
                if name in names:
                    return f"(?P={name})"
                names.add(name)
                values = intent.slots.get(name)
                return f"(?P<{name}>{'|'.join(map(re.escape, values)) if values else '.+'})"

            patterns.append((re.compile(_SLOT.sub(group, ask)), intent, ask))
    return patterns


def parse(user_text: str) -> WorldItem | None:
    """Recognise a user's turn of this world; None for anything else."""
    text = " ".join(user_text.split())
    for source, target in tr.DIRECTIONS if text.startswith("translate ") else ():
        prompt = translation_prompt(source, target)
        spoken = text.removeprefix(prompt).strip()
        if text.startswith(prompt + " ") and (sentence := tr.parse_sentence(spoken, source)) is not None:
            domain = "fleurs" if sentence.subject2 else "covost2"
            return WorldItem("s2tt", "others", domain, spoken, prompt, source, target, sentence=sentence)
    if text.startswith("translate "):
        return None
    for pattern, intent, ask in _patterns():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        slots = {name: value for name, value in match.groupdict().items() if name in intent.slots}
        if _are_distinct(slots) and text in _fillings(ask, _choices(intent, slots)):
            return WorldItem(intent.kind, intent.topic, intent.name, text, slots=tuple(slots.items()))
    return None


def grade(item: WorldItem, response: str) -> Grade:
    """Rule judge: 1.0 for any valid answer, else half the best word overlap (F1) with a few valid wordings."""
    text = " ".join(response.lower().replace(".", " ").replace(",", " ").split())
    if not text:
        return Grade(0.0, False, "empty response")
    some_answers = references(item)
    if item.sentence is not None:
        valid = text in some_answers
    else:
        intent = _BY_NAME[item.intent]
        choices = _choices(intent, dict(item.slots))
        valid = any(text in _fillings(template, choices) for template in intent.answers)
        if item.kind == "instruct":
            some_answers = [
                answer for template in intent.answers for answer in islice(_fillings(template, choices), 24)
            ]
    if valid:
        return Grade(1.0, True, "one of the valid answers")
    words, overlap = Counter(text.split()), 0.0
    for answer in some_answers:
        expected = Counter(answer.split())
        shared = (words & expected).total()
        overlap = max(overlap, 2 * shared / max(1, words.total() + expected.total()))
    return Grade(0.5 * overlap, False, f"not a valid answer; word overlap {overlap:.2f}")
