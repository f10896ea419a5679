"""The teacher answers the instructions it wrote; speech models are then aligned to these responses."""

from typing import Any

from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import judge_answer, read, tidy_lines
from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.textlm.base import Decoding, TextLM


def response_decoding(recipe: SynthesisRecipe) -> Decoding:
    """How responses are sampled."""
    return Decoding(recipe.response_max_new_tokens, recipe.response_temperature, recipe.response_top_p)


def answer(
    teacher: TextLM, recipe: SynthesisRecipe, candidates: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Answer kept candidates, in order: `{index, seed, response, status, n_tokens, reason}`."""
    if not candidates:
        return []
    seeds = [stable_seed("answer", recipe.seed, candidate["index"]) for candidate in candidates]
    generations = teacher.chat(
        [f"{candidate['text']}{recipe.answer_prompt or ''}" for candidate in candidates],
        response_decoding(recipe),
        seeds,
    )
    answers = []
    for candidate, seed, made in zip(candidates, seeds, generations, strict=True):
        response, status = read(made, tidy_lines)
        answers.append(
            {
                "index": candidate["index"],
                "seed": seed,
                "response": response,
                "status": status,
                "n_tokens": made.n_tokens,
                "reason": judge_answer(response, status, recipe.max_answer_words),
            }
        )
    return answers
