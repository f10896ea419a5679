"""The shipped judges know 270 words: real answers are not put to them."""

import pytest

from rba_bench.errors import UserError
from rba_bench.training.model.building import make_reward
from rba_bench.training.training_recipe import TrainingRecipe


def recipe(**reward: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate(
        {
            "method": "rba-group",
            "track": "full",
            "base": "some/base",
            "alignment_set": "set",
            "reward": reward,
        }
    )


@pytest.mark.parametrize(
    ("reward", "key"), [({}, "reward.model"), ({"instruct": "teacher-logprob"}, "reward.teacher")]
)
def test_a_real_run_is_told_to_name_its_own_judge(reward, key, tmp_path):
    with pytest.raises(UserError, match=f"set {key} to a folder or Hub id"):
        make_reward(recipe(**reward), ["instruct"], None, "cpu", tmp_path)


def test_rewards_that_need_no_model_judge_real_answers(tmp_path):
    assert make_reward(recipe(), ["qa", "s2tt"], None, "cpu", tmp_path) is not None
