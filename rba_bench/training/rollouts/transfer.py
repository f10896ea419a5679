"""How a vLLM server gets the policy's weights: all of the decoder through a folder, or the adapter alone."""

import shutil
from pathlib import Path
from typing import Protocol

import torch

from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.model.sharding import whole
from rba_bench.training.rollouts.base import BASE
from rba_bench.training.rollouts.vllm_client import LOAD_LORA, UNLOAD_LORA, VllmClient


class Transfer(Protocol):
    """Brings weights over."""

    def send(self, tag: str, leads: bool) -> str:
        """Make the server answer with the policy's weights; all processes call.

        Args:
            tag: names these weights, as no others of any run.
            leads: whether this process talks to the server.

        Returns:
            The model to ask for.
        """
        ...


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

    def send(self, tag: str, leads: bool) -> str:
        """See `Transfer`."""
        folder = self.folder / tag
        self.decoder.save(folder, self.dtype, whole, leads)
        if leads:
            try:
                where = {"weights_path": str(folder.resolve())}
                self.client.post("/collective_rpc", {"method": "reload_weights", "kwargs": where})
                self.client.post("/reset_prefix_cache")  # keys and values of the old weights
                self.client.post("/update_weight_version", {"new_version": tag})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return BASE


class LoraTransfer:
    """The adapter alone, under a name of its own each time: what was computed with the last one is never reused.

    Args:
        client: of the server.
        decoder: of the policy, with the adapter in it.
        folder: that both sides see.
        dtype: of the files.
    """

    def __init__(self, client: VllmClient, decoder: TextDecoder, folder: Path, dtype: torch.dtype) -> None:
        self.client = client
        self.decoder = decoder
        self.folder = folder
        self.dtype = dtype
        self._loaded = ""

    def send(self, tag: str, leads: bool) -> str:
        """See `Transfer`."""
        name, folder = f"{BASE}-{tag}", self.folder / tag
        self.decoder.save_adapter(folder, self.dtype, whole, leads)
        if leads:
            known = {model["id"] for model in self.client.get("/v1/models")["data"]}
            try:
                self.client.post(LOAD_LORA, {"lora_name": name, "lora_path": str(folder.resolve())})
                if self._loaded in known:
                    self.client.post(UNLOAD_LORA, {"lora_name": self._loaded})
                self.client.post("/update_weight_version", {"new_version": tag})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            self._loaded = name
        return name
