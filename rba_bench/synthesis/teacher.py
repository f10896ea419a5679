"""The teacher of a recipe: finding and loading it, sampling instructions from it, and letting it answer them.

Instructions are sampled the Magpie way by default: fed with nothing but its template's opening of a user turn, the
teacher writes that turn (Xu et al. 2024, "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with
Nothing"; the RBA paper samples at temperature 1.0-1.2 and top-p 0.99-1.0). With `instruction_prompt` it is asked for
them. Candidate number i has a seed of its own, so it does not matter in which run or batch it is sampled. Speech models
are later aligned to the teacher's answers.
"""

from pathlib import Path
from typing import Any

from rba_bench.assets import resolve_model
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import judge_answer, read_reply, tidy_lines
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.textlm.chat import disable_thinking, template_in_folder
from rba_bench.textlm.formats.conversion import read_source
from rba_bench.textlm.text_model import Decoding, TextLM
from rba_bench.textlm.weights import hub_commit, local_folder, setup_sha256, weights_sha256


def teacher_folder(recipe: SynthesisRecipe) -> Path:
    """Folder of the teacher; a Hub id is downloaded once.

    Raises:
        MissingPrerequisite: there is no such teacher.
    """
    return local_folder(resolve_model(recipe.teacher, "teacher"), "teacher")


def teacher_template(recipe: SynthesisRecipe) -> dict[str, Any]:
    """Variables of the teacher's chat template: the recipe's, and no thinking where the template can switch it off.

    Thinking is neither spoken nor learnt, and takes the room of the answer.
    """
    return disable_thinking(template_in_folder(teacher_folder(recipe)), recipe.template)


def teacher_identity(recipe: SynthesisRecipe) -> dict[str, Any]:
    """What the teacher is, without loading it: name, hash of weights, of tokenizer and template; variables."""
    folder = teacher_folder(recipe)
    return {
        "name": recipe.teacher,
        "weights_sha256": weights_sha256(folder),
        "setup_sha256": setup_sha256(folder),
        **({"revision": commit} if (commit := hub_commit(folder)) else {}),
        **({"source": source} if (source := read_source(folder)) else {}),
        **({"template": variables} if (variables := teacher_template(recipe)) else {}),
    }


def load_teacher(recipe: SynthesisRecipe) -> TextLM:
    """Load the teacher on the recipe's device."""
    from rba_bench.textlm.local import LocalTextLM

    folder, template = teacher_folder(recipe), teacher_template(recipe)
    return LocalTextLM.from_pretrained(
        folder, device=recipe.device, batch_size=recipe.batch_size, template=template
    )


def sample_candidates(teacher: TextLM, recipe: SynthesisRecipe, number: int) -> list[dict[str, Any]]:
    """Sample round `number`: `round_size` candidates `{index, seed, text, status, n_tokens}`, not yet judged."""
    first = number * recipe.round_size
    indices = range(first, first + recipe.round_size)
    seeds = [stable_seed("instruction", recipe.seed, index) for index in indices]
    length, temperature = recipe.instruction_max_new_tokens, recipe.instruction_temperature
    decoding = Decoding(length, temperature, recipe.instruction_top_p)
    if recipe.instruction_prompt is None:
        generations = teacher.complete([teacher.pre_query_template()] * len(seeds), decoding, seeds)
    else:
        topics = [recipe.topics[seed % len(recipe.topics)] if recipe.topics else "" for seed in seeds]
        prompts = [recipe.instruction_prompt.replace("{topic}", topic) for topic in topics]
        generations = teacher.chat(prompts, decoding, seeds)
    candidates = []
    for index, seed, generation in zip(indices, seeds, generations, strict=True):
        text, status = read_reply(generation)
        facts = {"text": text, "status": status, "n_tokens": generation.n_tokens}
        candidates.append({"index": index, "seed": seed, **facts})
    return candidates


def response_decoding(recipe: SynthesisRecipe) -> Decoding:
    """How responses are sampled."""
    return Decoding(recipe.response_max_new_tokens, recipe.response_temperature, recipe.response_top_p)


def answer_candidates(
    teacher: TextLM, recipe: SynthesisRecipe, candidates: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Answer kept candidates, in order: `{index, seed, response, status, n_tokens, reason}`."""
    if not candidates:
        return []
    seeds = [stable_seed("answer", recipe.seed, candidate["index"]) for candidate in candidates]
    prompts = [f"{candidate['text']}{recipe.answer_prompt or ''}" for candidate in candidates]
    generations = teacher.chat(prompts, response_decoding(recipe), seeds)
    answers = []
    for candidate, seed, generation in zip(candidates, seeds, generations, strict=True):
        response, status = read_reply(generation, tidy_lines)
        reason = judge_answer(response, status, recipe.max_answer_words)
        facts = {"status": status, "n_tokens": generation.n_tokens, "reason": reason}
        answers.append({"index": candidate["index"], "seed": seed, "response": response, **facts})
    return answers
