"""How `gpu.py` times the steps of a trainer."""

import time
from typing import Any


def synchronize(device: str) -> None:
    """Wait for the device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


class Clock:
    """Times whole optimiser steps of a trainer, and what of them goes into rollout and encoder.

    Args:
        trainer: the trainer.
        store: its clips.
        device: `cuda` or `cpu`.
        deadline: when no further step is begun.
        counts: count the operations of the second step.
    """

    def __init__(self, trainer: Any, store: Any, device: str, deadline: float, counts: bool = True) -> None:
        self.trainer, self.store, self.device, self.deadline, self.counts = (
            trainer, store, device, deadline, counts,
        )  # fmt: skip
        self.steps = 0
        self.flops = 0
        self.rollout_s = 0.0
        self.timed: list[tuple[float, float, float]] = []  # step, rollout, encoder
        self._since = (time.perf_counter(), 0.0, 0.0)
        self._counter: Any = None
        plain = trainer.rollout_buffer.draw

        def draw(*given: Any) -> None:
            synchronize(device)
            at, encoded = time.perf_counter(), store.seconds
            plain(*given)
            synchronize(device)
            self.rollout_s += time.perf_counter() - at - (store.seconds - encoded)

        trainer.rollout_buffer.draw = draw

    def callback(self) -> Any:
        """What the trainer calls after each step."""
        from transformers import TrainerCallback

        clock = self

        class Timer(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if clock.step_is_last():
                    control.should_training_stop = True

        return Timer()

    def step_is_last(self) -> bool:
        """Note a step; whether the time is up."""
        from torch.utils.flop_counter import FlopCounterMode

        synchronize(self.device)
        now = (time.perf_counter(), self.rollout_s, self.store.seconds)
        step = tuple(after - before for after, before in zip(now, self._since, strict=True))
        self.steps += 1
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.flops, self._counter = self._counter.get_total_flops(), None
        elif self.steps > 1:
            self.timed.append(step)  # type: ignore[arg-type]
        if self.counts and self.steps == 1:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()
        self._since = (time.perf_counter(), self.rollout_s, self.store.seconds)
        enough = bool(self.timed) or not self.counts
        return enough and time.perf_counter() + step[0] > self.deadline

    def result(self, clips: int) -> dict[str, Any]:
        """Means over the timed steps."""
        step, rollout, encoder = (sum(part) / len(self.timed) for part in zip(*self.timed, strict=True))
        return {
            "step_s": step,
            "rollout_s": rollout,
            "encoding_s": encoder,
            "clips_per_s": clips / step,
            "tflop_a_step": self.flops / 1e12,
            "tflops": self.flops / 1e12 / step,
            "steps": len(self.timed),
        }
