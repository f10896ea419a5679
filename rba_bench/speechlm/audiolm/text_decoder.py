"""The text decoder of a speech model on its own: for the generation engine, and for servers of text models.

A caller that merges the embeddings of text and audio itself needs no more of a server than the decoder. So one that
takes embeddings as prompts (vLLM) serves every family.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rba_bench.errors import UserError
from rba_bench.files import replacing, write_json
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.textlm.engine_support import is_drivable, remember_drivable
from rba_bench.textlm.generation import Decoder, common_prefix

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
# Decoders that transformers has no class of their own for. Without images all three position tables of Qwen2.5-Omni
# count alike, which is plain rotation; Phi-4-multimodal's decoder is that of Phi-3 with tables of other senses beside.
_EQUIVALENT_TYPE = {"qwen2_5_omni_text": "qwen2", "phi4_multimodal": "phi3"}
# What text models do to the head's result; speech models around them (Granite Speech, transformers 5.23) leave it out.
_PLAIN_HEAD = {"logits_scaling": 1.0, "logit_scale": 1.0, "final_logit_softcapping": None}
_OTHER_SENSES = "embed_tokens_extend."

Gather = Callable[[Tensor], Tensor]  # the full tensor of a parameter that may be sharded


def speech_decoder(family: AudioFamily) -> Decoder | None:
    """The decoder as the engine drives it; None where it cannot, or where the model does not run step by step.

    Call it in eval mode and without gradient.
    """
    if not family.splits:
        return None
    config = family.decoder.config

    def logits(embeds: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> Tensor:
        states = family.decode(embeds, mask, positions, past_key_values=cache, use_cache=cache is not None)
        return family.head(states[:, -1])

    layers = getattr(config, "num_hidden_layers", 0)
    decoder = Decoder(logits, family.model.get_input_embeddings(), layers)
    return decoder if is_drivable(decoder, family.decoder, config) else None


@torch.no_grad()
def try_engine(family: AudioFamily) -> bool:
    """Whether the engine can drive the decoder, tried before its weights are sharded over processes.

    The trial calls the decoder; a process that knew the result already would then not call it with the others.
    """
    decoder = family.decoder
    training = decoder.training
    decoder.eval()
    try:
        return speech_decoder(family) is not None
    finally:
        decoder.train(training)


def remember_engine(family: AudioFamily, driven: bool) -> None:
    """Take over the result of the process that has the weights."""
    remember_drivable(family.decoder, driven)


def prefix_before_audio(family: AudioFamily, rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, before the audio of any of them."""
    shared = common_prefix(rows)
    places = [row.index(family.audio_token_id) for row in map(list, rows) if family.audio_token_id in row]
    return min([shared, *places])


