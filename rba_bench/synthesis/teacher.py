"""The teacher of a recipe: finding and loading it, sampling instructions from it, and letting it answer them.

Instructions are sampled the Magpie way by default: fed with nothing but its template's opening of a user turn, the
teacher writes that turn (Xu et al. 2024, "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with
Nothing"; the RBA paper samples at temperature 1.0-1.2 and top-p 0.99-1.0). With `instruction_prompt` it is asked for
them. Candidate number i has a seed of its own, so it does not matter in which run or batch it is sampled. Speech models
are later aligned to the teacher's answers.
"""

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rba_bench.assets import is_asset, resolve_model
from rba_bench.errors import MissingPrerequisite, RbaError, UserError, first_line
from rba_bench.files import sha256_json
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import judge_answer, plain_text, read_reply, tidy_lines
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.textlm.chat import disable_thinking, template_in_folder, template_of, template_reads
from rba_bench.textlm.endpoints.address import EndpointOptions, parse_endpoint
from rba_bench.textlm.endpoints.client import EndpointClient
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.formats.conversion import read_source
from rba_bench.textlm.judging import Message
from rba_bench.textlm.query_template import (
    BARE,
    TEMPLATE,
    DialogueTemplate,
    QueryTemplate,
    derive_query_template,
)
from rba_bench.textlm.text_model import Decoding, Generation, TextLM
from rba_bench.textlm.weights import hub_commit, local_folder, setup_sha256, weights_sha256

DATE = "26 Jul 2024"


def is_server(recipe: SynthesisRecipe) -> bool:
    """Whether the teacher is a model behind a server. Raises UserError where its address is malformed."""
    return parse_endpoint(recipe.teacher) is not None


def teacher_folder(recipe: SynthesisRecipe) -> Path:
    """Folder of the teacher; a Hub id is downloaded once.

    Raises:
        MissingPrerequisite: there is no such teacher.
    """
    return local_folder(resolve_model(recipe.teacher, "teacher"), "teacher")


@lru_cache(maxsize=2)
def _named_tokenizer(spec: str) -> Any:
    """The tokenizer of a folder, an asset or a Hub id; of the Hub nothing else is downloaded.

    Raises:
        MissingPrerequisite: there is none.
    """
    from transformers import AutoTokenizer

    place = local_folder(resolve_model(spec, "tokenizer"), "tokenizer") if is_asset(spec) else spec
    try:
        return AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise MissingPrerequisite(
            f"no tokenizer at {spec} ({first_line(error)}): name a folder or Hub id"
        ) from error


def _template_text(recipe: SynthesisRecipe) -> str:
    """The teacher's chat template; "" for a server whose tokenizer is not named. Errors as above."""
    if recipe.teacher_tokenizer is not None:
        return template_of(_named_tokenizer(recipe.teacher_tokenizer))
    return "" if is_server(recipe) else template_in_folder(teacher_folder(recipe))


def teacher_template(recipe: SynthesisRecipe) -> dict[str, Any]:
    """Variables of the teacher's chat template: the recipe's, and no thinking where the template can switch it off.

    Thinking is neither spoken nor learnt, and takes the room of the answer. Templates that write today's date (Llama
    3.2) get the one that Llama 3.1's writes by itself: a set must not depend on the day.
    """
    text = _template_text(recipe)
    dated = template_reads(text, "strftime_now") and template_reads(text, "date_string")
    return disable_thinking(text, {**({"date_string": DATE} if dated else {}), **recipe.template})


def teacher_identity(recipe: SynthesisRecipe) -> dict[str, Any]:
    """What the teacher is, without loading it: name, hash of weights, of tokenizer and template; variables.

    The weights behind a server are not known: a hash of the model's name stands in.
    """
    variables = teacher_template(recipe)
    known = {"template": variables} if variables else {}
    if is_server(recipe):
        facts = _client(recipe).identity()
        setup = sha256_json([_template_text(recipe), recipe.query_template, recipe.query_stops])
        # not the address: a server may come back under another one
        model = {"name": facts["model"], "weights_sha256": sha256_json(facts["model"])}
        return {**facts, **model, "setup_sha256": setup, **known}
    folder = teacher_folder(recipe)
    return {
        "name": recipe.teacher,
        "weights_sha256": weights_sha256(folder),
        "setup_sha256": setup_sha256(folder),
        **({"revision": commit} if (commit := hub_commit(folder)) else {}),
        **({"source": source} if (source := read_source(folder)) else {}),
        **known,
    }


