"""The rollout engine that a recipe names, and what a vLLM server needs for it: decoder folder and command."""

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_bytes
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.data.clips import ClipStore
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.model.trainable_parts import ALL_LINEAR
from rba_bench.training.rollouts.rollout import BASE, LocalRollout, Rollout
from rba_bench.training.rollouts.vllm import VllmRollout
from rba_bench.training.rollouts.vllm_client import ServerUnavailable, VllmClient
from rba_bench.training.rollouts.weight_transfer import FolderTransfer, LoraTransfer, NcclTransfer, Transfer
from rba_bench.training.training_recipe import TrainingRecipe


def make_rollout(
    recipe: TrainingRecipe,
    policy: SpeechPolicy,
    store: ClipStore,
    end_ids: Collection[int],
    folder: Path,
    sync: CollectiveSync | None = None,
) -> Rollout:
    """The engine that the recipe names; the policy itself where the run samples nothing.

    Args:
        recipe: the run.
        policy: the policy as it trains.
        store: clips of the run.
        end_ids: tokens that end an answer.
        folder: for weights on their way to a server, where the recipe names none.
        sync: of the processes, where they share the weights out.

    Raises:
        MissingPrerequisite: the server does not answer.
        UserError: the server serves another model, or the model's decoder cannot be served alone.
    """
    ends, longest, batch = sorted(end_ids), recipe.max_new_tokens, recipe.rollout_batch
    validates = recipe.eval_every and recipe.validation.metric == "reward"
    options = recipe.rollout
    if options.engine == "local" or not (recipe.uses_rollout or validates):
        return LocalRollout(policy, ends, longest, batch, store.any_input, sync)
    client = VllmClient(options.url, options.in_flight, options.timeout_s)
    check_there(client, recipe)
    name = f"rba-{sha256_bytes(str(folder.resolve()).encode())[:12]}"
    where = Path(options.folder) / name if options.folder else folder
    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(where, ignore_errors=True)  # what a killed run of this folder has left there
    decoder, dtype = TextDecoder(policy.family), torch.bfloat16 if policy.half else torch.float32
    transfer: Transfer
    if weights_of(recipe) == "nccl":
        transfer = NcclTransfer(client, decoder, options.master, dtype, str(policy.device))
    else:
        kind = LoraTransfer if weights_of(recipe) == "lora" else FolderTransfer
        transfer = kind(client, decoder, where, dtype)
    return VllmRollout(
        policy, client, transfer, ends, longest, batch, store.any_input, options.tolerance, sync
    )


def weights_of(recipe: TrainingRecipe) -> str:
    """How weights reach the server; see `RolloutOptions.weights`."""
    if recipe.rollout.weights != "auto":
        return recipe.rollout.weights
    return "lora" if recipe.lora is not None else "folder"


def check_there(client: VllmClient, recipe: TrainingRecipe) -> None:
    """Refuse a server that does not answer or serves another model, before any clip is encoded.

    Raises:
        MissingPrerequisite: the server does not answer.
        UserError: it is no vLLM in developers' mode, or serves another decoder.
    """
    try:
        client.get("/weight_info")
        names = [model["id"] for model in client.get("/v1/models")["data"]]
    except ServerUnavailable as error:
        raise MissingPrerequisite(
            f"{error}: `rba-bench train server --recipe ... --out DIR` says how to start one"
        ) from error
    if BASE not in names:
        raise UserError(f"{client.url} serves {', '.join(names)}, not `{BASE}`: see `rba-bench train server`")


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
    from rba_bench.outputs import claim, release
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
