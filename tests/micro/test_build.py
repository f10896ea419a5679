"""The build: its parts on a few items, and the whole of it in miniature."""

import random
from pathlib import Path

import pytest
import torch

from rba_bench.assets import MICRO, WEIGHTS
from rba_bench.files import read_json
from rba_bench.micro import world
from rba_bench.micro.build import stages, text_models

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    return text_models.build_tokenizer(tmp_path_factory.mktemp("tokenizer"), samples=4000)


def test_a_word_of_the_world_is_one_token_and_other_text_is_spelt(words) -> None:
    assert len(words("the small fox lives in the forest")["input_ids"]) == 7
    assert words.decode(words("the fox sees aujourd'hui")["input_ids"]) == "the fox sees aujourd'hui"
    assert words.decode(words("Quixotic zebras")["input_ids"]) == "quixotic zebras"
    assert words.unk_token_id in words("北京")["input_ids"]


def test_the_quick_encoder_equals_the_tokenizer_behind_its_chat_template(words) -> None:
    encode, rng = text_models.WordEncoder(words), random.Random(2)
    for _ in range(50):
        item = world.sample_item(rng)
        answer = world.sample_answer(rng, item)
        chat = [{"role": "user", "content": item.user_text}, {"role": "assistant", "content": answer}]
        assert encode.dialogue(item.user_text, answer) == words.apply_chat_template(chat, return_dict=False)


def test_a_language_model_learns(words) -> None:
    losses: list[float] = []
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(text_models.llama_config(words, text_models.Size(32, 1, 2, 64)))
    encode = text_models.WordEncoder(words)
    stream = text_models.dialogues(0, 0.0)
    ids = text_models.pad([encode.dialogue(*next(stream)) for _ in range(16)], words.pad_token_id)
    losses = text_models.optimise(
        model, 30, 1e-2, "test", lambda _: model(input_ids=ids, labels=ids).loss, warmup=3
    )
    assert losses[-1] < 0.7 * losses[0]


def test_a_stage_runs_once_and_again_only_when_its_key_changes(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, int]:
        made.append(folder)
        (folder / "result").write_text("x")
        return {"fact": len(made)}

    assert stages._run_stage(tmp_path / "s", 1, make)["fact"] == 1
    assert stages._run_stage(tmp_path / "s", 1, make)["fact"] == 1
    assert stages._run_stage(tmp_path / "s", 2, make)["fact"] == 2
    assert (tmp_path / "s" / "result").read_text() == "x"


@pytest.mark.slow
def test_the_whole_build_in_miniature(tmp_path: Path) -> None:
    plan = stages.BuildPlan(0, 3, 2, 2, 3, 3, 24, 3, 24, 3, 24, 3, 2, checked=8)
    provenance = read_json(stages.build_weights(tmp_path, plan))
    assert set(WEIGHTS[MICRO].roles) <= {p.name for p in tmp_path.iterdir()}
    assert set(provenance["measured"]) == {
        "micro_alpacaeval",
        "micro_triviaqa",
        "micro_webquestions",
        "micro_covost2",
        "micro_fleurs",
    }
    assert len(read_json(tmp_path / "baseline.json")) == 160 + 480
    assert {Path(name).parts[0] for name in provenance["sha256"]} == set(WEIGHTS[MICRO].roles)
