"""The text decoder of a recipe's base model in a folder, and the command with which vLLM serves it for a run."""

from pathlib import Path
from urllib.parse import urlsplit

from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollouts.make import weights_of
from rba_bench.training.rollouts.transfer import BASE

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for --max-lora-rank


def export(recipe: TrainingRecipe, out: Path) -> None:
    """Write the decoder of `recipe.base` to `out`, in the number type that the run computes in.

    Raises:
        UserError: the folder belongs to something else, or the decoder cannot be served alone.
        MissingPrerequisite: the base model is not there.
    """
    import torch

    from rba_bench.outputs import claim, release
    from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
    from rba_bench.training.build import base_folder, checkpoint_sha256, load_base

    base = base_folder(recipe)
    claim(out, "decoder", {"base_sha256": checkpoint_sha256(base), "precision": recipe.precision})
    try:
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        TextDecoder(load_base(base, recipe)).save(out, dtype)
    finally:
        release(out)


def serve_command(
    recipe: TrainingRecipe, folder: Path, max_length: int | None = None
) -> tuple[dict[str, str], list[str]]:
    """Environment variables and words of the command.

    Args:
        recipe: of the run.
        folder: of the decoder.
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
    if weights_of(recipe) == "lora" and recipe.lora is not None:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        rank = next((rank for rank in RANKS if rank >= recipe.lora.r), recipe.lora.r)
        words += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", str(rank)]
    return variables, words