def load_teacher(recipe: SynthesisRecipe) -> TextLM:
    """Load the teacher on the recipe's device, or connect to its server.

    Raises:
        MissingPrerequisite: it is not there, or the server's key is not.
        UserError: a server, and nothing that tells its query template.
    """
    if is_server(recipe):
        return ServerTeacher(recipe, find_query(recipe) if recipe.samples_turns else None)
    from rba_bench.textlm.local import LocalTextLM

    folder, template = teacher_folder(recipe), teacher_template(recipe)
    return LocalTextLM.from_pretrained(
        folder, device=recipe.device, batch_size=recipe.batch_size, template=template
    )


def find_query(recipe: SynthesisRecipe) -> QueryTemplate:
    """What makes the teacher ask: the recipe's text, or what its tokenizer tells.

    Raises:
        MissingPrerequisite: the tokenizer is not there.
        UserError: a server's template is not known, or the chat template cannot be used.
    """
    if recipe.query_template not in (TEMPLATE, BARE):
        return QueryTemplate(recipe.query_template, recipe.query_stops)
    if recipe.teacher_tokenizer is None and is_server(recipe):
        raise UserError(
            f"{recipe.teacher} does not show its chat template: set teacher_tokenizer to a folder or Hub id with the "
            "model's tokenizer, or query_template and query_stops to the text that opens a user turn and what ends it"
        )
    tokenizer = _named_tokenizer(recipe.teacher_tokenizer or str(teacher_folder(recipe)))
    return derive_query_template(tokenizer, recipe.query_template, teacher_template(recipe))


def find_dialogue_template(recipe: SynthesisRecipe) -> DialogueTemplate:
    """What makes the teacher write the user's later turns: its chat template. Errors as of `find_query`."""
    if recipe.teacher_tokenizer is None and is_server(recipe):
        raise UserError(
            f"turns: {recipe.teacher} does not show how its chat template writes later turns: set teacher_tokenizer to "
            "a folder or Hub id with the model's tokenizer, or turns to 1"
        )
    tokenizer = _named_tokenizer(recipe.teacher_tokenizer or str(teacher_folder(recipe)))
    opening = None if recipe.query_template == TEMPLATE else find_query(recipe).text
    return DialogueTemplate(tokenizer, teacher_template(recipe), recipe.turns_prompt, opening)


def _client(recipe: SynthesisRecipe) -> EndpointClient:
    environment = EndpointOptions.from_environment()
    asked = os.environ.get("RBA_ENDPOINT_CONCURRENCY", "").strip()
    options = environment if asked else replace(environment, max_concurrency=recipe.requests)
    return EndpointClient.from_spec(recipe.teacher, options, teacher_template(recipe))


class ServerTeacher(TextLM):
    """A teacher behind an OpenAI-compatible server; may be asked from several threads at once.

    Args:
        recipe: Names the server.
        query: What makes it ask; None where it is asked in words.
    """

    streams = True

    def __init__(self, recipe: SynthesisRecipe, query: QueryTemplate | None) -> None:
        self.recipe, self.query = recipe, query
        self._threads = threading.local()  # a client serves one run of requests at a time

    @property
    def _model(self) -> EndpointLM:
        model: EndpointLM | None = getattr(self._threads, "model", None)
        if model is None:
            stops = () if self.query is None else self.query.stops
            model = self._threads.model = EndpointLM(_client(self.recipe), stops)
        return model

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.chat`."""
        return self._model.chat(user_texts, decoding, seeds)

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """See `TextLM.converse`."""
        return self._model.converse(conversations, decoding, seeds)

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.complete`."""
        return self._model.complete(prompts, decoding, seeds)

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `TextLM.logprobs`: servers cannot. Raises UserError."""
        return self._model.logprobs(user_texts, responses)

    def tokens_read(self) -> int:
        """See `TextLM.tokens_read`; of the requests of this thread."""
        return self._model.tokens_read()

    def pre_query_template(self) -> str:
        """See `TextLM.pre_query_template`."""
        return "" if self.query is None else self.query.text

    def identity(self) -> dict[str, Any]:
        """See `teacher_identity`."""
        return teacher_identity(self.recipe)


