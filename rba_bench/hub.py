"""Publishing finished checkpoints and alignment sets on the Hugging Face Hub, without files of local interest.

The token is that of `huggingface_hub` (from its login, or `HF_TOKEN`): it appears in no argument, message or record.
A new repository is private unless the user asks for a public one.
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
from rba_bench.audio.card_media import FOLDER, media_files
from rba_bench.audio.set_card import write_set_card
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD, read_signature
from rba_bench.progress import say
from rba_bench.speechlm.model_card import PROVENANCE, write_model_card
from rba_bench.untrusted import plain

LAST_FILE = {"train": RUN_RECORD, "compose": PROVENANCE}  # the file that a stage writes last
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", cards.CARD, "LICENSE*", "NOTICE*")
LOCAL_FILES = ("rba_config.json", "rba_start.json", "rba_state.json")  # not published
LOCAL_FOLDERS = ("trainer",)
RECORDS = (RUN_RECORD, PROVENANCE, MANIFEST)  # any text in them may be a path
PATH_KEYS = ("_name_or_path", "name_or_path", "base_model_name_or_path")  # in other JSON files
ASKED_AT_ONCE = 500  # names of files in one question
COMMIT_SIZE = 50  # files in one commit; a set of many shards is uploaded in several commits
Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub that this user may write to.

    Attributes:
        id: Owner and name.
        kind: `model` or `dataset`.
        url: The address of its page.
        public: Whether everybody may read it.
    """

    id: str
    kind: Kind
    url: str
    public: bool = False


def prepare_repository(repo: str, kind: Kind, public: bool = False) -> Repository:
    """Create a repository, or find it, before the work whose result will be uploaded to it.

    Args:
        repo: `owner/name`, or a name in the user's own namespace.
        kind: `model` or `dataset`.
        public: whether everybody may read a repository that is created here.

    Raises:
        MissingPrerequisite: there is no token, it may not write there, or the Hub cannot be reached.
        UserError: the name is not valid, or the repository is public and `public` is not given.
    """
    with _hub_errors(repo):
        api = _hub_api()
        api.whoami()
        url = api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        private = bool(api.repo_info(url.repo_id, repo_type=kind).private)
    if not private and not public:
        raise UserError(f"{url.repo_id} is public: add --public to publish there, or name another repository")
    if private and public:
        say(f"{url.repo_id} is private and stays private: change this in its settings on the Hub")
    return Repository(url.repo_id, kind, str(url), not private)


def repository_kind(folder: Path, verify: bool = True) -> Kind:
    """The kind of repository for a finished folder: `model` for a checkpoint, `dataset` for an alignment set.

    Args:
        folder: of a checkpoint or an alignment set.
        verify: compare the shards of a set with their checksums, which reads all of them.

    Raises:
        UserError: the folder holds neither, or is unfinished.
    """
    if (folder / MANIFEST).is_file():
        AlignmentSet.open(folder, verify)
        return "dataset"
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds neither a checkpoint nor an alignment set: nothing to publish")
    signature = read_signature(folder)
    last_file = LAST_FILE.get(str(signature["stage"])) if signature else None
    if last_file is not None and not (folder / last_file).is_file():
        raise UserError(f"{folder} is unfinished ({last_file} is missing): run its command again first")
    return "model"


def write_missing_card(folder: Path) -> None:
    """Write the card of a finished folder that has none, as earlier versions left it."""
    if (folder / cards.CARD).exists():
        return
    if (folder / MANIFEST).is_file():
        write_set_card(AlignmentSet.open(folder, verify=False))
    elif (folder / RUN_RECORD).is_file():
        from rba_bench.training.model_card import write_run_card

        write_run_card(folder)
    else:
        write_model_card(folder)


def upload_folder(folder: Path, repository: Repository) -> str:
    """Upload a finished folder; files that the repository has already are not sent again, so a broken upload goes on.

    Args:
        folder: of a checkpoint or an alignment set.
        repository: from `prepare_repository`.

    Returns:
        The address of the last commit.

    Raises:
        UserError: see `repository_kind`, or the repository is for the other kind.
        RbaError: the upload failed; the folder is unchanged, and the message has the command that tries again.
    """
    from huggingface_hub import CommitOperationAdd

    kind = repository_kind(folder, verify=False)
    if kind != repository.kind:
        raise UserError(f"{folder} holds a {kind}, {repository.id} is a repository for a {repository.kind}")
    write_missing_card(folder)
    names = _published_files(folder, kind)
    message, address = f"Upload by rba-bench {__version__}", repository.url
    retry = ["rba-bench", "push", str(folder), repository.id, *(["--public"] if repository.public else [])]
    with _hub_errors(repository.id, retry=shlex.join(retry)):
        there = _uploaded_shards(folder, repository)
        counted = f"{len(names)} files" + (f", of which {len(there)} are there already," if there else "")
        say(f"publishing {counted} of {folder} as {repository.id}")
        names = [name for name in names if name not in there]
        for start in range(0, len(names), COMMIT_SIZE):
            files = [
                CommitOperationAdd(
                    path_in_repo=name, path_or_fileobj=_published_content(folder / name, repository)
                )
                for name in names[start : start + COMMIT_SIZE]
            ]
            commit = _hub_api().create_commit(
                repository.id, files, commit_message=message, repo_type=repository.kind
            )
            address = str(commit.commit_url)
    return address


