"""The composite known to transformers' Auto classes as soon as `rba_bench` is imported, in whatever order.

`import rba_bench` must not import transformers, and transformers finds no plug-ins. So a finder on `sys.meta_path`
looks out for three modules of transformers and registers the composite when they have been imported (at once, if they
have been already), through transformers' public `register`:

    configuration_auto   the configuration: no torch is needed
    processing_auto      the processor
    modeling_auto        the models, once there is a configuration that may want them: Whisper's code is imported then

The finder finds nothing itself: it hands on what the other finders found, and leaves when all three have come.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto"
CONFIGURATIONS, PROCESSORS, MODELS = (
    f"{_AUTO}.{name}_auto" for name in ("configuration", "processing", "modeling")
)
_waiting: dict[str, Callable[[], None]] = {}
_state = {"configured": False, "registered": False}


def watch() -> None:
    """Register the composite with the Auto modules that are imported, and with the others when they will be."""
    if _waiting or _state["registered"]:
        return
    _waiting.update(
        {CONFIGURATIONS: _register_configuration, PROCESSORS: _register_processor, MODELS: _register_models}
    )
    for name in [name for name in _waiting if _finished(name)]:
        _arrived(name)
    if _waiting:
        sys.meta_path.insert(0, _Lookout())


def configured() -> None:
    """Note that there is a configuration of a composite: whoever made it may ask for its model."""
    if not _state["configured"]:
        _state["configured"] = True
        if _finished(MODELS):
            _attempt(_register_models)


class _Lookout:
    """A finder of the modules waited for, see above."""

    def __init__(self) -> None:
        self._asking: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders know of a module waited for, with a loader that tells when it has run."""
        if name not in _waiting or name in self._asking:
            return None
        self._asking.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._asking.discard(name)
        if spec is not None and spec.loader is not None:
            _tell_when_run(spec.loader, name)
        return spec


def _tell_when_run(loader: Any, name: str) -> None:
    """The loader stays the one that it is, so that tracebacks and `inspect` find the source."""
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        _arrived(name)

    loader.exec_module = exec_module


def _arrived(name: str) -> None:
    act = _waiting.pop(name, None)
    if not _waiting:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Lookout)]
    if act is not None:
        _attempt(act)


def _attempt(act: Callable[[], None]) -> None:
    """A broken torch must not make importing transformers fail because of us; `rba_bench.register()` says why."""
    with suppress(ImportError, OSError):
        act()


def _finished(name: str) -> bool:
    """Whether a module has been imported, and is not just being so."""
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _register_configuration() -> None:
    from transformers import AutoConfig

    from rba_bench.speechlm.composite.configuration import CompositeConfig

    AutoConfig.register(CompositeConfig.model_type, CompositeConfig, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoFeatureExtractor, AutoProcessor

    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

    AutoFeatureExtractor.register(CompositeConfig, LogMelFeatureExtractor, exist_ok=True)
    AutoProcessor.register(CompositeConfig, CompositeProcessor, exist_ok=True)


def _register_models() -> None:
    if _state["configured"] and not _state["registered"]:
        register()


def register() -> None:
    """Teach AutoConfig, AutoModel, AutoModelForMultimodalLM (if it exists) and AutoProcessor the composite, now.

    Importing `rba_bench` does so by itself; this says what is wrong where that did not work. Safe to call any number
    of times.

    Raises:
        ImportError: transformers or torch cannot be imported.
    """
    import transformers

    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, CompositeModel

    _register_configuration()
    transformers.AutoModel.register(CompositeConfig, CompositeModel, exist_ok=True)
    multimodal = getattr(transformers, "AutoModelForMultimodalLM", None)
    if multimodal is not None:
        multimodal.register(CompositeConfig, CompositeForConditionalGeneration, exist_ok=True)
    _register_processor()
    _state["registered"] = True
