"""Finding and identifying model weights: a local folder or a Hub id, as safetensors.

Weights in other formats (GGUF, CTranslate2, openai-whisper) become such a folder once; see `formats.conversion`.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rba_bench.assets import is_asset
from rba_bench.assets.fetching import asset_path
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import sha256_file, sha256_json
from rba_bench.textlm.formats.conversion import BINARY, converted_folder, find_source, read_source

# owner/name, and after @ a commit, branch or tag
HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?")
HUB_FILE = re.compile(
    HUB_ID.pattern + r":(?P<file>[A-Za-z0-9][\w./-]*\.gguf)"
)  # ... and after : one of its files
FILES = (".gguf", ".pt", f"/{BINARY}")  # ends of names that are files, not Hub ids
COMMIT = re.compile(r"[0-9a-f]{40}")
LOADED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py", "README.md"]
# What decides, beside the weights, which text goes in and comes out; no file with dates or versions
SETUP_FILES = (
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tekken.json",
)
# transformers 5.24 calls it `cache` too; both names work below 5.40, beyond which pyproject.toml does not let it go
warnings.filterwarnings("ignore", message="`past_key_values` is deprecated", category=FutureWarning)


def local_folder(path_or_id: str | Path, what: str = "model") -> Path:
    """The folder that holds a model: itself, the local snapshot of a Hub id, or what another format is converted to.

    Args:
        path_or_id: a folder; a GGUF file, a folder of CTranslate2, a `.pt` file of openai-whisper; or a Hub id
            (`Qwen/Qwen2.5-7B-Instruct`, downloaded once into the Hub cache), with `@` and a commit, branch or tag where
            not the newest commit of the main branch is meant, and with `:` and the name of a GGUF file where the
            repository holds several; or `asset:NAME`.
        what: how messages name it.

    Raises:
        MissingPrerequisite: no such folder, no weights in it, or the Hub cannot provide it.
        UserError: the path is a file of another kind, or one that cannot be converted.
    """
    path = asset_path(path_or_id) if is_asset(path_or_id) else Path(path_or_id)
    if not path.is_file() and not path.is_dir():
        path = _from_hub(str(path_or_id), what)
    if find_source(path, what) is not None:
        folder = converted_folder(path, what)
        if commit := _snapshot(path):
            _commits[folder] = commit
        return folder
    if path.is_file():
        raise UserError(f"{path} is a file: give the folder of the {what}")
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise MissingPrerequisite(
            f"{path} holds no {what}: it needs config.json and *.safetensors, or one GGUF file"
        )
    return path


def _from_hub(name: str, what: str) -> Path:
    """The local snapshot of a Hub id, or one file in it."""
    named, hub_id = HUB_FILE.fullmatch(name), HUB_ID.fullmatch(name)
    if named is None and (hub_id is None or name.endswith(FILES)):
        hint = "; a file on the Hub is written OWNER/REPOSITORY:FILE.gguf" if name.endswith(".gguf") else ""
        raise MissingPrerequisite(
            f"no {what} at {name}: train or download it first, or correct the path{hint}"
        )
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        if named is not None:
            return Path(hf_hub_download(named["repo"], named["file"], revision=named["revision"]))
        assert hub_id is not None
        folder = Path(
            snapshot_download(hub_id["repo"], revision=hub_id["revision"], allow_patterns=LOADED_FILES)
        )
        return folder if list(folder.glob("*.safetensors")) else _other_format(folder, hub_id["repo"], what)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise MissingPrerequisite(
            f"no {what} at {name}: not a folder here, and the Hub says: {first_line(error)}"
        ) from error


def _other_format(folder: Path, repo: str, what: str) -> Path:
    """A snapshot without safetensors, completed by its weights in another format where they are not here yet."""
    from huggingface_hub import hf_hub_download, list_repo_files
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if list(folder.glob("*.gguf")) or (folder / BINARY).is_file():
        return folder
    try:
        names = list_repo_files(repo, revision=folder.name)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):  # what the folder lacks is said by the caller
        return folder
    files = [BINARY] if BINARY in names else sorted(name for name in names if name.endswith(".gguf"))
    if len(files) > 1:
        raise UserError(
            f"{repo} holds {len(files)} GGUF files: name the {what} that you mean, such as {repo}:{files[0]}"
        )
    for name in files:
        hf_hub_download(repo, name, revision=folder.name)
    return folder


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors files in name order, as `cat *.safetensors | sha256sum` prints.

    Raises:
        MissingPrerequisite: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingPrerequisite(f"{folder} holds no *.safetensors")
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as handle:
            while block := handle.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def setup_sha256(folder: Path) -> str:
    """SHA-256 over chat template, tokenizer and processor files: what decides answers beside the weights."""
    return sha256_json(
        [[name, sha256_file(folder / name)] for name in SETUP_FILES if (folder / name).is_file()]
    )


_commits: dict[Path, str] = {}  # of converted folders whose source came from the Hub


def hub_commit(folder: Path) -> str | None:
    """The commit that a folder of the Hub cache holds, or that a converted one was made from; None for any other."""
    return _commits.get(folder) or _snapshot(folder)


def _snapshot(path: Path) -> str | None:
    """The commit of the snapshot in the Hub's cache that a path is or lies in."""
    inside = [path, *path.parents]
    return next((p.name for p in inside if p.parent.name == "snapshots" and COMMIT.fullmatch(p.name)), None)