def _uploaded_shards(folder: Path, repository: Repository) -> set[str]:
    """Shards that the repository holds already: an upload that was broken off goes on without reading them again.

    The Hub tells the SHA-256 of large files, the manifest those of the shards.
    """
    from huggingface_hub import RepoFile

    if repository.kind != "dataset":
        return set()
    checksums = AlignmentSet.open(folder, verify=False).manifest["checksums"]
    names, found = list(checksums), set()
    for start in range(0, len(names), ASKED_AT_ONCE):
        asked = names[start : start + ASKED_AT_ONCE]
        for info in _hub_api().get_paths_info(repository.id, asked, repo_type=repository.kind):
            if isinstance(info, RepoFile) and info.lfs and info.lfs.sha256 == checksums.get(info.path):
                found.add(info.path)
    return found


def _published_files(folder: Path, kind: Kind) -> list[str]:
    """Names of the files to upload: weights or shards first; records and card last, as they describe the rest."""
    if kind == "dataset":
        card = [cards.CARD] if (folder / cards.CARD).is_file() else []
        media = media_files(folder) if card else []
        return [*AlignmentSet.open(folder, verify=False).names, *media, MANIFEST, *card]
    paths = {path.relative_to(folder) for pattern in MODEL_FILES for path in folder.rglob(pattern)}
    names = [
        path.as_posix()
        for path in paths
        if (folder / path).is_file()
        and path.name not in LOCAL_FILES
        and path.parts[0] not in LOCAL_FOLDERS
        and not any(part.startswith(".") for part in path.parts)
    ]
    last = (*RECORDS, cards.CARD)
    return sorted(names, key=lambda name: (name in last, not name.endswith(".safetensors"), name))


def _published_content(path: Path, repository: Repository) -> Path | bytes:
    """The file itself, its JSON without paths of this machine, or the card of a set with addresses of its clips."""
    if path.name == cards.CARD and repository.kind == "dataset":
        # whole addresses: a player takes a relative one for an address of the page that shows the card
        clips = f'src="{repository.url}/resolve/main/{FOLDER}/'
        return path.read_text(encoding="utf-8").replace(f'src="{FOLDER}/', clips).encode()
    if path.suffix != ".json" or path.name == "tokenizer.json":
        return path
    try:
        value = read_json(path)
    except ValueError:
        return path
    clean = cards.without_paths(value) if path.name in RECORDS else _without_source_paths(value)
    return path if clean == value else (json.dumps(clean, indent=2, ensure_ascii=False) + "\n").encode()


def _without_source_paths(value: Any) -> Any:
    """JSON values without the absolute paths that transformers keeps of the folders it loaded from."""
    if isinstance(value, Mapping):
        return {
            key: cards.without_paths(item) if key in PATH_KEYS else _without_source_paths(item)
            for key, item in value.items()
        }
    return [_without_source_paths(item) for item in value] if isinstance(value, list) else value


def _hub_api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="rba-bench", library_version=__version__)


@contextmanager
def _hub_errors(repo: str, retry: str = "") -> Iterator[None]:
    """Turn errors of the Hub's client into one line each; `retry` is the command that repeats a failed upload."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise MissingPrerequisite(
            "there is no Hub token: log in with `hf auth login`, or set HF_TOKEN to a token that may write"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise MissingPrerequisite("HF_HUB_OFFLINE forbids the use of the Hub: unset it to publish") from error
    except errors.HFValidationError as error:
        raise UserError(f"{plain(repo)} is not a valid name of a repository: write OWNER/NAME") from error
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _request_error(error, repo, retry) from error


def _request_error(error: Exception, repo: str, retry: str) -> RbaError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    told = getattr(error, "server_message", None)
    reason = plain(told or str(error.__cause__ or error).strip().split("\n")[0])
    if retry:
        say("")  # ends the line of a progress bar
        return RbaError(f"the upload failed ({reason}); the folder is complete. To try again: {retry}")
    message = f"the Hub cannot be used for {repo} ({reason}): try again, or leave out --push-to-hub"
    if status == 401:
        message = f"the Hub does not accept this token ({reason}): log in with `hf auth login`"
    elif status == 403:
        message = f"this token may not write to {repo} ({reason}): use a token that may"
    return MissingPrerequisite(message)
