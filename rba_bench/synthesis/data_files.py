"""Which files a data set consists of: parquet and Arrow files on this machine, folders of `datasets`, the Hub.

    FILE.parquet [, FILE.parquet ...]   the files in their order
    FOLDER                              what `Dataset.save_to_disk` wrote, or anything that `load_dataset(FOLDER)` reads
    OWNER/NAME, OWNER/NAME@REVISION     of the Hub, at a commit that is remembered (`rba_bench.revisions`)

`datasets` tells which files belong to a config and a split (its rules:
https://huggingface.co/docs/datasets/repository_structure). Parquet files are then read where they lie; files of the Hub
are downloaded one by one as they are needed. Other formats are prepared by `datasets` in its cache. Code of a data set
never runs: `datasets` 4 and later refuse it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.faults import is_full
from rba_bench.files import is_below, read_json
from rba_bench.recipes import suggest
from rba_bench.revisions import ask_hub, pinned_commit
from rba_bench.synthesis.synthesis_recipe import SourceOptions
from rba_bench.textlm.weights import HUB_ID

PARQUET = ".parquet"
T = TypeVar("T")
_HUB_FIX = (
    "no folder has this name either; `hf download {} --repo-type dataset --local-dir DIR`, and name DIR"
)


def data_files(source: SourceOptions) -> Iterable[Path]:
    """Parquet or Arrow files of the split, in order; those of the Hub are fetched as they are asked for.

    Raises:
        MissingPrerequisite: it is not there, or the Hub does not deliver it.
        UserError: no such config or split, or the data set cannot be read.
    """
    names, hub = source.dataset, _hub_name(source)
    if hub is not None:
        return _built_files(source, hub[0], _commit(*hub))
    if all(name.endswith(PARQUET) for name in names) and not Path(names[0]).is_dir():
        return _given_files(names, source)
    if len(names) > 1:
        raise UserError("source.dataset takes one folder or one Hub id, or several .parquet files")
    folder = Path(names[0])
    if not folder.is_dir():
        raise MissingPrerequisite(
            f"no data set at {folder}: source.dataset takes a folder, .parquet files, or OWNER/NAME of the Hub"
        )
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved_files(folder, source)
    below = source.config is not None and is_below(source.config) and (folder / source.config).is_dir()
    if below:  # as the Hub's sets are laid out that have no list of configs: CONFIG/SPLIT-*.parquet
        return _built_files(source.model_copy(update={"config": None}), str(folder / str(source.config)))
    return _built_files(source, str(folder))


def dataset_commit(source: SourceOptions) -> str | None:
    """The commit that is read of a data set of the Hub; None for one of this machine."""
    hub = _hub_name(source)
    return None if hub is None else _commit(*hub)


def _hub_name(source: SourceOptions) -> tuple[str, str] | None:
    """Repository and revision; None for files and folders of this machine."""
    names = source.dataset
    match = HUB_ID.fullmatch(names[0]) if len(names) == 1 else None
    if match is None or Path(names[0]).exists() or names[0].endswith(PARQUET):
        return None
    return match["repo"], match["revision"] or "main"


def _commit(repo: str, revision: str) -> str:
    return pinned_commit(repo, revision, _HUB_FIX.format(repo))


def _given_files(names: Sequence[str], source: SourceOptions) -> list[Path]:
    if source.config is not None:
        raise UserError("source.config belongs to a folder or a Hub id, not to .parquet files")
    files = [Path(name) for name in names]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise MissingPrerequisite(f"no file {missing[0]}: check source.dataset")
    return files


def _saved_files(folder: Path, source: SourceOptions) -> list[Path]:
    """Files of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""
    if source.config is not None:
        raise UserError(f"source.config: {folder} was written by save_to_disk, which keeps no configs")
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = read_json(folder / "dataset_dict.json")["splits"]
            _refuse_other_split(source, splits)
            folder /= source.split
        state = read_json(folder / "state.json")
        names = [str(file["filename"]) for file in state["_data_files"]]
        saved = state.get("_split")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a whole data set of save_to_disk ({first_line(error)})") from error
    if saved and source.split not in (saved, SourceOptions.model_fields["split"].default):
        _refuse_other_split(source, [saved])
    if strange := [name for name in names if not is_below(name)]:
        raise UserError(f"{folder / 'state.json'} names a file outside of its folder: {strange[0]}")
    return [folder / name for name in names]


def _refuse_other_split(source: SourceOptions, splits: Iterable[object]) -> None:
    names = [str(split) for split in splits]
    if source.split not in names:
        what = source.dataset[0]
        raise UserError(f"source.split: {what} has no {source.split!r}{suggest(source.split, names)}")


def _built_files(source: SourceOptions, name: str, commit: str | None = None) -> Iterator[Path]:
    """Files of a split by the rules of `datasets`.

    Args:
        source: Names config and split.
        name: A folder, or a repository of the Hub.
        commit: Of the repository.
    """
    builder = _builder(source, name, commit)
    listed = {str(split): list(map(str, files)) for split, files in (builder.config.data_files or {}).items()}
    _refuse_other_split(source, listed)
    files = [_place(file, commit) for file in listed[source.split]]
    if builder.name != "parquet" or builder.config.filters or builder.config.columns or not all(files):
        yield from _prepared_files(builder, source, name, commit is not None)
        return
    for file in files:
        yield Path(file) if commit is None else _hub_file(name, commit, file)


def _place(file: str, commit: str | None) -> str:
    """Path of a file: on this machine, or in the repository; "" for one that lies anywhere else."""
    if commit is not None:  # hf://datasets/OWNER/NAME@COMMIT/FILE
        return file.partition(f"@{commit}/")[2]
    return "" if "://" in file else file


def _hub_file(repo: str, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    def fetch() -> str:
        return hf_hub_download(repo, name, repo_type="dataset", revision=commit)

    return Path(ask_hub(repo, fetch, _HUB_FIX.format(repo)))


def _builder(source: SourceOptions, name: str, commit: str | None) -> Any:
    from datasets import load_dataset_builder

    return _by_datasets(
        name, commit is not None, lambda: load_dataset_builder(name, source.config, revision=commit)
    )


def _prepared_files(builder: Any, source: SourceOptions, name: str, on_hub: bool) -> list[Path]:
    """Arrow files that `datasets` makes in its cache of what is not parquet."""

    def prepare() -> list[Path]:
        builder.download_and_prepare()
        return [Path(file["filename"]) for file in builder.as_dataset(source.split).cache_files]

    return _by_datasets(name, on_hub, prepare)


def _by_datasets(name: str, on_hub: bool, work: Callable[[], T]) -> T:
    """What `datasets` makes of a data set, and its errors in one line each."""
    from datasets.exceptions import DatasetsError

    try:
        return ask_hub(name, work, _HUB_FIX.format(name)) if on_hub else work()
    except (DatasetsError, ImportError, ValueError, RuntimeError, OSError, KeyError) as error:
        cause = error.__cause__ or error
        if is_full(cause):
            raise cause from error
        told = " ".join(str(cause).split())[:300] or type(cause).__name__
        if isinstance(cause, ImportError):  # it encodes clips with torchcodec
            raise MissingPrerequisite(
                f"`datasets` cannot read {name}: {told} Parquet files and source.manifest need no such package"
            ) from error
        raise UserError(f"source.dataset: `datasets` cannot read {name}: {told}") from error
