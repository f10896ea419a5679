"""What an instruction is: kind, topic, languages, and which part of it is spoken."""

from collections.abc import Callable
from dataclasses import dataclass

from rba_bench.synthesis.recipe import SynthesisRecipe


@dataclass(frozen=True)
class Tags:
    """Labels of one instruction text; `prompt` stays text, `instruction` is spoken."""

    kind: str
    topic: str
    difficulty: str
    prompt: str
    instruction: str
    source_lang: str
    target_lang: str
    held_out: bool = False


Tagger = Callable[[str], Tags | None]  # None: not a text of the tagger's world


def micro_tags(text: str) -> Tags | None:
    """Labels from the grammar of the micro world; None for a text the grammar cannot make."""
    from rba_bench.micro import world

    item = world.parse(text)
    if item is None:
        return None
    return Tags(
        kind=item.kind,
        topic=item.topic,
        difficulty=str(item.difficulty),
        prompt=item.prompt,
        instruction=item.instruction,
        source_lang=item.source_lang,
        target_lang=item.target_lang,
        held_out=item.split == "test",
    )


def make_tagger(recipe: SynthesisRecipe) -> Tagger:
    """The tagger the recipe asks for; without one everything is a spoken instruction on "others"."""
    if recipe.tagger == "micro":
        return micro_tags
    language, kind = recipe.language, recipe.kind
    return lambda text: Tags(kind, "others", "", "", text, language, language)
