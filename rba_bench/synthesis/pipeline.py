"""Synthesis from start to end: instructions, answers, speech, manifest. A rerun resumes."""

from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_card import write_set_card
from rba_bench.cards import CARD
from rba_bench.errors import UserError
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.synthesis import corpora
from rba_bench.synthesis import teacher as teachers
from rba_bench.synthesis.collection import collect
from rba_bench.synthesis.corpora import Utterance, utterances
from rba_bench.synthesis.shards import Maker, write_manifest, write_shards
from rba_bench.synthesis.speech import Speaker, Spoken, espeak_speaker
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.textlm.text_model import TextLM

# Keys that may differ between a run and its resumption.
NOT_CONTENT = frozenset({"device", "batch_size", "max_candidates"})
DEFAULTS = SynthesisRecipe.model_validate({}).resolved()
LATER = (
    "instruction_prompt",
    "topics",
    "answer_prompt",
    "max_answer_words",
    "source",
    "kind",
    "template",
    "drop_unspeakable",
)


def synthesize(
    recipe: SynthesisRecipe, out: Path, *, teacher: TextLM | None = None, speaker: Speaker | None = None
) -> Path:
    """Make the alignment set of `recipe` in `out`, or finish what an earlier run began there.

    Args:
        recipe: what to make.
        out: folder for logs, shards and manifest.
        teacher: a loaded text model to use instead of loading `recipe.teacher`.
        speaker: a synthesiser to use instead of espeak-ng.

    Returns:
        `out`, holding a complete alignment set.

    Raises:
        UserError: `out` belongs to another recipe or teacher, or `recipe.source` is not what it should be.
        MissingPrerequisite: no teacher there, no speech synthesiser installed, or no speech at `recipe.source`.
        RbaError: the teacher does not yield enough usable instructions.
    """
    out = Path(out)
    identity = teachers.identity(recipe) if teacher is None else teacher.identity()
    found = utterances(recipe.source) if recipe.source is not None else []
    config = _config(recipe)
    if found:
        config["source_sha256"] = corpora.identity(found)
    for key in ("weights_sha256", "setup_sha256"):
        config[f"teacher_{key}"] = identity[key]
    if "template" in identity:
        config["template"] = identity["template"]
    resumes = claim(out, "synth", config)
    try:
        finished = resumes and _complete(out)
        if finished:
            say(f"{out} is complete already")
        else:
            _make(recipe, out, identity, found, teacher, speaker)
        if not finished or not (out / CARD).is_file():
            write_set_card(AlignmentSet.open(out, verify=False))
    finally:
        release(out)
    return out


def _make(
    recipe: SynthesisRecipe,
    out: Path,
    identity: dict[str, Any],
    found: list[Utterance],
    teacher: TextLM | None,
    speaker: Speaker | None,
) -> None:
    if recipe.source is None and speaker is None:
        speaker = espeak_speaker()  # before the long part: a missing extra shows at once
    teacher = teacher or teachers.load(recipe)
    maker: Maker
    if recipe.source is not None:
        made = corpora.translate(recipe, recipe.source, found, teacher, out)
        units, maker = [unit for unit, _ in made.values()], corpora.Recordings(made, recipe.source)
    else:
        units, maker = collect(recipe, teacher, out), Spoken(recipe, speaker or espeak_speaker())
    checksums = write_shards(units, recipe, maker, out)
    manifest = write_manifest(recipe, identity, _template(recipe, teacher), maker, checksums, out)
    counts = manifest["counts"]
    groups, clips, minutes = counts["groups"], counts["clips"], counts["hours"] * 60
    say(f"{out}: {groups} instructions, {clips} clips, {minutes:.1f} minutes of speech")


def _config(recipe: SynthesisRecipe) -> dict[str, Any]:
    """What decides the content. Keys of later versions count where they are used: older folders stay as they are."""
    config = {key: value for key, value in recipe.resolved().items() if key not in NOT_CONTENT}
    unused = {key for key in LATER if config[key] == DEFAULTS[key]}
    if recipe.source is not None:  # a hash stands for the speech, wherever it lies
        config["source"] = {k: v for k, v in config["source"].items() if k not in ("manifest", "path")}
    return {key: value for key, value in config.items() if key not in unused}


def _template(recipe: SynthesisRecipe, teacher: TextLM) -> str:
    """The pre-query template where instructions were sampled by it, else ""."""
    magpie = recipe.source is None and recipe.instruction_prompt is None
    return teacher.pre_query_template() if magpie else ""


def _complete(out: Path) -> bool:
    """True for a set that needs nothing more; a damaged one is repaired shard by shard."""
    try:
        AlignmentSet.open(out)
    except UserError:
        return False
    return True
