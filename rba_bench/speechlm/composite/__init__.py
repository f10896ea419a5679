"""Whisper-type encoder + projector + any causal language model, as one transformers model.

Importing this package imports neither torch nor transformers; call `register()` before using Auto classes.
"""


def register() -> None:
    """Teach AutoConfig, AutoModel, AutoModelForMultimodalLM (if it exists) and AutoProcessor the composite.

    Safe to call any number of times.
    """
    import transformers

    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, CompositeModel
    from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

    transformers.AutoConfig.register(CompositeConfig.model_type, CompositeConfig, exist_ok=True)
    transformers.AutoModel.register(CompositeConfig, CompositeModel, exist_ok=True)
    multimodal = getattr(transformers, "AutoModelForMultimodalLM", None)
    if multimodal is not None:
        multimodal.register(CompositeConfig, CompositeForConditionalGeneration, exist_ok=True)
    transformers.AutoFeatureExtractor.register(CompositeConfig, LogMelFeatureExtractor, exist_ok=True)
    transformers.AutoProcessor.register(CompositeConfig, CompositeProcessor, exist_ok=True)
