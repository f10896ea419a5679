"""`rba-bench synth`: a teacher model and voices in, an alignment set out."""

from pathlib import Path

from rba_bench.cli import defaults, options
from rba_bench.cli.output import emit, emit_json, stdout_reserved
from rba_bench.progress import say
from rba_bench.quickstart import STANDARD_SET, SYNTHESIS
from rba_bench.shipped import recipe_file


def command(
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Make an alignment set.

    The teacher writes instructions and answers them, voices speak the instructions. A rerun resumes.
    """
    from rba_bench.recipes import load_recipe
    from rba_bench.synthesis.recipe import SynthesisRecipe

    checked = load_recipe(SynthesisRecipe, recipe_file(recipe or SYNTHESIS), set_ or ())
    standard = recipe is None and not set_
    folder = out or (
        STANDARD_SET if standard else defaults.run_folder("alignment-sets", "set", checked.resolved())
    )
    if out is None:
        say(f"alignment set: {folder} (choose with --out)")
    with stdout_reserved():
        from rba_bench.synthesis.pipeline import synthesize

        made = synthesize(checked, folder)
    _render(made, as_json)


def _render(made: Path, as_json: bool) -> None:
    from rba_bench.audio.alignment_set import MANIFEST
    from rba_bench.files import read_json

    manifest = read_json(made / MANIFEST)
    if as_json:
        emit_json({"alignment_set": made, "counts": manifest["counts"], "checksums": manifest["checksums"]})
    else:
        emit(str(made))
