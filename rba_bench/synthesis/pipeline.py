"""Synthesis from start to end: instructions, answers, speech, manifest. Running it again resumes."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_card import write_set_card
from rba_bench.audio.speech_engines import SpeechEngine, engine_of_bank
from rba_bench.cards import CARD
from rba_bench.errors import UserError
from rba_bench.files import sha256_json
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.synthesis.collection import collect
from rba_bench.synthesis.corpora import Recordings, Utterance, read_utterances, translate
from rba_bench.synthesis.shards import RowMaker, write_manifest, write_shards
from rba_bench.synthesis.speech import SpokenClips
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import load_teacher, teacher_identity
from rba_bench.textlm.text_model import TextLM

# Keys that may differ between a run and its resumption.
NOT_CONTENT = frozenset({"device", "batch_size", "max_candidates"})
# Keys of later versions count only where they are used, so that folders of earlier versions can still be resumed.
LATER = (
    "instruction_prompt", "topics", "answer_prompt", "max_answer_words", "source", "kind", "template",
    "drop_unspeakable",
)  # fmt: skip
DEFAULTS = SynthesisRecipe.model_validate({}).resolved()


def synthesize(
    recipe: SynthesisRecipe, out: Path, *, teacher: TextLM | None = None, engine: SpeechEngine | None = None
) -> Path:
    """Make the alignment set of `recipe` in `out`, or finish what an earlier run began there.

    Args:
        recipe: what to make.
        out: folder for logs, shards and manifest.
        teacher: a loaded text model to use instead of loading `recipe.teacher`.
        engine: a speech engine to use instead of the one that has `recipe.voice_bank`.

    Returns:
        `out`, holding a complete alignment set.

    Raises:
        UserError: `out` belongs to another recipe or teacher, or `recipe.source` is not what it should be.
        MissingPrerequisite: no teacher there, no speech synthesiser installed, or no speech at `recipe.source`.
        RbaError: the teacher does not yield enough usable instructions.
    """
    out = Path(out)
    identity = teacher_identity(recipe) if teacher is None else teacher.identity()
    utterances = read_utterances(recipe.source) if recipe.source is not None else []
    resumes = claim(out, "synth", _signed_config(recipe, identity, utterances))
    try:
        finished = False
        if resumes:
            with suppress(UserError):  # a damaged set is repaired shard by shard
                AlignmentSet.open(out)
                finished = True
        if finished:
            say(f"{out} is complete already")
        else:
            _make_set(recipe, out, identity, utterances, teacher, engine)
        if not finished or not (out / CARD).is_file():
            write_set_card(AlignmentSet.open(out, verify=False))
    finally:
        release(out)
    return out


def _signed_config(
    recipe: SynthesisRecipe, identity: dict[str, Any], utterances: list[Utterance]
) -> dict[str, Any]:
    """Everything that decides the content of the set."""
    config = {
        key: value
        for key, value in recipe.resolved().items()
        if key not in NOT_CONTENT and not (key in LATER and value == DEFAULTS[key])
    }
    if recipe.source is not None:  # a hash stands for the speech, wherever it lies
        config["source"] = {k: v for k, v in config["source"].items() if k not in ("manifest", "path")}
        config["source_sha256"] = sha256_json([utterance.content() for utterance in utterances])
    config |= {f"teacher_{key}": identity[key] for key in ("weights_sha256", "setup_sha256")}
    return config | ({"template": identity["template"]} if "template" in identity else {})


def _make_set(
    recipe: SynthesisRecipe,
    out: Path,
    identity: dict[str, Any],
    utterances: list[Utterance],
    teacher: TextLM | None,
    engine: SpeechEngine | None,
) -> None:
    maker: RowMaker
    if recipe.source is None:
        # before the long part: an engine that is not installed is found at once
        maker = SpokenClips(recipe, engine or engine_of_bank(recipe.voice_bank))
        teacher = teacher or load_teacher(recipe)
        units = collect(recipe, teacher, out)
    else:
        teacher = teacher or load_teacher(recipe)
        translated = translate(recipe, recipe.source, utterances, teacher, out)
        units, maker = [unit for unit, _ in translated.values()], Recordings(translated, recipe.source)
    magpie = recipe.source is None and recipe.instruction_prompt is None
    template = teacher.pre_query_template() if magpie else ""
    checksums = write_shards(units, recipe, maker, out)
    manifest = write_manifest(recipe, identity, template, maker, checksums, out)
    counts = manifest["counts"]
    groups, clips, minutes = counts["groups"], counts["clips"], counts["hours"] * 60
    say(f"{out}: {groups} instructions, {clips} clips, {minutes:.1f} minutes of speech")