def unpadded(embeds: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Rows [P, H] of left-padded embeddings [B, L, H]."""
    return [row[embeds.shape[1] - size :] for row, size in zip(embeds, sizes, strict=True)]


def unsharded(parameter: Tensor) -> Tensor:
    """A parameter that is not sharded."""
    return parameter.detach()


class TextDecoder:
    """Decoder and head of a model as a causal language model.

    The head always stands beside the embeddings, also where both are one matrix: vLLM (0.32) on a CPU packs the head
    when it starts, and does not pack it again when tied weights are replaced.

    Args:
        family: adapter around the model.

    Raises:
        UserError: the decoder is of a type that no server of text models would know.
    """

    def __init__(self, family: AudioFamily) -> None:
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM

        self.family = family
        config = family.decoder.config
        kind = _EQUIVALENT_TYPE.get(config.model_type, config.model_type)
        config_class = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None  # noqa: SIM401 - a lazy mapping, without get
        if config_class is None or config_class not in AutoModelForCausalLM._model_mapping:
            raise UserError(f"a decoder of type {config.model_type!r} cannot be served on its own")
        self._class = AutoModelForCausalLM._model_mapping[config_class]
        # The text model's own configuration, head and embeddings apart
        fields = {name: value for name, value in config.to_dict().items() if not name.endswith("_config")}
        rope = {k: v for k, v in (fields.get("rope_parameters") or {}).items() if k != "mrope_section"}
        if rope.get("rope_type") == "mrope":
            rope["rope_type"] = "default"
        fields |= {"model_type": kind, "tie_word_embeddings": False, "rope_parameters": rope or None}
        self.config = config_class.from_dict(fields)
        if type(family).head is AudioFamily.head:
            for name in _PLAIN_HEAD.keys() & vars(self.config).keys():
                setattr(self.config, name, _PLAIN_HEAD[name])
        self.prefix = f"{self._class.base_model_prefix}."
        with torch.device("meta"):
            model = self._class._from_config(self.config)
        expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        shapes = dict(self.shapes())
        if shapes != expected:
            name = sorted(set(shapes.items()) ^ set(expected.items()))[0][0]
            raise UserError(
                f"the decoder cannot be served as a {self._class.__name__}: the weights {name} differ"
            )

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of all weights, in the order of `weights`."""
        for name, parameter, _ in self._parameters():
            yield name, tuple(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 keeps them empty

    def _parameters(self) -> Iterator[tuple[str, Tensor, Any]]:
        """Name there, parameter, and the layer it belongs to; of adapted layers what they adapt."""
        for path, module in self.family.decoder.named_modules():
            if ".lora_" in path or path.startswith(_OTHER_SENSES.rstrip(".")):
                continue
            for name, parameter in module.named_parameters(recurse=False):
                inner = f"{path}.{name}".replace(".base_layer.", ".")
                owner = self.family.decoder.get_submodule(path.removesuffix(".base_layer"))
                yield self.prefix + inner, parameter, owner
        for name, parameter in self.family.model.get_output_embeddings().named_parameters():
            yield f"lm_head.{name}", parameter, self.family.model.get_output_embeddings()

    def weights(self, gather: Gather = unsharded) -> Iterator[tuple[str, Tensor]]:
        """All weights by name, adapters merged. Where weights are sharded, all processes must iterate."""
        for name, parameter, layer in self._parameters():
            weight = gather(parameter)
            if name.endswith(".weight") and hasattr(layer, "lora_A"):
                updates = []  # of the active adapters, in float32
                for adapter in layer.active_adapters:
                    down, up = (gather(side[adapter].weight).float() for side in (layer.lora_A, layer.lora_B))
                    updates.append(up @ down * layer.scaling[adapter])
                total = torch.stack(updates).sum(0)
                # GPT-2's layers keep their weights transposed
                weight = weight + (total.T if layer.fan_in_fan_out else total).to(weight)
            yield name, weight

    def linear_layers(self) -> list[str]:
        """Last names of the decoder's linear layers, each once."""
        layers = self.family.decoder.named_modules()
        return sorted({path.rpartition(".")[2] for path, layer in layers if isinstance(layer, nn.Linear)})

    def save(self, folder: Path, dtype: torch.dtype, gather: Gather = unsharded, write: bool = True) -> None:
        """A folder that `vllm serve` and `AutoModelForCausalLM` load.

        Args:
            folder: made if absent.
            dtype: of the weights.
            gather: see `Gather`.
            write: whether this process writes.
        """
        weights = {}
        for name, weight in self.weights(gather):
            if write:
                weights[name] = weight.to("cpu", dtype, copy=True).contiguous()
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / WEIGHTS, weights)
            kind = str(dtype).removeprefix("torch.")
            config = {**self.config.to_dict(), "architectures": [self._class.__name__], "dtype": kind}
            write_json(folder / "config.json", config)

    def save_adapter(
        self, folder: Path, dtype: torch.dtype, gather: Gather = unsharded, write: bool = True
    ) -> None:
        """The adapter that trains, as peft writes one of the decoder alone.

        Raises:
            UserError: there is none, or layers differ in rank or scale.
        """
        tensors: dict[str, Tensor] = {}
        ranks: set[tuple[int, float]] = set()
        for path, layer in self.family.decoder.named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            (adapter,) = layer.active_adapters
            ranks.add((layer.r[adapter], layer.lora_alpha[adapter]))
            for side in ("lora_A", "lora_B"):
                weight = gather(getattr(layer, side)[adapter].weight)
                name = f"base_model.model.{self.prefix}{path}.{side}.weight"
                if write:
                    tensors[name] = weight.to("cpu", dtype, copy=True).contiguous()
        if len(ranks) != 1:
            raise UserError("the decoder has no adapter of one rank: set rollout.weights to folder")
        if write:
            [(rank, alpha)] = ranks
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / ADAPTER, tensors)
            targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors})
            config = {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "r": rank,
                "lora_alpha": alpha,
                "target_modules": targets,
                "lora_dropout": 0.0,
                "bias": "none",
                "inference_mode": True,
            }
            write_json(folder / "adapter_config.json", config)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt"})
