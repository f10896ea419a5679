"""The callback between steps: step log, display, validation, and the stop on a signal or when the time is up."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rba_bench.training.callbacks.display import Board
from rba_bench.training.callbacks.run_files import RunFiles
from rba_bench.training.model.sharding import any_process
from rba_bench.training.model.trainable_parts import rates_at

if TYPE_CHECKING:
    from rba_bench.training.trainer import AlignmentTrainer
    from rba_bench.training.validation import Validator


# SIGHUP: the terminal is gone; SIGUSR1: what SLURM sends before the time is up. Windows has neither.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
ECHO_S = 2.0  # Ctrl-C reaches a process from the terminal and, a moment later, from its launcher


class Interrupt:
    """Turns the first Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 into a request to stop after the step; a later one stops now.

    A signal that is ignored stays so (`nohup` does that to SIGHUP). Outside the main thread signals cannot be caught;
    then nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._at > ECHO_S:
                raise KeyboardInterrupt
            return
        self.requested, self._at = True, time.monotonic()
        # not through the console: a signal may arrive while it is writing
        os.write(2, b"\nstopping and saving after this step; once more stops at once, without saving\n")


@dataclass(eq=False)
class TrainingCallback(TrainerCallback):
    """The run's callback.

    Attributes:
        trainer: the run's; add the callback to it.
        validator: validates; None where the run has no validation.
        interrupt: asks for a stop.
        files: what the run writes; None on processes that do not write.
        display: where figures are shown; None for nowhere.
        interrupted: whether a signal, and nothing else, has ended the run.
    """

    trainer: "AlignmentTrainer"
    validator: "Validator | None" = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    files: RunFiles | None = None
    display: Board | None = None
    interrupted: bool = field(default=False, init=False)
    _since: float = field(default=0.0, init=False)
    _encoded: float = field(default=0.0, init=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Validate before the first step; start the clock."""
        if state.global_step == 0 and self.trainer.recipe.validate_ends:
            self._validate(0)
            self._answer(0)
        self._restart_clock()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the step; validate if it is due; stop and save on a signal, without patience, or out of time."""
        trainer, recipe, step = self.trainer, self.trainer.recipe, state.global_step
        encoding = trainer.rollout_buffer.store.seconds - self._encoded
        seconds = time.monotonic() - self._since
        trainer.encoding_s += encoding
        trainer.elapsed_s += seconds - encoding
        self._restart_clock()
        trainer.after_step(step)
        record = {
            "step": step,
            **trainer.take_metrics(),
            # the scheduler has moved on to the next step by now
            **rates_at(step - 1, recipe, trainer.fresh_from),
            "elapsed_s": round(trainer.elapsed_s, 3),
        }
        if self.display is not None:
            self.display.step(record, seconds)
        late = recipe.budget_s is not None and any_process(trainer.elapsed_s >= recipe.budget_s)
        last = late or step >= state.max_steps
        due = bool(recipe.eval_every) and step % recipe.eval_every == 0
        if due or (last and recipe.validate_ends):
            record |= self._validate(step)
        patient = self.validator is None or not (due and self.validator.exhausted)
        if recipe.validate_ends and (last or not patient):
            self._answer(step)
        stop = any_process(self.interrupt.requested)
        self.interrupted = stop and patient and not last
        if stop or late or not patient:
            control.should_training_stop = True
            control.should_save = True
        if recipe.report_to:  # TensorBoard or Weights & Biases
            numbers = {name: value for name, value in record.items() if name != "step"}
            trainer.callback_handler.on_log(args, state, control, numbers)
        groups = trainer.rollout_buffer.take_records()
        if self.files is None:
            return
        if groups:
            self.files.samples.write(*groups)  # before the checkpoint that a resumed run starts from
        self.files.log.add(record)
        if control.should_save or step % recipe.log_every == 0:
            self.files.log.flush()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restart the clock: saving is not training time."""
        self._restart_clock()

    def _validate(self, step: int) -> dict[str, Any]:
        """The figures of a validation; validation is not training time."""
        if self.validator is None:
            return {}
        figures = self.validator(step)
        if self.display is not None:
            self.display.validated(step, figures)
        if self.files is not None:
            self.files.validation.write({"step": step, **figures})
        self._restart_clock()
        return figures

    def _answer(self, step: int) -> None:
        """Write down how the policy answers held-out items now."""
        if self.validator is None:
            return
        answers = self.validator.answers()
        if self.files is not None:
            self.files.validation.write({"step": step, "answers": answers})
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._since, self._encoded = time.monotonic(), self.trainer.rollout_buffer.store.seconds
