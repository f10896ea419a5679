"""The command that lets a model answer an item again, as the pages of samples show it.

It can be copied into a shell, and on a published page it names no path of the machine that made the page.
`leaderboard verify` finds the built-in models by itself, and fetches nothing that only a record names. So weights of
the list of assets are named in the command, and for all other models a placeholder stands there. A server that a record
names is never named: who copied the command would send clips to it.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rba_bench.assets import ASSETS, PREFIX, is_asset
from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.pages import published_folder
from rba_bench.speechlm.model_names import BUILT_IN
from rba_bench.untrusted import printable

COMMAND = "rba-bench leaderboard verify"
MODEL = "MODEL"  # in place of a model that the reader must name


@dataclass(frozen=True)
class Commands:
    """How the commands of some pages name runs and models.

    Attributes:
        folder_of: Where a run lies, as the reader may name it.
        place: Where the commands are to be run, in a sentence.
        here: Whether the reader is on this machine, so that a model which lies here need not be named.
    """

    folder_of: Callable[[LoadedRun], str]
    place: str
    here: bool = False

    def of(self, run: LoadedRun) -> str:
        """The command of a run, without its item."""
        words = [COMMAND, shlex.quote(printable(self.folder_of(run)))]
        spec = str(run.record.model["spec"])
        if spec not in BUILT_IN and not (self.here and Path(spec, "config.json").is_file()):
            words.append(f"--model={shlex.quote(spec) if _is_assets(spec) else MODEL}")
        return " ".join(words)


ON_BOARD = Commands(published_folder, "Run it in the folder of this board.")
SERVED = Commands(lambda run: str(run.folder), "Run it where `rba-bench view` was started.", here=True)
WRITTEN = Commands(
    lambda run: str(run.record.run_id),
    "Run it beside the run folder of this name, or write the path of that folder.",
)


def item_option(sample: Sample) -> str:
    """What names an item in a command: its id, or its number where the id cannot be typed."""
    item = sample.id if sample.id and printable(sample.id) == sample.id else str(sample.doc_id)
    return f"--item={shlex.quote(item)}"


def _is_assets(spec: str) -> bool:
    """Whether a model is made of known assets alone: `asset:A`, `text:asset:A`, `cascade:asset:A+asset:B`."""
    parts = spec.removeprefix("text:").removeprefix("cascade:").split("+")
    return all(is_asset(part) and part.removeprefix(PREFIX) in ASSETS for part in parts)