def code_sha256(folder: Path) -> str | None:
    """SHA-256 over the Python files beside the weights, None if there are none."""
    files = sorted(folder.rglob("*.py"))
    return sha256_json([[f.relative_to(folder).as_posix(), sha256_file(f)] for f in files]) if files else None


def weights_identity(
    folder: Path, path_or_id: str | Path, model: Any, trust_remote_code: bool = False
) -> dict[str, Any]:
    """The part of a model's identity that every kind shares: path, hashes, parameters, number type.

    With it, where there are such, the commit on the Hub (`revision`), what the weights were converted from (`source`)
    and the hash of Python code that may run.
    """
    commit, code = hub_commit(folder), code_sha256(folder) if trust_remote_code else None
    return {
        "path": str(path_or_id),
        **({"revision": commit} if commit else {}),
        **({"source": source} if (source := read_source(folder)) else {}),
        **({"code_sha256": code} if code else {}),
        "weights_sha256": weights_sha256(folder),
        "setup_sha256": setup_sha256(folder),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where there is one, else `cpu`; anything else is checked.

    Raises:
        UserError: torch does not know the device, or it is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise UserError(f"device {device!r} cannot be used ({first_line(error)}); try cpu") from error
    return device


_stored_dtypes: ContextVar[bool] = ContextVar("stored_dtypes", default=False)


@contextmanager
def stored_dtypes() -> Iterator[None]:
    """Models loaded inside keep the number type in which they are stored, on the CPU too."""
    token = _stored_dtypes.set(True)
    try:
        yield
    finally:
        _stored_dtypes.reset(token)


def compute_dtype(device: str) -> Any:
    """Number type to compute in: float32 on the CPU (half precision is slow there), else as stored."""
    import torch

    if _stored_dtypes.get():
        return "auto"
    return torch.float32 if device.startswith("cpu") else "auto"


def load_model(
    auto_class: Any,
    folder: Path,
    what: str,
    device: str,
    trust_remote_code: bool = False,
    optional: tuple[str, ...] = (),
    dtype: Any = None,
) -> Any:
    """`auto_class.from_pretrained` from safetensors onto `device`, with nothing left to random initialisation.

    Args:
        auto_class: AutoModelForCausalLM, a model class, ...
        folder: what `local_folder` returned.
        what: how messages name it.
        device: a torch device as `resolve_device` returned it; `meta` reads no weights and makes the model without.
        trust_remote_code: run Python code that ships with the model.
        optional: ends of names of weights that may be absent, because inference does not use them.
        dtype: a torch number type, or "auto" as stored; `compute_dtype` by default.

    Returns:
        The model in eval mode.

    Raises:
        UserError: the files are damaged, incomplete, or of another kind of model.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    if device == "meta":
        return _load_without_weights(auto_class, folder, trust_remote_code)
    if folder.is_dir():  # a bar of a second; downloads keep theirs
        logging.disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=compute_dtype(device) if dtype is None else dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # RuntimeError: sizes differ
        raise UserError(f"{folder} cannot be loaded as {what}: {first_line(error)}") from error
    missing = sorted(key for key in map(str, report["missing_keys"]) if not key.endswith(optional))
    missing += sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} weights of the {what} (first: {missing[0]}); copy it again"
        )
    return model.to(device).eval()


def _load_without_weights(auto_class: Any, folder: Path, trust_remote_code: bool) -> Any:
    """The model of a folder's config on the meta device: names and shapes, no weights."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        if hasattr(auto_class, "_from_config"):  # a model class; the auto classes choose one by the config
            model = auto_class._from_config(config)
        else:
            model = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    return model.eval()
