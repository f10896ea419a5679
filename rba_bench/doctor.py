"""The state of this installation: versions, hardware, voices, weights, tasks, models, and fixes for what is missing."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path

from rba_bench import __version__
from rba_bench.assets import ASSETS, MICRO, WEIGHTS, fetching, weights_folder
from rba_bench.installing import extra, package
from rba_bench.machine import package_version, usable_cpus
from rba_bench.speechlm.audiolm.families import FAMILIES, VERIFIED_WITH, Entry
from rba_bench.textlm.endpoints.keys import FILE_VARIABLE, KEY_VARIABLES, LOCAL_VARIABLE
from rba_bench.untrusted import printable

LONGEST = 160  # characters of a finding

DISTRIBUTIONS = {  # and the modules they are imported by
    "numpy": "numpy",
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "gguf": "gguf",
    "lm-eval": "lm_eval",
    "datasets": "datasets",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "soundfile": "soundfile",
    "sacrebleu": "sacrebleu",
    "openai-whisper": "whisper",
    "httpx2": "httpx2",
    "pydantic": "pydantic",
    "typer": "typer",
}
EXTRAS = {
    "tts": ("espeakng_loader", "piper"),
    "synth": ("audiomentations", "datasketch", "lingua", "matplotlib", "wetext"),
    "train": ("peft",),
    "ja": ("MeCab",),
    "ko": ("mecab_ko",),
    "consistency": ("sentence_transformers",),
    "ray": ("ray",),
}


MODELS = (
    "audio LLMs (--model FOLDER_OR_HUB_ID; verified: same answers as transformers itself, on random weights)"
)
RECOGNISERS = "recognisers (--model cascade:<recogniser>+<llm>)"
SERVERS = "servers (openai:<base_url>#<model> as model or judge)"


@dataclass(frozen=True)
class Check:
    """The state of one part of the installation.

    Attributes:
        name: of the part.
        ok: whether it can be used.
        found: what was found, in a few words; never a secret.
        fix: what to type where `ok` is false.
        group: heading of the part in the printed list, "" for none.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    group: str = ""


@dataclass(frozen=True)
class Report:
    """All checks; `ready` says whether the quickstart can run (speech, trainer, weights and tasks are there)."""

    version: str
    ready: bool
    checks: tuple[Check, ...]


NEEDED = frozenset({"extra tts", "extra train", "speech", "micro weights", "tasks", *DISTRIBUTIONS})


def examine() -> Report:
    """Look at everything once; nothing is written and nothing is downloaded."""
    from rba_bench.audio import codecs

    formats = "M4A, AAC, WebM, AMR, WMA"
    decoder = f"PyAV {package_version('av')} reads {formats}" if codecs.pyav_installed() else f"no {formats}"
    whisper = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    downloaded = ", ".join(sorted(file.stem for file in whisper.glob("*.pt"))) or "none yet"
    sizes = f"tiny to large-v3, turbo, or a .pt file; downloaded: {downloaded}"
    checks = (
        Check("python", True, f"{platform.python_version()} on {platform.platform()}"),
        *(_distribution(name, module) for name, module in DISTRIBUTIONS.items()),
        *(_extra(name, modules) for name, modules in EXTRAS.items()),
        Check("extra codecs", codecs.pyav_installed(), decoder, extra("codecs")),
        _check_safely("hardware", _hardware),
        _check_safely("speech", _speech),
        _check_safely("micro weights", _weights),
        _check_safely("assets", _assets),
        _check_safely("tasks", _tasks),
        *(_family(model_type, entry) for model_type, entry in FAMILIES.items()),
        Check("others", True, "through the generic adapter; not verified", group=MODELS),
        Check("openai-whisper", True, sizes, group=RECOGNISERS),
        Check("transformers", True, "Whisper and CTC checkpoints, folder or Hub id", group=RECOGNISERS),
        Check("faster-whisper", True, "Whisper folders of CTranslate2, folder or Hub id", group=RECOGNISERS),
        *_keys(),
    )
    ready = all(check.ok for check in checks if check.name in NEEDED)
    return Report(__version__, ready, checks)


