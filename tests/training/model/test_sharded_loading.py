"""Weights that one process reads and hands out: how much of them the others ever hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rba_bench.recipes import recipes_dir
from tests.speechlm.audiolm.conftest import (
    CHATML,
    ENCODER,
    make_tokenizer,
    save,
    text_config,
    whisper_features,
)
from tests.training.test_distributed import environment_of

CHILD = """
import json, os, pathlib, re, sys
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from rba_bench.training.model import building as build
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.model.sharded_loading import shard_policy
from rba_bench.training.model.sharding import full_tensor, layer_names


def memory(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024


PartialState(cpu=True)
torch.set_num_threads(1)
base = pathlib.Path(sys.argv[1])
recipe = TrainingRecipe(method="dpo", base=str(base), reference="base", train_parts=["projector", "llm"])
accelerator = Accelerator(cpu=True)
state = accelerator.state
state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before, anonymous = memory("VmRSS"), memory("RssAnon")
policy = build.make_shared_policy(base, recipe)
copies = [build.make_reference(policy, weights=False)]
state.fsdp_plugin.transformer_cls_names_to_wrap = layer_names(policy.layer_stacks())
shard_policy(policy, copies, accelerator, "fsdp", torch.device("cpu"))
seen = {"peak": memory("VmHWM") - before, "after": memory("RssAnon") - anonymous}
plain = dict(build.make_policy(build.load_base(base, recipe), recipe).named_parameters())
for one in (policy, *copies):
    seen["parameters"] = sum(p.numel() for p in one.parameters())
    seen["shards"] = sum(p.to_local().numel() for p in one.parameters())
    seen["equal"] = all(torch.equal(full_tensor(p), plain[name]) for name, p in one.named_parameters())
both = gather_object([seen])
if state.process_index == 0:
    pathlib.Path(sys.argv[2]).write_text(json.dumps(both))
"""


@pytest.fixture(scope="module")
def wide_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random speech model of 45 million parameters, nearly all of them in its LLM."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = make_tokenizer()
    text = text_config(tokenizer) | {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **ENCODER},
        text_config={"model_type": "qwen2", **text},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    template = CHATML.replace("PLACEHOLDER", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    processor = Qwen2AudioProcessor(whisper_features(), tokenizer, chat_template=template)
    folder = tmp_path_factory.mktemp("wide") / "model"
    return save(folder, lambda: Qwen2AudioForConditionalGeneration(config), processor)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_only_the_first_process_ever_holds_the_whole_model_and_a_reference_adds_its_shards_alone(
    wide_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    config = ["--config_file", str(recipes_dir() / "accelerate" / "ddp-cpu.yaml"), "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *config]
    done = subprocess.run(
        [*command, str(tmp_path / "child.py"), str(wide_dir), str(tmp_path / "seen.json")],
        env={
            **os.environ,
            **environment_of("fsdp2.yaml"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = json.loads((tmp_path / "seen.json").read_text())
    whole = 4 * first["parameters"]
    assert whole > 150e6
    for seen in (first, second):
        assert seen["equal"] and 0.4 * first["parameters"] < seen["shards"] < 0.6 * first["parameters"]
    # its halves of policy and reference, and what arrives; two whole models would be 2.0
    assert second["peak"] < 1.3 * whole
    # the whole model is gone again; what is still mapped of its file the system takes back when it wants to
    assert first["after"] < 1.3 * whole
