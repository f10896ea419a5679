"""The rollout of a run, as its recipe asks for it."""

from pathlib import Path

import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.collect import Collector
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollouts.transfer import BASE, FolderTransfer, LoraTransfer
from rba_bench.training.rollouts.vllm import VllmRollout
from rba_bench.training.rollouts.vllm_client import ServerGone, VllmClient


def use_engine(collector: Collector, folder: Path) -> None:
    """Give a collector the engine that its recipe names; it starts with the local one.

    Args:
        collector: of the run.
        folder: for weights on their way, where the recipe names none.

    Raises:
        MissingPrerequisite: the server is not there.
        UserError: it is another one, or the model's decoder cannot be served alone.
    """
    recipe = collector.recipe
    validates = recipe.eval_every and recipe.validation.metric == "reward"
    if recipe.rollout.engine == "local" or not (recipe.uses_rollout or validates):
        return
    options, policy = recipe.rollout, collector.policy
    client = VllmClient(options.url, options.in_flight, options.timeout_s)
    check_there(client, recipe)
    decoder, where = TextDecoder(policy.family), Path(options.folder) if options.folder else folder
    dtype = torch.bfloat16 if policy.half else torch.float32
    transfer = LoraTransfer if weights_of(recipe) == "lora" else FolderTransfer
    collector.rollout = VllmRollout(
        policy,
        client,
        transfer(client, decoder, where, dtype),
        sorted(collector.responder.end_ids),
        recipe.max_new_tokens,
        recipe.rollout_batch,
        collector.any_clip,
        options.tolerance,
    )


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
