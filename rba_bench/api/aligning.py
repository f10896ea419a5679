"""`rba_bench.align` and `rba_bench.synthesize`, and what they return: a checkpoint and an alignment set on disk."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rba_bench.api import tables
from rba_bench.api.calling import Settings, call_context, optional_path, setting_texts
from rba_bench.audio import alignment_set
from rba_bench.audio.alignment_set import COLUMNS, SPLITS
from rba_bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from datasets import Dataset

    from rba_bench.api.evaluating import Run
    from rba_bench.audio.alignment_set import AlignmentRow

RecipeLike = str | os.PathLike[str] | Mapping[str, Any]
SHOWN_FIELDS = ("method", "base", "track", "steps", "seed")  # of a checkpoint's record, in a notebook


class HubFolder:
    """A finished folder that can be published on the Hub: a checkpoint or an alignment set.

    Attributes:
        path: The folder.
    """

    path: Path

    def push_to_hub(self, repo: str, *, public: bool = False, progress: bool = True) -> str:
        """Publish the folder on the Hub, as `rba-bench push` does.

        Args:
            repo: `owner/name`; created if it does not exist.
            public: Everybody may read it.
            progress: Show progress on stderr.

        Returns:
            The address of the upload.

        Raises:
            MissingPrerequisite: there is no token that may write there, or the Hub cannot be reached.
            UserError: the repository is public, and `public` is not given.
            RbaError: the upload failed; the same call uploads what is missing.
        """
        with call_context(progress):
            from rba_bench import hub

            kind = hub.repository_kind(self.path, verify=False)
            return hub.upload_folder(self.path, hub.prepare_repository(repo, kind, public))


class Checkpoint(HubFolder):
    """A trained SpeechLM on disk, accepted wherever a path is.

    Attributes:
        path: The folder, as `from_pretrained` takes it.
        record: Content of `rba_run.json`: the resolved recipe, hashes of base and data, versions, times.
        method: The objective it was trained with.
    """

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        self.record = dict(record)
        self.method = str(record.get("method", ""))

    def evaluate(self, tasks: Any = None, **options: Any) -> "Run":
        """`rba_bench.evaluate` with this model."""
        from rba_bench.api.evaluating import evaluate

        return evaluate(self, tasks, **options)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, method={self.method!r}, steps={self.record.get('steps')})"

    def _repr_html_(self) -> str:
        rows = [(name, self.record[name]) for name in SHOWN_FIELDS if name in self.record]
        return tables.html_table(str(self.path), ("", "value"), rows)


class NotebookClip(NamedTuple):
    """The audio of a clip; a notebook shows a player.

    Attributes:
        wave: Samples in [-1, 1], float32 `[n]`.
        sampling_rate: In Hz.
    """

    wave: "np.ndarray"
    sampling_rate: int

    def _repr_html_(self) -> str:
        from rba_bench.training.report.page import data_uri

        return f'<audio controls src="{data_uri(self.wave)}"></audio>'


class AlignmentSet(HubFolder):
    """Spoken instructions with the teacher's answers, on disk.

    Attributes:
        path: The folder.
        manifest: Content of `manifest.json`: teacher, templates, seeds, filters with counts, checksums.
    """

    def __init__(self, path: Path) -> None:
        self._set = alignment_set.AlignmentSet.open(path)
        self.path = path
        self.manifest: dict[str, Any] = self._set.manifest

    @cached_property
    def _rows(self) -> "list[AlignmentRow]":
        return self._set.rows()

    def __len__(self) -> int:
        return len(self._rows)

    def to_pandas(self) -> "pd.DataFrame":
        """One line for each clip, without the audio. Raises MissingPrerequisite if pandas is not installed."""
        names = [name for name in COLUMNS if name not in ("audio_sha256", "sampling_rate")]
        return tables.data_frame([{name: getattr(row, name) for name in names} for row in self._rows])

    def clip(self, index: int) -> NotebookClip:
        """The audio of the clip in line `index` of `to_pandas()`, at 16 kHz.

        Raises:
            UserError: there is no such line.
        """
        from rba_bench.audio.clips import SAMPLING_RATE, load_clip

        if not 0 <= index < len(self):
            raise UserError(f"there is no clip {index}: this set has clips 0 to {len(self) - 1}")
        return NotebookClip(load_clip(self._rows[index].audio), SAMPLING_RATE)

    def load(self, split: str | None = None) -> "Dataset":
        """The set as a `datasets.Dataset`, with encoded audio in the column `audio`.

        Args:
            split: `train` or `validation`; None for both.

        Raises:
            UserError: there is no such split.
        """
        from datasets import load_dataset

        if split not in (None, *SPLITS):
            raise UserError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
        options = {} if split is None else {"filters": [("split", "==", split)]}
        shards = [str(shard) for shard in self._set.shards]
        return load_dataset("parquet", data_files=shards, split="train", **options)

    def __repr__(self) -> str:
        return f"AlignmentSet({str(self.path)!r}, clips={self.manifest['counts']['clips']})"

    def _repr_html_(self) -> str:
        counts = [(name, n) for name, n in self.manifest["counts"].items() if isinstance(n, int)]
        return tables.html_table(str(self.path), ("counted", "number"), counts)


def align(
    recipe: RecipeLike | None = None,
    *,
    method: str | None = None,
    set: Settings | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    continue_from: str | os.PathLike[str] | None = None,
    trust: bool = False,
    progress: bool = True,
) -> Checkpoint:
    """Align a SpeechLM with its teacher; the options are those of `rba-bench train`. The same call resumes.

    Args:
        recipe: Name of a shipped recipe, a YAML file, or keys and values; None for RBA-Single on the micro track.
        method: Objective, such as `rba-group` or `sft`.
        set: Keys of the recipe to change, with values: `{"reward.s2tt": "bleu"}`, or texts `key=value`.
        out: Folder; None for one under `runs/checkpoints`.
        seed: As `set={"seed": ...}`.
        steps: As `set={"steps": ...}`.
        continue_from: Folder of another run, which this run continues to more steps.
        trust: Run Python code that comes with models.
        progress: Show progress on stderr.

    Raises:
        UserError: the recipe is not valid, or the folder belongs to another run.
        MissingPrerequisite: the base, the reward model or the alignment set does not exist.
        RbaError: the model does not use its audio, or a loss is not finite.
        KeyboardInterrupt: Ctrl-C; the state is saved, and the signal handlers are restored.
    """
    from rba_bench.stages import run_training, training_recipe

    with call_context(progress):
        changes = setting_texts(set, seed=seed, steps=steps)
        previous_run = optional_path(continue_from)
        checked_recipe = training_recipe(method, _recipe_source(recipe), changes, previous_run, trust)
        result = run_training(checked_recipe, optional_path(out), previous_run)
        return Checkpoint(result.path, result.run)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint from disk, without reading its weights.

    Raises:
        UserError: the folder was not made by `align` or `rba-bench train`, or its record is damaged.
    """
    from rba_bench.evaluation.plan import training_note
    from rba_bench.outputs import RUN_RECORD

    record = training_note(Path(path))
    if record is None:
        raise UserError(f"no {RUN_RECORD} in {path}: this is no finished checkpoint of rba-bench")
    return Checkpoint(Path(path), record)


