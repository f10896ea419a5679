"""What goes over to a server, and the command that starts one."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.audiolm.text_decoder import TextDecoder
from rba_bench.training.model import trainable_parts as parts
from rba_bench.training.rollouts.engines import serve_command
from rba_bench.training.rollouts.weight_transfer import NcclTransfer
from rba_bench.training.training_recipe import LoraOptions, TrainingRecipe

LORA = LoraOptions(r=4, alpha=16.0, targets=("q_proj", "v_proj"))


@pytest.fixture
def adapted(family: Any) -> Any:
    """A model with an adapter that has been trained a little."""
    parts.freeze(family, ("projector", "llm"), LORA)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in family.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    return family


@torch.no_grad()
def logits(model: Any, embeds: torch.Tensor) -> torch.Tensor:
    return model(inputs_embeds=embeds).logits


@torch.no_grad()
def expected(family: Any, embeds: torch.Tensor) -> torch.Tensor:
    return family.head(family.decode(embeds, None, torch.arange(embeds.shape[1])[None], use_cache=False))


def test_an_adapter_alone_and_folded_in_are_the_same_model(adapted: Any, tmp_path: Path) -> None:
    """peft puts the adapter onto the decoder of the base, which an adapter that says nothing leaves alone."""
    from peft import PeftModel

    embeds = torch.randn(1, 5, adapted.decoder.config.hidden_size)
    decoder = TextDecoder(adapted)
    decoder.save(tmp_path / "folded", torch.float32)
    decoder.save_adapter(tmp_path / "adapter", torch.float32)
    ups = [p for name, p in adapted.model.named_parameters() if "lora_B" in name]
    kept = [up.detach().clone() for up in ups]
    truth = expected(adapted, embeds)
    for up in ups:
        up.data.zero_()
    decoder.save(tmp_path / "base", torch.float32)
    for up, value in zip(ups, kept, strict=True):
        up.data.copy_(value)
    folded = AutoModelForCausalLM.from_pretrained(tmp_path / "folded").eval()
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert (logits(base, embeds) - truth).abs().max() > 0.01
    with_adapter = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    for model in (folded, with_adapter):
        torch.testing.assert_close(logits(model, embeds), truth, rtol=0, atol=1e-5)


def test_a_model_without_an_adapter_has_none_to_send(family: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rollout.weights to folder"):
        TextDecoder(family).save_adapter(tmp_path, torch.float32)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "--dtype float32"),
        ({"precision": "bfloat16"}, "--dtype bfloat16"),
        ({"lora": {"r": 20}}, "--enable-lora --max-loras 2 --max-lora-rank 32"),
        ({"lora": {"targets": ["q_proj"]}}, "--lora-target-modules q_proj"),
        ({"lora": {"targets": ["all-linear"]}}, "--lora-target-modules o_proj up_proj"),
        ({"lora": {"r": 20}, "rollout": {"weights": "nccl"}}, '--weight-transfer-config {"backend": "nccl"}'),
        ({"rollout": {"url": "http://10.0.0.7:9000/v1"}}, "--host 10.0.0.7 --port 9000"),
    ],
    ids=["plain", "half", "rank", "targets", "all layers", "nccl", "address"],
)
def test_the_command_serves_what_the_recipe_needs(keys: dict[str, Any], words: str) -> None:
    variables, command = serve_command(
        TrainingRecipe.model_validate(keys), Path("decoder"), ["o_proj", "up_proj"], 512
    )
    assert words in " ".join(command)
    assert "--enable-prompt-embeds" in command and command[-2:] != ["--max-model-len"]
    assert variables["VLLM_SERVER_DEV_MODE"] == "1"
    assert ("VLLM_ALLOW_RUNTIME_LORA_UPDATING" in variables) == ("--enable-lora" in command)


def test_vllms_sender_gets_names_and_shapes_that_agree_with_the_weights(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes stand in here (there is no vLLM beside the tests): what they are asked is what vLLM 0.32 takes."""
    seen: dict[str, Any] = {}

    class ParamMeta(NamedTuple):
        name: str
        dtype: torch.dtype
        shape: tuple[int, ...]

    class Engine:
        def send_weights(self) -> None:
            pairs = list(zip(seen["source"].metadata(), seen["source"], strict=True))
            assert all((m.name, m.dtype, m.shape) == (n, w.dtype, tuple(w.shape)) for m, (n, w) in pairs)
            seen["names"] = [meta.name for meta, _ in pairs]
            seen["client"].start_weight_update()

    class Factory:
        @staticmethod
        def trainer_init(info: dict[str, Any], *, client: Any, source: Any) -> Engine:
            seen.update(info=info, client=client, source=source)
            return Engine()

    package = "vllm.distributed.weight_transfer"
    modules = {
        **{name: {} for name in ("vllm", "vllm.distributed", package)},
        f"{package}.base": {"WeightSource": object, "ParamMeta": ParamMeta},
        f"{package}.factory": {"WeightTransferTrainerFactory": Factory},
        f"{package}.nccl_engine": {"NCCLTrainerInitInfo": dict},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    posts: list[str] = []

    class Client:
        def get(self, route: str) -> Any:
            return {"world_size": 2}

        def post(self, route: str, payload: Any = None) -> None:
            posts.append(route)

    transfer = NcclTransfer(Client(), TextDecoder(family), "10.0.0.1:29600", torch.bfloat16, "cpu")  # type: ignore[arg-type]
    assert transfer.send("tag", True) == "policy"
    assert seen["info"] == {"rank": 0, "master_address": "10.0.0.1", "master_port": 29600, "world_size": 3}
    assert "model.embed_tokens.weight" in seen["names"] and "lm_head.weight" in seen["names"]
    assert posts == ["/start_weight_update", "/reset_prefix_cache", "/update_weight_version"]


def test_nccl_without_vllm_or_an_address_is_told(family: Any) -> None:
    with pytest.raises(UserError, match="rollout.master"):
        NcclTransfer(None, TextDecoder(family), None, torch.float32, "cpu")  # type: ignore[arg-type]
    transfer = NcclTransfer(None, TextDecoder(family), "a:1", torch.float32, "cpu")  # type: ignore[arg-type]
    with pytest.raises(MissingPrerequisite, match="choose folder"):
        transfer.send("tag", False)
