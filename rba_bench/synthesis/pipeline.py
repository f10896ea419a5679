"""Synthesis from start to end: instructions, answers, speech, manifest. A rerun resumes."""

from pathlib import Path

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.errors import UserError
from rba_bench.outputs import claim
from rba_bench.progress import say
from rba_bench.synthesis import teacher as teachers
from rba_bench.synthesis.collect import collect
from rba_bench.synthesis.manifest import write_manifest
from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.synthesis.shards import write_shards
from rba_bench.synthesis.speak import Speaker, espeak_speaker
from rba_bench.textlm.base import TextLM

# Keys that may differ between a run and its resumption.
NOT_CONTENT = frozenset({"device", "batch_size", "max_candidates"})


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
        UserError: `out` belongs to another recipe or teacher.
        MissingPrerequisite: no teacher there, or no speech synthesiser installed.
        RbaError: the teacher does not yield enough usable instructions.
    """
    out = Path(out)
    identity = teachers.identity(recipe) if teacher is None else teacher.identity()
    config = {key: value for key, value in recipe.resolved().items() if key not in NOT_CONTENT}
    for key in ("weights_sha256", "setup_sha256"):
        config[f"teacher_{key}"] = identity[key]
    if claim(out, "synth", config) and _complete(out):
        say(f"{out} is complete already")
        return out
    speaker = speaker or espeak_speaker()  # before the long part: a missing extra shows at once
    teacher = teacher or teachers.load(recipe)
    units = collect(recipe, teacher, out)
    checksums = write_shards(units, recipe, speaker, out)
    manifest = write_manifest(recipe, identity, teacher.pre_query_template(), speaker, checksums, out)
    counts = manifest["counts"]
    groups, clips, minutes = counts["groups"], counts["clips"], counts["hours"] * 60
    say(f"{out}: {groups} instructions, {clips} clips, {minutes:.1f} minutes of speech")
    return out


def _complete(out: Path) -> bool:
    """True for a set that needs nothing more; a damaged one is repaired shard by shard."""
    try:
        AlignmentSet.open(out)
    except UserError:
        return False
    return True
