"""What happens between steps: the step log, what is shown, validating, stopping on request or when the time is up."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rba_bench.training.callbacks.display import Display, NoDisplay
from rba_bench.training.callbacks.run_files import RunFiles, Watch
from rba_bench.training.model.checkpoints import STATE
from rba_bench.training.model.trainable_parts import rates_at
from rba_bench.training.rollouts.rollout import RolloutUnavailable

if TYPE_CHECKING:
    from rba_bench.training.trainer import AlignmentTrainer


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
                if signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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


class TrainingCallback(TrainerCallback):
    """The run's callback.

    Args:
        interrupt: asks for a stop.
        watch: validates; None where nothing is held out, or nobody wants it.

    Attributes:
        files: what the run writes, None on processes that do not.
        display: where figures are shown.
        trainer: set once it exists.
    """

    def __init__(self, interrupt: Interrupt, watch: Watch | None = None) -> None:
        self.interrupt = interrupt
        self.watch = watch
        self.files: RunFiles | None = None
        self.display: Display = NoDisplay()
        self.interrupted = False
        self.trainer: AlignmentTrainer | None = None
        self._since = 0.0
        self._encoded = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the policy before the first step; start the clock."""
        if state.global_step == 0 and self._trainer().recipe.validate_ends:
            self._validate(0)
            self._answer(0)
        self._restart()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step; validate if it is time; stop and save if asked to or out of time."""
        trainer, recipe, step = self._trainer(), self._trainer().recipe, state.global_step
        spent = self._clock()
        trainer.after_step(step)
        record = {
            "step": step,
            **trainer.take_metrics(),
            # the scheduler has moved on to the next step by now
            **rates_at(step - 1, recipe, trainer.fresh_from),
            "elapsed_s": round(trainer.elapsed_s, 3),
        }
        self.display.step(record, spent)
        late = recipe.budget_s is not None and trainer.agree(trainer.elapsed_s >= recipe.budget_s)
        last = late or step >= state.max_steps
        due = bool(recipe.eval_every) and step % recipe.eval_every == 0
        if due or (last and recipe.validate_ends):
            record |= self._validate(step)
        patient = self.watch is None or not (due and self.watch.exhausted)
        if recipe.validate_ends and (last or not patient):
            self._answer(step)
        asked = trainer.agree(self.interrupt.requested)
        self.interrupted = asked and patient and not last
        if asked or late or not patient:
            control.should_training_stop = True
            control.should_save = True
        self._write(record, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Saving is not training time either."""
        self._restart()

    def _validate(self, step: int) -> dict[str, Any]:
        """The figures of a validation; watching is not training."""
        if self.watch is None:
            return {}
        figures = self.watch.validator(step)
        self.display.validated(step, figures)
        if self.files is not None:
            self.files.validation.write({"step": step, **figures})
        self._restart()
        return figures

    def _answer(self, step: int) -> None:
        """Write down what held-out items are answered now."""
        if self.watch is None:
            return
        answers = self.watch.ends()
        if self.files is not None:
            self.files.validation.write({"step": step, "answers": answers})
        self._restart()

    def _write(self, record: dict[str, Any], state: TrainerState, control: TrainerControl) -> None:
        trainer = self._trainer()
        if trainer.recipe.report_to:
            trainer.report({name: value for name, value in record.items() if name != "step"})
        shown = trainer.rollout_buffer.take_told()
        if self.files is None:
            return
        if shown:
            self.files.samples.write(*shown)  # before the checkpoint that a resumed run starts from
        self.files.log.add(record)
        if control.should_save or state.global_step % trainer.recipe.log_every == 0:
            self.files.log.flush()

    def _clock(self) -> float:
        """Add the time since the last look to the trainer's account; the seconds, with those spent on encoding."""
        trainer = self._trainer()
        encoding = trainer.rollout_buffer.store.seconds - self._encoded
        spent = time.monotonic() - self._since
        trainer.encoding_s += encoding
        trainer.elapsed_s += spent - encoding
        self._restart()
        return spent

    def _restart(self) -> None:
        self._since, self._encoded = time.monotonic(), self._trainer().rollout_buffer.store.seconds

    def _trainer(self) -> "AlignmentTrainer":
        if self.trainer is None:
            raise RuntimeError("the callback was not given its trainer")
        return self.trainer


def saved_first(trainer: "AlignmentTrainer", error: RolloutUnavailable) -> RolloutUnavailable:
    """Save the run between two steps, for lack of answers to go on with, and say from where it goes on.

    Args:
        trainer: which has finished a step, and begun no other.
        error: who does not answer.
    """
    step = trainer.state.global_step
    trainer.saver.wait()
    if step and not (Path(trainer.args.output_dir) / f"checkpoint-{step}" / STATE).is_file():
        trainer._save_checkpoint(trainer.model, None)
        trainer.saver.wait()
    return RolloutUnavailable(f"{error}: start it again; the same command then goes on from step {step}")
