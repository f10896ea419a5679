"""How a vLLM server gets the policy's weights: the decoder through a folder, the adapter alone, or all by NCCL.

`NcclTransfer` sends weights from the trainer's GPU to the server's by vLLM's own engine, and so needs vLLM installed
beside the trainer. It follows the interface that vLLM 0.32 documents (`vllm.distributed.weight_transfer`), and has not
been run, because that needs GPUs.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.model.sharding import full_tensor
from rba_bench.training.rollouts.rollout import BASE
from rba_bench.training.rollouts.vllm_client import LOAD_LORA, UNLOAD_LORA, VllmClient


class Transfer(Protocol):
    """Sends the policy's weights to the server."""

    def send(self, tag: str, is_first: bool) -> str:
        """Make the server answer with the policy's weights; all processes call.

        Args:
            tag: names these weights, as no others of any run.
            is_first: whether this process talks to the server.

        Returns:
            The model to ask for.
        """


class FolderTransfer:
    """All weights of the decoder, in files that the server loads in place of its own.

    Args:
        client: of the server.
        decoder: of the policy.
        folder: that both sides see.
        dtype: of the files.
    """

    def __init__(self, client: VllmClient, decoder: TextDecoder, folder: Path, dtype: torch.dtype) -> None:
        self.client = client
        self.decoder = decoder
        self.folder = folder
        self.dtype = dtype

    def send(self, tag: str, is_first: bool) -> str:
        """See `Transfer`."""
        folder = self.folder / tag
        self.decoder.save(folder, self.dtype, full_tensor, is_first)
        if is_first:
            try:
                where = {"weights_path": str(folder.resolve())}
                self.client.post("/collective_rpc", {"method": "reload_weights", "kwargs": where})
                self.client.post("/reset_prefix_cache")  # keys and values of the old weights
                self.client.post("/update_weight_version", {"new_version": tag})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return BASE


class LoraTransfer(FolderTransfer):
    """The adapter of the decoder alone, in files that the server loads.

    It has a name of its own each time: what was computed with the last one is never reused.
    """

    _loaded = ""

    def send(self, tag: str, is_first: bool) -> str:
        """See `Transfer`."""
        name, folder = f"{BASE}-{tag}", self.folder / tag
        self.decoder.save_adapter(folder, self.dtype, full_tensor, is_first)
        if is_first:
            model_ids = {model["id"] for model in self.client.get("/v1/models")["data"]}
            try:
                self.client.post(LOAD_LORA, {"lora_name": name, "lora_path": str(folder.resolve())})
                if self._loaded in model_ids:
                    self.client.post(UNLOAD_LORA, {"lora_name": self._loaded})
                self.client.post("/update_weight_version", {"new_version": tag})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._loaded = name
        return name


class NcclTransfer:
    """All weights of the decoder, broadcast to the server's workers.

    Args:
        client: of the server.
        decoder: of the policy.
        master: host:port of this process that the workers can reach.
        dtype: on the wire.
        device: of this process.
    """

    def __init__(
        self, client: VllmClient, decoder: TextDecoder, master: str | None, dtype: torch.dtype, device: str
    ) -> None:
        host, _, port = (master or "").rpartition(":")
        if not host or not port.isdecimal():
            raise UserError("rollout.weights nccl needs rollout.master: host:port of this machine")
        self.client = client
        self.decoder = decoder
        self.address = (host, int(port))
        self.dtype = dtype
        self.device = device
        self._engine: Any = None

    def send(self, tag: str, is_first: bool) -> str:
        """See `Transfer`."""
        if self._engine is None:
            self._engine = self._connected(is_first)
        self._engine.send_weights()
        if is_first:
            self.client.post("/reset_prefix_cache")
            self.client.post("/update_weight_version", {"new_version": tag})
        return BASE

    def _connected(self, is_first: bool) -> Any:
        try:
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        except ImportError as error:
            raise MissingPrerequisite(
                f"rollout.weights nccl needs vLLM in this environment too: {extra('vllm')}, or choose folder"
            ) from error
        workers = int(self.client.get("/get_world_size")["world_size"]) if is_first else 0
        host, port = self.address
        info = NCCLTrainerInitInfo(
            rank=0 if is_first else 1, master_address=host, master_port=port, world_size=1 + workers
        )
        return WeightTransferTrainerFactory.trainer_init(
            info, client=_Control(self.client), source=_source(self.decoder, self.dtype, self.device)
        )


class _Control:
    """The four calls that vLLM's sender makes of a server."""

    def __init__(self, client: VllmClient) -> None:
        self.client = client

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        self.client.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self.client.post("/start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self.client.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.client.post("/finish_weight_update")


def _source(decoder: TextDecoder, dtype: torch.dtype, device: str) -> Any:
    """The decoder as vLLM's sender reads it: names and shapes, then weights in that order, as often as asked."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Source(WeightSource):
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, dtype, shape) for name, shape in decoder.shapes()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            for name, weight in decoder.weights(full_tensor):
                yield name, weight.to(device, dtype)

    return Source()
