"""Instructions and answers put together from words, for `synthesis_scale.py`: as long as real ones, and as different.

There are some 10^10 instructions, and few share more than their beginning.
"""

import random
from collections.abc import Sequence

OPENINGS = (
    "What is the best way to",
    "How do I",
    "Can you explain how to",
    "Is it difficult to",
    "Why do people",
    "Give me {number} reasons to",
    "Tell me how to",
    "Should a {person}",
    "What happens when I",
    "Write a poem about a {person} who likes to",
    "Write a short story in which a {person} has to",
    "When should I",
    "What do I need to",
    "Describe how a {person} would",
    "Plan a day on which I can",
    "How long does it take to",
    "Help me to",
    "I am a {person}. How can I",
    "My neighbour wants to",
    "Suggest {number} ways to",
    "Is it true that a {person} must",
    "Where can I learn to",
    "How much does it cost to",
    "Who taught people to",
)
MIDDLES = (
    "{verb} {adjective} {noun}",
    "{verb} {noun} and {noun2}",
    "{verb} the {adjective} {noun2} of a {person}",
    "{verb} {noun} for a {adjective} {place}",
    "{verb} {number} {adjective} {noun2}",
    "{verb} a {person}'s {noun}",
)
ENDINGS = (
    "before {event}",
    "near the {place}",
    "without {adjective2} {noun3}",
    "with the help of a {person2}",
    "in {event}",
    "and then {verb2} the {adjective2} {noun3}",
    "so that a {person2} can {verb2} the {noun3}",
    "after {event}",
    "if the {place} is {adjective2}",
    "while a {person2} is at the {place}",
    "instead of {adjective2} {noun3}",
    "between {event} and {event2}",
    "for {number2} {adjective2} friends",
    "at a {adjective2} {place}",
)
ANSWERS = (
    "A {person} can {verb} {adjective} {noun} well before {event}.",
    "It helps to look at the {noun2} in the {place} first, and to take some time for it.",
    "Most people {verb} the {noun} together with {adjective} {noun2}, because it saves work.",
    "After {event} the {place} is usually quiet, so there is enough room for everybody.",
)
WORDS = {
    "verb": "prepare clean repair carry collect compare arrange protect choose paint store wash count explore measure "
    "describe organise examine polish decorate cook share sell borrow plant harvest transport build restore photograph",
    "adjective": "small heavy old fresh bright quiet simple modern broken colourful wooden local rare cheap gentle "
    "round warm cold dry soft narrow ancient famous ordinary useful delicate strong thin young strange",
    "noun": "apples curtains bicycles letters blankets lanterns tomatoes chairs recipes maps baskets photographs shoes "
    "mirrors bottles carpets windows ladders guitars notebooks candles kettles boats ropes stamps coins puzzles "
    "teapots umbrellas jackets",
    "noun2": "spices ribbons hammers pencils buttons feathers stones flowers napkins magazines violins drums cameras "
    "tickets paintings bricks shells pillows gloves suitcases radios clocks toys scarves plates spoons needles "
    "cards nets kites",
    "person": "gardener teacher nurse farmer student baker sailor musician painter engineer lawyer waiter librarian "
    "carpenter tailor pilot dentist journalist photographer scientist butcher plumber fisherman dancer poet cook "
    "grandmother neighbour traveller shepherd",
    "place": "harbour market forest library station museum village kitchen castle airport school theatre meadow bridge "
    "garden factory beach mountain hospital bakery island park river workshop restaurant square valley church "
    "stadium lighthouse",
    "event": "winter breakfast the festival a storm the holidays dinner the concert lunch a wedding the harvest "
    "the meeting the parade sunrise the journey a long walk the exam the flood the celebration the first snow",
    "number": "three four five six seven eight",
}
LISTS = {name: text.split() for name, text in WORDS.items() if name != "event"} | {
    "event": ["winter", "breakfast", "the festival", "a storm", "the holidays", "dinner", "the concert", "a wedding",
              "the harvest", "the meeting", "the parade", "sunrise", "a long walk", "the exam", "the first snow"]
}  # fmt: skip

LISTS |= {f"{name}2": LISTS[name] for name in ("verb", "adjective", "person", "event", "number")}
LISTS["noun3"] = LISTS["noun"] + LISTS["noun2"]


def fill(templates: Sequence[str], rng: random.Random) -> str:
    """One of the sentences, with words of the lists."""
    return rng.choice(templates).format(**{name: rng.choice(words) for name, words in LISTS.items()})