def synthesize(
    recipe: RecipeLike | None = None,
    *,
    set: Settings | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    against: Sequence[str] | None = None,
    engine: str | None = None,
    ray: Settings | None = None,
    progress: bool = True,
) -> AlignmentSet:
    """Make an alignment set; the options are those of `rba-bench synth`. The same call resumes.

    Args:
        recipe: Name of a shipped recipe, a YAML file, or keys and values; None for the micro world's.
        set: Keys of the recipe to change, with values, or texts `key=value`.
        out: Folder; None for one under `runs/`.
        workers: Processes that speak; None speaks in this one. A script that asks for some needs
            `if __name__ == "__main__":`.
        against: Files of texts that no instruction may repeat: FILE or FILE:COLUMN.
        engine: `processes` of this machine (the default) or `ray`, a Ray cluster.
        ray: With `ray`: the cluster, and what each process may use.
        progress: Show progress on stderr.

    Raises:
        UserError: the recipe is not valid, or the folder belongs to another recipe.
        MissingPrerequisite: there is no teacher, or there are no voices (the extra `tts`).
        RbaError: the teacher does not yield enough usable instructions.
    """
    from rba_bench.stages import make_set, ray_options

    with call_context(progress):
        cluster = ray_options(engine, setting_texts(ray), prefix="")
        made = make_set(
            _recipe_source(recipe),
            setting_texts(set),
            optional_path(out),
            workers or (None if cluster else 0),
            against or (),
            cluster,
        )
        return AlignmentSet(made)


def load_alignment_set(path: str | os.PathLike[str]) -> AlignmentSet:
    """An alignment set from disk, with its shards compared with their checksums.

    Raises:
        UserError: there is no finished set, or it is damaged.
    """
    return AlignmentSet(Path(path))


def _recipe_source(recipe: RecipeLike | None) -> Path | str | Mapping[str, Any] | None:
    return recipe if recipe is None or isinstance(recipe, str | Mapping) else Path(recipe)
