"""Whom to cite for a task: entries of `tasks/citations.bib`, chosen by the name of the task.

Text between the entries of a BibTeX file is a comment; here, a line `% tasks: PATTERN...` before an entry says which
tasks it belongs to.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rba_bench import __version__
from rba_bench.evaluation.task_registry import TaskSpec, common_track, resolve_tasks, tasks_dir

FILE = "citations.bib"
ALWAYS = "always"
METHOD = "liu2025rba"  # printed where no task is named, as its trainer comes with rba-bench
_ENTRY = re.compile(
    r"^% tasks: (?P<tasks>.+)\n(?P<bibtex>@\w+\{(?P<key>[^,\s]+),\n(?:.*\n)*?\}\n)", re.MULTILINE
)


@dataclass(frozen=True)
class Citation:
    """One BibTeX entry.

    Attributes:
        key: Its citation key.
        bibtex: The entry, with a line end.
        patterns: Names of tasks it belongs to, with `*`; `always` for all.
    """

    key: str
    bibtex: str
    patterns: tuple[str, ...]

    def belongs_to(self, task: str) -> bool:
        """Whether it is cited for this task in particular."""
        return any(fnmatchcase(task, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class Citations:
    """What to cite for some tasks.

    Attributes:
        entries: Without repeats: what the tasks are made of, then rba-bench and lm-eval.
        own: Names of tasks that were written for rba-bench, or have no entry: their README says what is known.
    """

    entries: tuple[Citation, ...]
    own: tuple[str, ...]


def read_citations() -> list[Citation]:
    """All entries, in the order of the file.

    Raises:
        MissingPrerequisite: the task files are missing from this installation.
    """
    text = (tasks_dir() / FILE).read_text(encoding="utf-8").replace("VERSION", __version__)
    return [
        Citation(found["key"], found["bibtex"], tuple(found["tasks"].split()))
        for found in _ENTRY.finditer(text)
    ]


def cite_tasks(names: Sequence[str]) -> Citations:
    """The entries of tasks, groups or benchmarks; without names, those of rba-bench itself.

    A benchmark on several tracks stands for its tasks on the track full, where the published data is.

    Raises:
        UserError: unknown name, with the nearest ones.
    """
    found = read_citations()
    general = [entry for entry in found if ALWAYS in entry.patterns]
    if not names:
        return Citations((*general, *(entry for entry in found if entry.key == METHOD)), ())
    tasks = [spec.name for name in names for spec in _tasks_of(name)]
    special = [entry for entry in found if any(map(entry.belongs_to, tasks))]
    own = [task for task in tasks if not any(entry.belongs_to(task) for entry in found)]
    return Citations((*special, *general), tuple(dict.fromkeys(own)))


def _tasks_of(name: str) -> list[TaskSpec]:
    return resolve_tasks([name], common_track([name]) or "full")
