"""The rollout of a run, as its recipe asks for it."""

import os
import shutil
from pathlib import Path

import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_bytes
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollouts.base import BASE
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.rollouts.nccl import NcclTransfer
from rba_bench.training.rollouts.transfer import FolderTransfer, LoraTransfer, Transfer
from rba_bench.training.rollouts.vllm import VllmRollout
from rba_bench.training.rollouts.vllm_client import ServerGone, VllmClient


def use_engine(rollout_buffer: RolloutBuffer, folder: Path) -> None:
    """Give a rollout buffer the engine that its recipe names; it starts with the local one.

    Args:
        rollout_buffer: of the run.
        folder: for weights on their way, where the recipe names none.

    Raises:
        MissingPrerequisite: the server is not there.
        UserError: it is another one, or the model's decoder cannot be served alone.
    """
    recipe = rollout_buffer.recipe
    validates = recipe.eval_every and recipe.validation.metric == "reward"
    if recipe.rollout.engine == "local" or not (recipe.uses_rollout or validates):
        return
    options, policy = recipe.rollout, rollout_buffer.policy
    client = VllmClient(options.url, options.in_flight, options.timeout_s)
    check_there(client, recipe)
    rollout_buffer.rollout = VllmRollout(
        policy,
        client,
        _transfer(client, recipe, policy, _emptied(options.folder, folder)),
        sorted(rollout_buffer.responder.end_ids),
        recipe.max_new_tokens,
        recipe.rollout_batch,
        rollout_buffer.any_clip,
        options.tolerance,
    )


def _emptied(wanted: str | None, folder: Path) -> Path:
    """Where weights lie while they go over, without what a killed run of this folder has left there."""
    name = f"rba-{sha256_bytes(str(folder.resolve()).encode())[:12]}"
    where = Path(wanted) / name if wanted else folder
    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(where, ignore_errors=True)
    return where


def _transfer(client: VllmClient, recipe: TrainingRecipe, policy: SpeechPolicy, folder: Path) -> Transfer:
    decoder, dtype = TextDecoder(policy.family), torch.bfloat16 if policy.half else torch.float32
    if weights_of(recipe) == "nccl":
        return NcclTransfer(client, decoder, recipe.rollout.master, dtype, str(policy.device))
    kind = LoraTransfer if weights_of(recipe) == "lora" else FolderTransfer
    return kind(client, decoder, folder, dtype)


def weights_of(recipe: TrainingRecipe) -> str:
    """How weights go over; see `RolloutOptions.weights`."""
    if recipe.rollout.weights != "auto":
        return recipe.rollout.weights
    return "lora" if recipe.lora is not None else "folder"


def check_there(client: VllmClient, recipe: TrainingRecipe) -> None:
    """Say at once that no server is there, before anything is encoded.

    Raises:
        MissingPrerequisite: nobody answers.
        UserError: not a vLLM in its developers' mode, or not of a decoder that was made for it.
    """
    try:
        client.get("/weight_info")
        names = [model["id"] for model in client.get("/v1/models")["data"]]
    except ServerGone as error:
        raise MissingPrerequisite(
            f"{error}: `rba-bench train server --recipe ... --out DIR` says how to start one"
        ) from error
    if BASE not in names:
        raise UserError(f"{client.url} serves {', '.join(names)}, not `{BASE}`: see `rba-bench train server`")