def refuse_silence(recipe: SynthesisRecipe, generations: Sequence[Generation]) -> None:
    """End the run where the server failed at every request of a shard: that is no result that a set could keep.

    Raises:
        RbaError: it did.
    """
    if generations and all(generation.status == "no_reply" for generation in generations):
        raise RbaError(
            f"{recipe.teacher} gave no usable reply to any of {len(generations)} requests; run the same command again "
            "when it works"
        )


def sample_candidates(
    teacher: TextLM, recipe: SynthesisRecipe, number: int, query: QueryTemplate | None = None
) -> list[dict[str, Any]]:
    """Sample round `number`: `round_size` candidates `{index, seed, text, status, n_tokens}`, not yet judged.

    Args:
        teacher: Writes them.
        recipe: How.
        number: Of the round.
        query: What makes the teacher ask; by default the teacher's own.
    """
    first = number * recipe.round_size
    indices = range(first, first + recipe.round_size)
    seeds = [stable_seed("instruction", recipe.seed, index) for index in indices]
    decoding = instruction_decoding(recipe)
    if recipe.instruction_prompt is None:
        query = query or QueryTemplate(teacher.pre_query_template(), ())
        generations = teacher.complete([query.text] * len(seeds), decoding, seeds)
        generations = [replace(made, text=query.cut(made.text)) for made in generations]
    else:
        topics = [recipe.topics[seed % len(recipe.topics)] if recipe.topics else "" for seed in seeds]
        prompts = [recipe.instruction_prompt.replace("{topic}", topic) for topic in topics]
        generations = teacher.chat(prompts, decoding, seeds)
    refuse_silence(recipe, generations)
    return read_candidates(indices, seeds, generations)


def read_candidates(
    indices: Iterable[int], seeds: Iterable[int], generations: Iterable[Generation]
) -> list[dict[str, Any]]:
    """User turns that the teacher wrote: `{index, seed, text, status, n_tokens}`, not yet judged."""
    candidates = []
    for index, seed, generation in zip(indices, seeds, generations, strict=True):
        text, status = read_reply(generation)
        facts = {"text": text, "status": status, "n_tokens": generation.n_tokens}
        candidates.append({"index": index, "seed": seed, **facts})
    return candidates


def instruction_decoding(recipe: SynthesisRecipe) -> Decoding:
    """How instructions are sampled."""
    length, temperature = recipe.instruction_max_new_tokens, recipe.instruction_temperature
    return Decoding(length, temperature, recipe.instruction_top_p)


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
    refuse_silence(recipe, generations)
    return read_answers(recipe, candidates, seeds, generations)


def read_answers(
    recipe: SynthesisRecipe,
    candidates: Iterable[dict[str, Any]],
    seeds: Iterable[int],
    generations: Iterable[Generation],
) -> list[dict[str, Any]]:
    """The teacher's answers to candidates, judged by themselves; as `answer_candidates` returns them."""
    answers = []
    for candidate, seed, generation in zip(candidates, seeds, generations, strict=True):
        response, status = read_reply(generation, tidy_lines)
        if recipe.strip_markdown:
            response = plain_text(response)
        reason = judge_answer(response, status, recipe.max_answer_words)
        facts = {"status": status, "n_tokens": generation.n_tokens, "reason": reason}
        answers.append({"index": candidate["index"], "seed": seed, "response": response, **facts})
    return answers
