"""Audio-in, text-out checkpoints of transformers behind one adapter.

`engine.TransformersSpeechLM` answers requests; `families` holds, by `config.model_type`, what one architecture does
in its own way; `encoder_cache` keeps what the encoder made of a clip.
"""
