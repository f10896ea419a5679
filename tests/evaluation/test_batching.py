"""Windows, budgets, and what happens when memory runs out."""

from dataclasses import dataclass

import numpy as np
import pytest

from rba_bench.evaluation import harness
from rba_bench.evaluation.harness import BatchPlanner
from rba_bench.evaluation.model_input import read_generation_settings
from rba_bench.textlm.text_model import Generation
from tests.evaluation.conftest import ScriptedModel, write_task

GREEDY = read_generation_settings({"protocol": "greedy"})


@dataclass
class Plan:
    index: int
    duration: float
    key: str = ""
    settings: object = GREEDY


def plans(*durations):
    return [Plan(i, seconds, f"clip-{i}") for i, seconds in enumerate(durations)]


def sizes(planner, planned):
    return [[plan.duration for plan in batch] for batch in planner.batches(planned)]


def test_batches_hold_like_lengths_within_both_limits():
    found = sizes(BatchPlanner(3, 10.0), plans(1, 9, 2, 4, 5, 2, 2, 2))
    assert found == [[9], [5, 4], [2, 2, 2], [2, 1]]
    assert all(max(batch) * len(batch) <= 10 and len(batch) <= 3 for batch in found)


def test_a_clip_longer_than_the_budget_goes_alone():
    assert sizes(BatchPlanner(8, 5.0), plans(30, 1)) == [[30], [1]]


def test_every_item_is_planned_once_and_windows_stay_in_order():
    rng = np.random.default_rng(0)
    planned = plans(*rng.uniform(0.02, 20, 1500))
    batches = list(BatchPlanner(16, 60.0).batches(planned))
    assert sorted(p.index for batch in batches for p in batch) == list(range(1500))
    windows = [plan.index // harness.WINDOW for batch in batches for plan in batch]
    assert windows == sorted(windows), "a batch from a later window would read the files in random order"


def test_equal_clips_are_neighbours():
    mixed = [Plan(i, 3.0, f"clip-{i % 3}") for i in range(12)]
    order = [plan.key for batch in BatchPlanner(4, 100.0).batches(mixed) for plan in batch]
    assert order == sorted(order)


def test_decodings_are_not_mixed():
    sampled = read_generation_settings({"protocol": "sampled", "do_sample": True})
    mixed = [Plan(0, 1.0), Plan(1, 1.0, settings=sampled), Plan(2, 1.0)]
    assert [[p.index for p in batch] for batch in BatchPlanner(8).batches(mixed)] == [[0, 2], [1]]


class Small(ScriptedModel):
    """Runs out of memory on more than `room` samples of padded audio."""

    def __init__(self, room, error):
        super().__init__()
        self.room, self.error = room, error

    def generate(self, requests, decoding):
        if max(len(r.audio) for r in requests) * len(requests) > self.room:
            raise self.error("no memory left")
        return super().generate(requests, decoding)


def _errors():
    import torch

    return [MemoryError, torch.OutOfMemoryError]


@pytest.mark.parametrize("error", _errors())
def test_running_out_of_memory_halves_the_batch_and_the_budget(tmp_path, error):
    model = Small(room=16_000, error=error)
    lm = harness.RbaSpeechLM(model=model, batch_size=10)
    task = harness.load_task(write_task(tmp_path, "covost2"))
    before = lm.planner.seconds
    answers = [a for some in lm.stream(harness.build_requests(task, None, lm)) for a in some.answers]
    assert len(answers) == 10 and {a.generation.status for a in answers} == {"ok"}
    assert lm.planner.seconds < before and max(len(batch) for batch in model.batches) <= 3


def test_a_clip_that_never_fits_is_an_error_of_its_item(tmp_path):
    lm = harness.RbaSpeechLM(model=Small(room=5000, error=MemoryError), batch_size=4)
    task = harness.load_task(write_task(tmp_path, "triviaqa"))
    answers = [a for some in lm.stream(harness.build_requests(task, None, lm)) for a in some.answers]
    failed = [a.generation for a in answers if a.generation.status == "error"]
    assert len(answers) == 6 and 0 < len(failed) < 6 and "out of memory" in failed[0].error


class Streaming(ScriptedModel):
    """As an endpoint: answers in another order, one at a time."""

    streams = True

    def stream(self, requests, decoding):
        self.batches.append(list(requests))
        for index in reversed(range(len(requests))):
            yield index, Generation(requests[index].transcript, 1, "ok")


def test_answers_of_a_streaming_model_come_one_by_one_and_to_the_right_item(tmp_path):
    lm = harness.RbaSpeechLM(model=Streaming())
    task = harness.load_task(write_task(tmp_path, "triviaqa"))
    requests = harness.build_requests(task, None, lm)
    found = list(lm.stream(requests, frozenset({0})))
    assert [len(some.answers) for some in found] == [1] * 5
    assert {a.index: a.text for some in found for a in some.answers} == {
        i: task.eval_docs[i]["instruction"] for i in range(1, 6)
    }
