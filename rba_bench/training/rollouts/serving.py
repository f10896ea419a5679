"""The text decoder of a recipe's base model in a folder, and the command with which vLLM serves it for a run."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rba_bench.errors import UserError
from rba_bench.training.model.trainable_parts import ALL_LINEAR
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollouts.base import BASE
from rba_bench.training.rollouts.make import weights_of

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for --max-lora-rank


def export(recipe: TrainingRecipe, out: Path) -> list[str]:
    """Write the decoder of `recipe.base` to `out`, in the number type that the run computes in.

    Returns:
        Names of its linear layers, as `lora.targets` has them.

    Raises:
        UserError: the folder belongs to something else, the decoder cannot be served alone, or its number type is
            left to a measurement.
        MissingPrerequisite: the base model is not there.
    """
    import torch

    from rba_bench.outputs import claim, release
    from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
    from rba_bench.training.model.building import base_folder, checkpoint_sha256, load_base

    if recipe.precision == "auto":
        raise UserError(
            "a server and its run must compute in one number type: set precision to float32 or bfloat16"
        )
    base = base_folder(recipe)
    claim(out, "decoder", {"base_sha256": checkpoint_sha256(base), "precision": recipe.precision})
    try:
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        decoder = TextDecoder(load_base(base, recipe))
        decoder.save(out, dtype)
        return decoder.linear_layers()
    finally:
        release(out)


def serve_command(
    recipe: TrainingRecipe, folder: Path, layers: Sequence[str], max_length: int | None = None
) -> tuple[dict[str, str], list[str]]:
    """Environment variables and words of the command.

    Args:
        recipe: of the run.
        folder: of the decoder.
        layers: names of its linear layers.
        max_length: longest prompt and answer together, in tokens; None: what the model allows.
    """
    address = urlsplit(recipe.rollout.url)
    variables = {"VLLM_SERVER_DEV_MODE": "1"}  # the routes that replace weights
    words = ["vllm", "serve", str(folder.resolve()), "--served-model-name", BASE]
    words += ["--host", address.hostname or "127.0.0.1", "--port", str(address.port or 8000)]
    words += ["--dtype", recipe.precision, "--enable-prompt-embeds", "--skip-tokenizer-init"]
    words += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    if max_length is not None:
        words += ["--max-model-len", str(max_length)]
    if weights_of(recipe) == "nccl":
        words += ["--weight-transfer-config", '{"backend": "nccl"}']
    if weights_of(recipe) == "lora" and recipe.lora is not None:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        rank = next((rank for rank in RANKS if rank >= recipe.lora.r), recipe.lora.r)
        words += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", str(rank)]
        # without it the embeddings are wrapped for adapters too, and 0.32 stops when prompts come as embeddings
        targets = layers if ALL_LINEAR in recipe.lora.targets else recipe.lora.targets
        words += ["--lora-target-modules", *targets]
    return variables, words
