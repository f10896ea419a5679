"""What the user asks to be evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.checkpoints import latest_checkpoint, training_note
from rba_bench.evaluation.decoding import DEFAULT_SEED
from rba_bench.evaluation.registry import BENCHMARKS, DECODINGS, track_of
from rba_bench.outputs import RUNS
from rba_bench.progress import say
from rba_bench.speechlm.load import BUILT_IN

BATCH_SIZE = 32
OUT = RUNS / "eval"


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate.

    Attributes:
        tasks: Task names, group names, benchmark names or YAML paths; see `registry.resolve`.
        model: See `rba_bench.speechlm.load.load`.
        track: `micro` or `full`.
        out: Folder of the run records, and of the cache of answers.
        limit: Only the first items of each task; marks the records as partial.
        decodings: Protocols to run for benchmarks given by short name.
        seed: Base seed of sampled decoding.
        batch_size: Most clips per batch.
        batch_seconds: Most audio per batch in seconds, None for a default by batch size.
        device: Torch device; by default a GPU if there is one.
        data_dir: Folder with local copies of data sets, None to ask the Hub.
        judge: Model that judges instead of the tasks' own; `none` leaves judged metrics out.
        baseline: File or run folder with answers to beat, instead of the tasks' own.
        perturb: What is done to every clip, such as `noise=10dB,telephone`.
        use_cache: Whether answers kept by other runs in `out` are taken.
        retry_errors: Ask again for items that an earlier attempt could not answer, or a judge could not judge.
        trust: Run Python code that task files of others name; `model_options` has `trust_remote_code` for models.
        model_options: Passed on to the model's loader.
    """

    tasks: tuple[str, ...]
    model: str
    track: str = "micro"
    out: Path = OUT
    limit: int | None = None
    decodings: tuple[str, ...] = DECODINGS
    seed: int = DEFAULT_SEED
    batch_size: int = BATCH_SIZE
    batch_seconds: float | None = None
    device: str | None = None
    data_dir: Path | None = None
    judge: str | None = None
    baseline: str | None = None
    perturb: str = ""
    use_cache: bool = True
    retry_errors: bool = False
    trust: bool = False
    model_options: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What the tasks' data loading must know, as `lm_eval --metadata` would say it."""
        told = {"data_dir": self.data_dir, "baseline": self.baseline}
        return {name: str(value) for name, value in told.items() if value is not None}


def make_request(
    tasks: Sequence[str] | None,
    model: str | None,
    track: str | None = None,
    *,
    pad: bool = False,
    encoder_cache: Path | None = None,
    language: str | None = None,
    template: Mapping[str, Any] | None = None,
    trust: bool = False,
    **given: Any,
) -> EvalRequest:
    """A request as a user makes it, with what was left open chosen, and said on stderr.

    Args:
        tasks: None for all benchmarks of the track.
        model: None for the newest checkpoint under `runs/`.
        track: None for the tasks' own, else the one that the model was trained on.
        pad: Pad clips to the encoder's full window.
        encoder_cache: Folder of encoder states that are kept.
        language: Of the speech, for Whisper in a cascade.
        template: Variables of the model's chat template.
        trust: Run Python code that comes with models and task files.
        given: Other fields of `EvalRequest`.

    Raises:
        UserError: the track `full` without tasks.
        MissingPrerequisite: no model is named, and there is no checkpoint.
    """
    chosen = model if model is not None else _newest_checkpoint()
    on = track or (track_of(tasks) if tasks else None) or _recorded_track(chosen)
    if on == "full" and not tasks:
        raise UserError("--track full needs --task: `rba-bench tasks list` shows what there is")
    loading = {
        "true_length": not pad, "encoder_cache": encoder_cache, "language": language, "trust_remote_code": trust,
        "template": dict(template or {}),
    }  # fmt: skip
    return EvalRequest(
        tasks=tuple(tasks or BENCHMARKS), model=chosen, track=on, trust=trust, model_options=loading, **given
    )


def _newest_checkpoint() -> str:
    newest = str(latest_checkpoint(RUNS))
    say(f"model: {newest} (the newest checkpoint under {RUNS}/)")
    return newest


def _recorded_track(model: str) -> str:
    recorded = (training_note(model) or {}).get("track")
    if recorded:
        say(f"track: {recorded} (recorded in {model})")
        return str(recorded)
    track = "micro" if model in BUILT_IN else "full"
    say(
        f"track: {track} (as {model} is {'of' if track == 'micro' else 'not of'} the micro world; --track chooses)"
    )
    return track
