"""Magpie sampling: fed with nothing but the template's opening of a user turn, the teacher writes that turn.

Xu et al. 2024, "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing"; the
RBA paper samples at temperature 1.0-1.2 and top-p 0.99-1.0. Candidate number i has a seed of its own: it does
not matter in which run or batch it is sampled.
"""

from dataclasses import asdict
from typing import Any

from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import InstructionFilter, read
from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.synthesis.tags import Tagger
from rba_bench.textlm.base import Decoding, Generation, TextLM


def instruction_decoding(recipe: SynthesisRecipe) -> Decoding:
    """How instructions are sampled."""
    return Decoding(
        recipe.instruction_max_new_tokens, recipe.instruction_temperature, recipe.instruction_top_p
    )


def sample_round(teacher: TextLM, recipe: SynthesisRecipe, number: int) -> list[dict[str, Any]]:
    """Sample round `number`: `round_size` candidates `{index, seed, text, status, n_tokens}`, unjudged."""
    first = number * recipe.round_size
    indices = range(first, first + recipe.round_size)
    seeds = [stable_seed("instruction", recipe.seed, index) for index in indices]
    generations = _ask(teacher, recipe, seeds)
    candidates = []
    for index, seed, made in zip(indices, seeds, generations, strict=True):
        text, status = read(made)
        candidates.append(
            {"index": index, "seed": seed, "text": text, "status": status, "n_tokens": made.n_tokens}
        )
    return candidates


def _ask(teacher: TextLM, recipe: SynthesisRecipe, seeds: list[int]) -> list[Generation]:
    decoding = instruction_decoding(recipe)
    if recipe.instruction_prompt is None:
        return teacher.complete([teacher.pre_query_template()] * len(seeds), decoding, seeds)
    topics = [recipe.topics[seed % len(recipe.topics)] if recipe.topics else "" for seed in seeds]
    prompts = [recipe.instruction_prompt.replace("{topic}", topic) for topic in topics]
    return teacher.chat(prompts, decoding, seeds)


def judge_round(
    candidates: list[dict[str, Any]], tagger: Tagger, filters: InstructionFilter
) -> list[dict[str, Any]]:
    """Candidates with `reason` ("kept" or why not) and their tags, in the same order."""
    judged = []
    for candidate in candidates:
        tags = tagger(candidate["text"]) if candidate["status"] == "ok" else None
        reason = filters.judge(candidate["text"], candidate["status"], tags)
        judged.append({**candidate, "reason": reason, **(asdict(tags) if tags is not None else {})})
    return judged
