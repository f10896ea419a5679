"""Registration of the composite with transformers' Auto classes, as soon as `rba_bench` is imported, in any order.

`import rba_bench` must not import transformers, and transformers has no plug-in mechanism. Therefore a finder on
`sys.meta_path` waits for three modules of transformers and registers the composite through transformers' public
`register` when they have been imported (immediately, if they already were):

    configuration_auto   the configuration: no torch is needed
    processing_auto      the processor
    modeling_auto        the models, once a composite's configuration exists, as this imports Whisper's code

The finder returns the specs of the other finders, and is removed when all three modules have been imported.
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


def watch_auto_modules() -> None:
    """Register the composite with the Auto modules that are imported, and with the others on their import."""
    if _waiting or _state["registered"]:
        return
    _waiting.update(
        {CONFIGURATIONS: _register_configuration, PROCESSORS: _register_processor, MODELS: _register_models}
    )
    for name in [name for name in _waiting if _is_imported(name)]:
        _on_imported(name)
    if _waiting:
        sys.meta_path.insert(0, _ImportFinder())


def note_configuration() -> None:
    """Note that a composite's configuration exists, so that its model may be needed."""
    if not _state["configured"]:
        _state["configured"] = True
        if _is_imported(MODELS):
            _try(_register_models)


class _ImportFinder:
    """Finder of the modules that are waited for; see the module's docstring."""

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The other finders' spec of a module that is waited for, with a loader that registers after the import."""
        if name not in _waiting or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._searching.discard(name)
        if spec is not None and spec.loader is not None:
            # the loader is extended in place: tracebacks and `inspect` find the source through it
            loader: Any = spec.loader
            run = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _on_imported(name)

            loader.exec_module = exec_module
        return spec


def _on_imported(name: str) -> None:
    registration = _waiting.pop(name, None)
    if not _waiting:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ImportFinder)]
    if registration is not None:
        _try(registration)


def _try(registration: Callable[[], None]) -> None:
    """A broken torch must not break the import of transformers here; `rba_bench.register()` shows the error."""
    with suppress(ImportError, OSError):
        registration()


def _is_imported(name: str) -> bool:
    """Whether the import of a module has ended."""
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
    """Register the composite with AutoConfig, AutoModel, AutoModelForMultimodalLM (if it exists) and AutoProcessor.

    Importing `rba_bench` does this by itself; call `register()` to see the error if it did not work. Repeated calls
    have no further effect.

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
