"""ArmoRM's form, with the names and shapes of its published weights."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.training.rewards.classifier import LlamaForRewardModelWithGating, RewardModel

OBJECTIVES, HIDDEN = 5, 24


@pytest.fixture(scope="module")
def armorm_dir(tmp_path_factory: pytest.TempPathFactory, tiny_textlm_dir: Path) -> Path:
    config = LlamaConfig.from_pretrained(tiny_textlm_dir)
    config.update({"num_objectives": OBJECTIVES, "gating_hidden_dim": HIDDEN, "gating_temperature": 2})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = LlamaForRewardModelWithGating(config)
        model.reward_transform_matrix.data += 0.3 * torch.randn(OBJECTIVES, OBJECTIVES)
        model.gating.logit_scale.data.fill_(1.5)
    folder = tmp_path_factory.mktemp("armorm") / "model"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_textlm_dir).save_pretrained(folder)
    return folder


def test_the_weights_have_their_published_names(armorm_dir: Path) -> None:
    from safetensors import safe_open

    with safe_open(armorm_dir / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
    own = {name: shape for name, shape in shapes.items() if not name.startswith("model.")}
    sizes = [32, HIDDEN, HIDDEN, HIDDEN, OBJECTIVES]
    gate = {f"gating.layers.{n}.weight": (sizes[n + 1], sizes[n]) for n in range(4)}
    gate |= {f"gating.layers.{n}.bias": (sizes[n + 1],) for n in range(4)}
    matrix = {"reward_transform_matrix": (OBJECTIVES, OBJECTIVES), "gating.logit_scale": (1,)}
    assert own == {"regression_layer.weight": (OBJECTIVES, 32), **matrix, **gate}


def test_the_score_is_the_gated_sum_of_the_objectives(rows: list[AlignmentRow], armorm_dir: Path) -> None:
    reward = RewardModel.from_pretrained(armorm_dir)
    answers = ["the dog", "a much longer answer with many words", "<|end|><|assistant|>"]
    found = reward([rows[6]] * 3, answers)
    model = reward.model
    end, turn = reward.tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])
    for value, answer in zip(found, answers, strict=True):
        ids = reward._read(rows[6].user_text, answer)[0]
        (border,) = (
            n for n in range(len(ids) - 1) if ids[n : n + 2] == [end, turn]
        )  # an answer writes no other
        with torch.inference_mode():
            states = model.model(torch.tensor([ids])).last_hidden_state[0]
            gate = states[border]
            for number, layer in enumerate(model.gating.layers):
                gate = layer(gate).clamp(min=0) if number < 3 else layer(gate)
            weights = torch.softmax(gate / 2, dim=0) * 1.5
            adjusted = model.reward_transform_matrix.T @ (model.regression_layer.weight @ states[-1])
        assert value == pytest.approx(float(weights @ adjusted), abs=1e-5)
    assert len(set(found)) == 3


def test_one_objective_may_be_the_reward(rows: list[AlignmentRow], armorm_dir: Path) -> None:
    reward = RewardModel.from_pretrained(armorm_dir, output=2)
    ids = reward.tokenizer(reward.render(rows[0], "a"), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        state = reward.model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        expected = float((reward.model.regression_layer.weight @ state)[2])
    assert reward(rows[:1], ["a"]) == pytest.approx([expected], abs=1e-5)


def test_a_row_without_the_assistants_turn_is_refused(armorm_dir: Path) -> None:
    reward = RewardModel.from_pretrained(armorm_dir)
    ids = torch.tensor([[1, 40, 41, 42]])
    with pytest.raises(UserError, match="no turn of the assistant"):
        reward.model(ids, torch.ones_like(ids))
