"""Publishing on the Hub: finished checkpoints and alignment sets, and of their folders only what others need.

The token is the one of `huggingface_hub` (its login, or `HF_TOKEN`): it is in no argument, message or record of ours.
A repository is private unless the user says otherwise.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rba_bench import __version__, cards
from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD, read_signature
from rba_bench.progress import say
from rba_bench.speechlm.model_card import PROVENANCE, write_model_card
from rba_bench.untrusted import plain

RECORDS = {"train": RUN_RECORD, "compose": PROVENANCE}  # what a stage writes last, by stage
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", cards.CARD, "LICENSE*", "NOTICE*")
KEPT_BACK = ("rba_config.json", "rba_start.json", "rba_state.json")  # of interest on this machine alone
FOLDERS_KEPT_BACK = ("trainer",)
WITH_PATHS = (RUN_RECORD, PROVENANCE, MANIFEST)  # records, in which any text may be a path
NAMES_OF_PATHS = ("_name_or_path", "name_or_path", "base_model_name_or_path")  # keys of other JSON files
BATCH = 50  # files in a commit; a set of many shards is uploaded in several
Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub that this user may write to.

    Attributes:
        id: Owner and name.
        kind: `model` or `dataset`.
        url: Its page.
    """

    id: str
    kind: Kind
    url: str


def reserve(repo: str, kind: Kind, public: bool = False) -> Repository:
    """Make a repository, or find it, before the work whose result shall go there.

    Args:
        repo: `owner/name`, or a name in the user's own space.
        kind: what goes there.
        public: whether everybody may read it, where it is new.

    Raises:
        MissingPrerequisite: no token, one that may not write there, or no way to the Hub.
        UserError: no such name can be, or the repository is public and nobody said that this is meant.
    """
    with _told(repo):
        api = _api()
        api.whoami()
        made = api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        private = bool(api.repo_info(made.repo_id, repo_type=kind).private)
    if not private and not public:
        raise UserError(
            f"{made.repo_id} is public: add --public to publish there, or name another repository"
        )
    if private and public:
        say(f"{made.repo_id} is private and stays so: its settings on the Hub change that")
    return Repository(made.repo_id, kind, str(made))


def kind_of(folder: Path, verify: bool = True) -> Kind:
    """What a finished folder holds.

    Args:
        folder: of a checkpoint or an alignment set.
        verify: compare the shards of a set with their checksums, which reads them all.

    Raises:
        UserError: nothing that can be published, or something unfinished.
    """
    if (folder / MANIFEST).is_file():
        AlignmentSet.open(folder, verify)
        return "dataset"
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds neither a checkpoint nor an alignment set: nothing to publish")
    signature = read_signature(folder)
    record = RECORDS.get(str(signature["stage"])) if signature else None
    if record is not None and not (folder / record).is_file():
        raise UserError(f"{folder} is unfinished ({record} is missing): give its command again first")
    return "model"


def ensure_card(folder: Path) -> None:
    """Write the card of a finished folder that has none, as those of earlier versions do."""
    if (folder / cards.CARD).exists():
        return
    if (folder / MANIFEST).is_file():
        from rba_bench.audio.set_card import write_set_card

        write_set_card(AlignmentSet.open(folder, verify=False))
    elif (folder / RUN_RECORD).is_file():
        from rba_bench.training.model_card import write_run_card

        write_run_card(folder)
    else:
        write_model_card(folder)