def _distribution(name: str, module: str) -> Check:
    """Whether a package is there and can be imported: a wheel for another machine has a version and does not load."""
    version = package_version(name)
    if version is None:
        return Check(name, False, "not installed", package(name))
    try:
        import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises is the finding
        found = f"{version} cannot be imported: {_reason(error)}"
        return Check(name, False, found, package(name, upgrade=True))
    return Check(name, True, version)


def _extra(name: str, modules: tuple[str, ...]) -> Check:
    missing = []
    for module in modules:
        try:
            spec = util.find_spec(module)
        except (ImportError, ValueError, OSError):
            spec = None
        missing += [] if spec is not None else [module]
    found = f"lacks {', '.join(missing)}" if missing else "installed"
    return Check(f"extra {name}", not missing, found, extra(name))


def _check_safely(name: str, check: Callable[[], Check]) -> Check:
    """The result of a check; one that raises is a finding, not a crash."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - with a broken torch anything can be raised
        return Check(name, False, _reason(error), "see the message")


def _reason(error: Exception) -> str:
    """What went wrong, in one short line."""
    return printable(str(error) or type(error).__name__, LONGEST)


def _hardware() -> Check:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("hardware", True, f"{usable_cpus()} CPU cores, {', '.join(gpus) if gpus else 'no GPU'}")


def _speech() -> Check:
    from rba_bench.audio.speech_engines import ENGINES

    engine = ENGINES[0]
    wave = engine.speak("hello", "en", next(iter(engine.banks.values()))[0])
    return Check("speech", len(wave) > 0, f"{engine.name} speaks ({len(wave) / 16_000:.2f} s for one word)")


def _weights() -> Check:
    weights, folder = WEIGHTS[MICRO], weights_folder()
    missing = [role for role in weights.roles if not (folder / role).is_dir()]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    found = f"lacks {', '.join(missing)}" if missing else f"{size:.1f} MiB in {folder}"
    return Check("micro weights", not missing, found, weights.command)


def _assets() -> Check:
    """Which weights are on this machine; none is needed, and one is fetched when a command names it."""
    here = [asset.name for asset in ASSETS.values() if asset.shipped is None and fetching.is_cached(asset)]
    number = sum(asset.shipped is None for asset in ASSETS.values())
    names = f": {', '.join(here)}" if here else ""
    return Check("assets", True, f"{len(here)} of {number} fetched{names} (`rba-bench assets list`)")


def _tasks() -> Check:
    from rba_bench.evaluation.task_registry import list_tasks

    number, fix = len(list_tasks()), "reinstall rba-bench, because its tasks/ folder is missing"
    return Check("tasks", number > 0, f"{number} tasks", fix)


def _family(model_type: str, entry: Entry) -> Check:
    """Whether answers of this architecture are known to be those of transformers itself, and with which one."""
    verified = "not verified"
    if entry.verified:
        verified = f"verified with transformers {VERIFIED_WITH}"
        installed = package_version("transformers") or "an unknown version"
        if not f"{installed}.".startswith(f"{VERIFIED_WITH}."):
            verified += f", not with {installed}"
    found = "; ".join(filter(None, (verified, entry.example, entry.note)))
    return Check(model_type, True, found, group=MODELS)


def _keys() -> tuple[Check, ...]:
    """Which API keys are set and which servers get them; their values are never shown."""
    hosts = sorted(name for name in os.environ if name.startswith(f"{LOCAL_VARIABLE}_"))
    uses = {
        "OPENAI_API_KEY": "for api.openai.com",
        "AZURE_OPENAI_API_KEY": "for *.openai.azure.com",
        LOCAL_VARIABLE: "for servers on this machine",
        FILE_VARIABLE: "a file with lines `host = KEY`",
    }
    states = {name: "set" if os.environ.get(name, "").strip() else "not set" for name in KEY_VARIABLES}
    checks = [Check(name, True, f"{state}; {uses[name]}", group=SERVERS) for name, state in states.items()]
    checks += [Check(name, True, "set; for the host in its name", group=SERVERS) for name in hosts]
    hint = "RBA_API_KEY_API_EXAMPLE_ORG for api.example.org; `doctor --endpoint URL` shows what a server supports"
    return (*checks, Check("others", True, hint, group=SERVERS))
