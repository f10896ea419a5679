"""What happens between steps: the step log, the progress bar, stopping on request or when the time is up."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rba_bench.files import JsonlAppender, read_jsonl, write_atomic

if TYPE_CHECKING:
    from rba_bench.training.trainer import AlignmentTrainer
    from rba_bench.training.validation import Validator


class StepLog:
    """`train_log.jsonl`: one record per optimiser step, written every few steps.

    Opening it for a run that resumes behind `step` drops the records of later steps: they will be made again.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [record for record in read_jsonl(path) if record["step"] <= step]
        write_atomic(path, "".join(_line(record) for record in kept))
        self._file = JsonlAppender(path)
        self._pending: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record for the next `flush`."""
        self._pending.append(record)

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._file.write(*self._pending)
            self._pending = []

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.flush()
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


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


class Keeper(TrainerCallback):
    """The run's callback.

    Args:
        log: the step log, None on processes that do not write it.
        advance: moves the progress bar.
        interrupt: asks for a stop.
        validator: compares the weights on held-out items every `eval_every` steps.
    """

    def __init__(
        self,
        log: StepLog | None,
        advance: Callable[[int], None],
        interrupt: Interrupt,
        validator: "Validator | None" = None,
    ) -> None:
        self.log = log
        self.advance = advance
        self.interrupt = interrupt
        self.validator = validator
        self.interrupted = False
        self.trainer: AlignmentTrainer | None = None  # set once the trainer exists
        self._since = 0.0
        self._encoded = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._restart()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step; validate if it is time; stop and save if asked to or out of time."""
        trainer, recipe = self._trainer(), self._trainer().recipe
        self._clock()
        trainer.after_step(state.global_step)
        record = {
            "step": state.global_step,
            **trainer.take_metrics(),
            "learning_rate": trainer.lr_scheduler.get_last_lr()[0],
            "elapsed_s": round(trainer.elapsed_s, 3),
        }
        patient = True
        if self.validator is not None and state.global_step % recipe.eval_every == 0:
            record |= self.validator(state.global_step)
            patient = not self.validator.exhausted
            self._restart()  # watching is not training
        asked = trainer.agree(self.interrupt.requested)
        late = recipe.budget_s is not None and trainer.agree(trainer.elapsed_s >= recipe.budget_s)
        self.interrupted = asked and patient and not late and state.global_step < state.max_steps
        if asked or late or not patient:
            control.should_training_stop = True
            control.should_save = True
        self._write(record, state, control)
        self.advance(1)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Saving is not training time either."""
        self._restart()

    def _write(self, record: dict[str, Any], state: TrainerState, control: TrainerControl) -> None:
        trainer = self._trainer()
        if trainer.recipe.report_to:
            trainer.report({name: value for name, value in record.items() if name != "step"})
        if self.log is None:
            return
        self.log.add(record)
        if control.should_save or state.global_step % trainer.recipe.log_every == 0:
            self.log.flush()

    def _clock(self) -> None:
        """Add the time since the last look to the trainer's account."""
        trainer = self._trainer()
        encoding = trainer.collector.store.seconds - self._encoded
        trainer.encoding_s += encoding
        trainer.elapsed_s += time.monotonic() - self._since - encoding
        self._restart()

    def _restart(self) -> None:
        self._since, self._encoded = time.monotonic(), self._trainer().collector.store.seconds

    def _trainer(self) -> "AlignmentTrainer":
        if self.trainer is None:
            raise RuntimeError("the keeper was not given its trainer")
        return self.trainer