def push(folder: Path, repository: Repository) -> str:
    """Upload a finished folder; files that are there already cost nothing.

    Args:
        folder: of a checkpoint or an alignment set.
        repository: as `reserve` gave it.

    Returns:
        The address of the last commit.

    Raises:
        UserError: see `kind_of`, or the folder holds another kind of thing.
        RbaError: the upload failed; what is on disk is untouched, and the message has the command for another try.
    """
    from huggingface_hub import CommitOperationAdd

    kind = kind_of(folder, verify=False)
    if kind != repository.kind:
        raise UserError(f"{folder} holds a {kind}, {repository.id} is a repository for a {repository.kind}")
    ensure_card(folder)
    names = files_of(folder, kind)
    say(f"publishing {len(names)} files of {folder} as {repository.id}")
    message, address = f"Upload by rba-bench {__version__}", repository.url
    with _told(repository.id, again=shlex.join(["rba-bench", "push", str(folder), repository.id])):
        for start in range(0, len(names), BATCH):
            part = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=_content(folder / name))
                for name in names[start : start + BATCH]
            ]
            done = _api().create_commit(
                repository.id, part, commit_message=message, repo_type=repository.kind
            )
            address = str(done.commit_url)
    return address


def files_of(folder: Path, kind: Kind) -> list[str]:
    """What of a folder is published: weights or shards first, records and the card last, as they vouch for the rest."""
    if kind == "dataset":
        return [*AlignmentSet.open(folder, verify=False).names, MANIFEST, *_if_there(folder, cards.CARD)]
    found = {path for pattern in MODEL_FILES for path in folder.rglob(pattern) if path.is_file()}
    names = [path.relative_to(folder) for path in found if path.name not in KEPT_BACK]
    public = [
        name.as_posix()
        for name in names
        if name.parts[0] not in FOLDERS_KEPT_BACK and not any(part.startswith(".") for part in name.parts)
    ]
    last = (*WITH_PATHS, cards.CARD)
    return sorted(public, key=lambda name: (name in last, not name.endswith(".safetensors"), name))


def _if_there(folder: Path, name: str) -> list[str]:
    return [name] if (folder / name).is_file() else []


def _content(path: Path) -> Path | bytes:
    """A file, or its JSON values without the places where files lay on this machine."""
    if path.suffix != ".json" or path.name == "tokenizer.json":
        return path
    try:
        value = read_json(path)
    except ValueError:
        return path
    clean = cards.without_paths(value) if path.name in WITH_PATHS else _without_names(value)
    return path if clean == value else (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode()


def _without_names(value: Any) -> Any:
    """JSON values in which what transformers keeps of the place it loaded from is no absolute path."""
    if isinstance(value, Mapping):
        return {
            key: cards.without_paths(item) if key in NAMES_OF_PATHS else _without_names(item)
            for key, item in value.items()
        }
    return [_without_names(item) for item in value] if isinstance(value, list) else value


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="rba-bench", library_version=__version__)


@contextmanager
def _told(repo: str, again: str = "") -> Iterator[None]:
    """The Hub's refusals in one line; with `again`, a failure behind the work, which the line says how to repeat."""
    import httpx2
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise MissingPrerequisite(
            "no token of the Hub: log in with `hf auth login`, or set HF_TOKEN to one that may write"
        ) from error
    except OfflineModeIsEnabled as error:
        raise MissingPrerequisite("HF_HUB_OFFLINE keeps the Hub out of reach: unset it to publish") from error
    except HFValidationError as error:
        raise UserError(f"{plain(repo)} cannot be the name of a repository: write OWNER/NAME") from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _failure(error, repo, again) from error


def _failure(error: Exception, repo: str, again: str) -> RbaError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = plain(
        getattr(error, "server_message", None) or str(error.__cause__ or error).strip().split("\n")[0]
    )
    if again:
        say("")  # a bar may stand in the line
        return RbaError(f"not published ({reason}); everything is on disk. Once that is mended: {again}")
    if status == 401:
        return MissingPrerequisite(
            f"the Hub does not know this token ({reason}): log in with `hf auth login`"
        )
    if status == 403:
        return MissingPrerequisite(f"this token may not write to {repo} ({reason}): use one that may")
    return MissingPrerequisite(
        f"the Hub cannot be used for {repo} ({reason}): try again, or leave out --push-to-hub"
    )
