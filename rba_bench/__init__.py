"""rba-bench: a benchmark harness for speech language models with an alignment trainer built in.

    import rba_bench as rba

    run = rba.evaluate("base", "micro_covost2")      # score a model             -> Run
    rba.align("rba-group", steps=300)                # train it                  -> Checkpoint
    rba.synthesize(out="my-set")                     # make the data for that    -> AlignmentSet
    rba.leaderboard(["runs/eval"])                   # tables of runs            -> Leaderboard

What `__all__` lists is the public interface; everything else is private and may change in any version. Importing this
package imports none of torch, transformers, datasets, lm_eval and pandas, and makes transformers' Auto classes know
the composite model, whichever of the two is imported first.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import rba_bench.leaderboard as _boards
from rba_bench.errors import AudioError, MissingPrerequisite, RbaError, UserError
from rba_bench.speechlm.composite.auto import register, watch_auto_modules

if TYPE_CHECKING:
    from inspect import Signature

    from rba_bench.api.aligning import (
        AlignmentSet,
        Checkpoint,
        align,
        load_alignment_set,
        load_checkpoint,
        synthesize,
    )
    from rba_bench.api.boards import Comparison, Leaderboard, compare, leaderboard
    from rba_bench.api.evaluating import Run, Samples, Score, evaluate, load_run
    from rba_bench.api.judging import JudgeTransfer, transfer_judge

__version__ = "0.1.0"

_HOMES = {
    "aligning": (
        "AlignmentSet",
        "Checkpoint",
        "align",
        "load_alignment_set",
        "load_checkpoint",
        "synthesize",
    ),
    "boards": ("Comparison", "Leaderboard", "compare"),
    "evaluating": ("Run", "Samples", "Score", "evaluate", "load_run"),
    "judging": ("JudgeTransfer", "transfer_judge"),
}
_HOME = {name: f"rba_bench.api.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "AlignmentSet",
    "AudioError",
    "Checkpoint",
    "Comparison",
    "JudgeTransfer",
    "Leaderboard",
    "MissingPrerequisite",
    "RbaError",
    "Run",
    "Samples",
    "Score",
    "UserError",
    "__version__",
    "align",
    "compare",
    "evaluate",
    "leaderboard",
    "load_alignment_set",
    "load_checkpoint",
    "load_run",
    "register",
    "synthesize",
    "transfer_judge",
]


def __getattr__(name: str) -> Any:
    """Public names whose modules are imported when they are first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _CallablePackage(ModuleType):
    """`rba_bench.leaderboard` is the function of that name, and the package of the modules behind it."""

    def __call__(self, *args: Any, **options: Any) -> "Leaderboard":
        """See `rba_bench.api.boards.leaderboard`."""
        from rba_bench.api import boards

        return boards.leaderboard(*args, **options)

    @property
    def __signature__(self) -> "Signature":
        """What `help` and editors show."""
        from inspect import signature

        from rba_bench.api import boards

        return signature(boards.leaderboard)


_boards.__class__ = _CallablePackage
watch_auto_modules()
