"""Which control run (`eval --audio`) belongs to which full run: same model and, if sampled, same seed."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from rba_bench.errors import UserError
from rba_bench.evaluation.audio_control import FIRST, SHUFFLE, SILENCE, parse_audio_control
from rba_bench.evaluation.plan import identifying_facts
from rba_bench.leaderboard.loaded_runs import LoadedRun

_ORDER = (SILENCE, SHUFFLE, FIRST)


def match_controls(controls: Sequence[LoadedRun], full: Sequence[LoadedRun]) -> list[dict[str, LoadedRun]]:
    """The controls of each full run by their names; of several of one name the newest.

    Args:
        controls: Control runs of one protocol and test set.
        full: Runs of that protocol and test set with the items' own clips.

    Raises:
        UserError: a control has no full run, or could belong to several.
    """
    found: list[dict[str, LoadedRun]] = [{} for _ in full]
    for control in sorted(controls, key=lambda run: (run.record.created, run.record.run_id)):
        places = [place for place, run in enumerate(full) if _same_model(control, run)]
        if len(places) > 1:  # one name and weights, but set up in two ways
            facts = _facts(control)
            places = [place for place in places if _facts(full[place]) == facts]
        if len(places) != 1:
            raise UserError(without_full_run(control, len(places)))
        found[places[0]][control.record.audio_control] = control
    return found


def control_names(controls: Iterable[LoadedRun]) -> list[str]:
    """Names of controls in the order of their columns: silence, shuffle, then first seconds by their number."""

    def place(name: str) -> tuple[int, float, str]:
        with suppress(UserError):
            control = parse_audio_control(name)
            return _ORDER.index(control.kind), control.seconds, name
        return len(_ORDER), 0.0, name

    return sorted({run.record.audio_control for run in controls}, key=place)


def without_full_run(control: LoadedRun, candidates: int = 0) -> str:
    """Why a control cannot be compared, in a line."""
    many = f"{candidates} full runs that it may belong to" if candidates else "no full run to compare it with"
    fix = "name one of them" if candidates else "evaluate the model without --audio as well"
    return (
        f"{control.folder} is a control without the speech ({control.record.audio_control}) and has {many}: {fix}, "
        "or leave it out"
    )


def _same_model(control: LoadedRun, full: LoadedRun) -> bool:
    a, b = control.record, full.record
    greedy = not a.decoding.get("temperature")
    same_seed = greedy or a.seeds.get("generation") == b.seeds.get("generation")
    return control.name == full.name and _weights(control) == _weights(full) and same_seed


def _weights(run: LoadedRun) -> object:
    return run.record.model.get("weights_sha256")


def _facts(run: LoadedRun) -> dict[str, object]:
    return {name: value for name, value in identifying_facts(run.record.model).items() if name != "observed"}
