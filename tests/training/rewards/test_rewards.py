"""Rewards rank answers as their names promise, whatever the batch."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite
from rba_bench.training.reward_options import RewardOptions
from rba_bench.training.rewards import TEXT_REWARDS, RewardByKind, RewardModel, TeacherLogprob, build_reward


@pytest.fixture(scope="session")
def reward_dir(tmp_path_factory: pytest.TempPathFactory, tiny_textlm_dir: Path) -> Path:
    """A random one-output classifier on the tiny Llama's shape, with its tokenizer."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    config = AutoConfig.from_pretrained(tiny_textlm_dir, num_labels=1)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = LlamaForSequenceClassification(config)
    folder = tmp_path_factory.mktemp("reward") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_text_rewards_against_the_teacher(rows: list[AlignmentRow]) -> None:
    paris, dog = rows[3], rows[6]  # "paris", "the dog sleeps in the garden"
    assert TEXT_REWARDS["exact"]([paris] * 3, ["Paris.", "it is paris", "rome"]) == [1.0, 0.0, 0.0]
    assert TEXT_REWARDS["alias"]([paris] * 3, ["Paris.", "it is paris", "rome"]) == [1.0, 1.0, 0.0]
    for name in ("bleu", "chrf"):
        same, near, far = TEXT_REWARDS[name]([dog] * 3, [dog.response, "the dog sleeps in a garden", "a cat"])
        assert same == pytest.approx(100.0) and same > near > far


def test_reward_model_reads_instruction_and_answer(rows: list[AlignmentRow], reward_dir: Path) -> None:
    model = RewardModel.from_pretrained(reward_dir, batch_size=2)
    text = model.render(rows[6], "the dog")
    assert (
        text
        == "<|bos|><|user|>translate german to english : der hund schläft im garten<|end|><|assistant|>the dog<|end|>"
    )
    answers = ["a", "a much longer answer with many words", "b", "the lake", "paris"]
    together = model([rows[6]] * 5, answers)
    alone = [model([rows[6]], [answer])[0] for answer in answers]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(together)) == 5
    assert model([rows[0]], ["a"]) != pytest.approx(model([rows[3]], ["a"]))


def test_two_outputs_give_a_difference_of_logits(rows: list[AlignmentRow], reward_dir: Path) -> None:
    model = RewardModel.from_pretrained(reward_dir)
    single = model(rows[:1], ["a"])[0]
    weight = model.model.score.weight.data
    model.model.score = torch.nn.Linear(weight.shape[1], 2, bias=False)
    model.model.score.weight.data = torch.cat([-weight, weight])
    assert model(rows[:1], ["a"])[0] == pytest.approx(2 * single, rel=1e-5)


def test_kinds_go_to_their_rewards_and_equal_answers_are_scored_once(rows: list[AlignmentRow]) -> None:
    seen: list[tuple[str, str]] = []

    class Noisy:
        def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
            seen.extend((row.kind, text) for row, text in zip(rows, responses, strict=True))
            return [float(len(seen)) + n for n in range(len(rows))]

    reward = RewardByKind({"instruct": Noisy(), "qa": TEXT_REWARDS["alias"]})
    scores = reward([rows[0], rows[3], rows[1], rows[0], rows[9]], ["x", "paris", "x", "y", "x"])
    assert scores[0] == scores[2] != scores[3] and scores[1] == 1.0
    assert seen == [
        ("instruct", "x"),
        ("instruct", "y"),
        ("instruct", "x"),
    ]  # the third is another instruction's


def test_teacher_logprob_is_that_of_the_text_model(rows: list[AlignmentRow], tiny_textlm_dir: Path) -> None:
    from rba_bench.textlm.local import LocalTextLM

    teacher = LocalTextLM.from_pretrained(str(tiny_textlm_dir), device="cpu", batch_size=4)
    answers = ["the lake in france", "the garden"]
    values = TeacherLogprob(teacher)([rows[0], rows[6]], answers)
    alone = [
        teacher.logprobs([row.user_text], [text])[0]
        for row, text in zip((rows[0], rows[6]), answers, strict=True)
    ]
    assert values == pytest.approx(alone, abs=1e-4) and max(values) < 0 and values[0] != values[1]


def test_only_needed_models_are_loaded(rows: list[AlignmentRow], tmp_path: Path) -> None:
    absent = RewardOptions(model=str(tmp_path / "absent"))
    assert build_reward(absent, ["qa", "s2tt"])([rows[3]], ["paris"]) == [1.0]
    with pytest.raises(MissingPrerequisite, match="no reward model at"):
        build_reward(absent, ["instruct", "qa"])
