"""The one module that touches lm-eval (0.4.12 to 0.4.x): our model as an `LM`, and tasks as lm-eval builds them.

`RbaSpeechLM` is what stock `lm_eval --model rba-speechlm` runs. `rba-bench eval` drives the same class over the same
`Instance`s, so both send the same prompts, the same audio and the same seeds. What lm-eval's own audio path gets wrong
and this one does not: clips are decoded lazily, one batch ahead; partial results are cached under the whole request,
audio included; batches hold clips of like length.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from rba_bench.audio.clips import AudioError
from rba_bench.errors import UserError
from rba_bench.evaluation import clip_input
from rba_bench.evaluation.decoding import Settings, cut, settings
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.base import SpeechLM, SpeechRequest
from rba_bench.textlm.base import Generation

MODEL_NAME = "rba-speechlm"
BATCH_SIZE = 32


@dataclass(frozen=True)
class Answer:
    """Answer to the request at position `index`; `latency_s` is its share of the batch's wall time."""

    index: int
    text: str
    generation: Generation
    seed: int
    latency_s: float


class RbaSpeechLM(LM):
    """A speech language model under lm-eval.

    Args:
        pretrained: Checkpoint folder, or a name that `speechlm.load` knows (`base`, `text`, `cascade`, `constant`).
        batch_size: Clips per batch; "auto" is 32.
        device: Torch device; by default a GPU if there is one.
        model: A loaded model instead of `pretrained`.

    Raises:
        MissingPrerequisite: the checkpoint does not exist.
    """

    MULTIMODAL = True

    def __init__(
        self,
        pretrained: str = "base",
        batch_size: int | str | None = BATCH_SIZE,
        device: str | None = None,
        max_batch_size: int | None = None,
        model: SpeechLM | None = None,
    ) -> None:
        super().__init__()
        del max_batch_size  # lm-eval passes it to every model; there is no search for a batch size here
        self._join_process_group()
        self.batch_size = BATCH_SIZE if batch_size in (None, "auto") else int(str(batch_size))
        if self.batch_size < 1:
            raise UserError(f"batch size must be at least 1, not {batch_size}")
        self.pretrained = str(pretrained)
        self.device_name = device or _default_device()
        if model is None:
            from rba_bench.speechlm.load import load

            model = load(self.pretrained, batch_size=self.batch_size, device=self.device_name)
        self.model = model

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "RbaSpeechLM":
        """As lm-eval's, but `--model_args batch_size=...` wins over the flag's default instead of clashing with it.

        lm-eval's default for `--device` is "cuda:0" on every machine; where there is no GPU it means nothing.
        """
        extra = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(extra.get("device", "")).startswith("cuda") and _default_device() == "cpu":
            del extra["device"]
        return cls(**{**extra, **arg_dict})

    def get_model_info(self) -> dict[str, Any]:
        """Identity of the model, shown in lm-eval's results."""
        return {"identity": self.model.identity()}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers in the order of the requests; each is cached the moment its batch is done."""
        from tqdm import tqdm

        texts = [""] * len(requests)
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm or self.rank != 0) as progress:
            for batch in self.stream(requests):
                for answer in batch:
                    texts[answer.index] = answer.text
                    self.cache_hook.add_partial("generate_until", requests[answer.index].args, answer.text)
                progress.update(len(batch))
        return texts

    def stream(
        self, requests: Sequence[Instance], done: frozenset[int] = frozenset()
    ) -> Iterator[list[Answer]]:
        """Answer batch by batch, longest clips first.

        The batches are planned over *all* requests and then thinned by those `done`, so a resumed run makes the same
        batches.
        """
        planned = [_Planned.of(index, request) for index, request in enumerate(requests)]
        _number_repeats(planned)
        batches = [
            batch
            for whole in _batches(planned, self.batch_size)
            if (batch := [plan for plan in whole if plan.index not in done])
        ]
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(_read, batches[0]) if batches else None
            for position, batch in enumerate(batches):
                assert following is not None
                clips = following.result()
                if position + 1 < len(batches):
                    following = reader.submit(_read, batches[position + 1])
                yield self._answer(batch, clips)

    def _answer(self, batch: "list[_Planned]", clips: list[SpeechRequest | AudioError]) -> list[Answer]:
        started = time.perf_counter()
        usable = [clip for clip in clips if not isinstance(clip, AudioError)]
        generated = iter(self.model.generate(usable, batch[0].settings.decoding) if usable else ())
        results = [
            Generation("", 0, "error", str(clip)) if isinstance(clip, AudioError) else next(generated)
            for clip in clips
        ]
        latency = (time.perf_counter() - started) / len(batch)
        return [
            Answer(plan.index, cut(result.text, plan.settings.until), result, plan.seed, latency)
            for plan, result in zip(batch, results, strict=True)
        ]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: no task here asks for it. Raises UserError."""
        raise UserError(f"{MODEL_NAME} answers `generate_until` tasks; this task asks for log-likelihoods")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not offered, see `loglikelihood`. Raises UserError."""
        raise UserError(
            f"{MODEL_NAME} answers `generate_until` tasks; this task asks for rolling log-likelihoods"
        )

    def _join_process_group(self) -> None:
        """Data parallelism under `torchrun` or `accelerate launch`: lm-eval gives every rank its share of the items."""
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._rank = int(os.environ.get("RANK", "0")) if self._world_size > 1 else 0
        self._device = "cpu"  # of the counters that lm-eval gathers; the model has its own
        if self._world_size > 1:
            import torch.distributed as dist

            if not dist.is_initialized():
                dist.init_process_group("gloo")

    def all_gather(self, tensor: Any) -> Any:
        """Tensors of all ranks, stacked."""
        if self._world_size == 1:
            return tensor
        import torch
        import torch.distributed as dist

        parts = [torch.zeros_like(tensor) for _ in range(self._world_size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Objects of all ranks on rank `dst`, None elsewhere."""
        if self._world_size == 1:
            return [obj]
        import torch.distributed as dist

        parts: list[Any] | None = [None] * self._world_size if self._rank == dst else None
        dist.gather_object(obj, parts, dst=dst)
        return parts

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self._world_size > 1:
            import torch.distributed as dist

            dist.barrier()


@dataclass
class _Planned:
    """A request as it will be sent; its seed depends on what it asks, not on where or when."""

    index: int
    prompt: str
    audio: Any
    settings: Settings
    duration: float
    seed: int = 0

    @classmethod
    def of(cls, index: int, request: Instance) -> "_Planned":
        prompt, kwargs, media = (*request.args, {})[:3]
        clips = media.get("audio") if isinstance(media, dict) else None
        clips = clips if isinstance(clips, list) else [clips]
        if len(clips) != 1 or clips[0] is None:
            raise UserError(f"{request.task_name}: expected one clip per item, found {len(clips)}")
        return cls(index, prompt, clips[0], settings(kwargs), clip_input.duration(clips[0]))


def _number_repeats(planned: Sequence[_Planned]) -> None:
    """Seeds, in place. The same question asked again (lm-eval's `repeats`) draws another sample."""
    seen: Counter[tuple[str, str]] = Counter()
    for plan in planned:
        key = (plan.prompt, clip_input.content_key(plan.audio))
        plan.seed = stable_seed("eval", plan.settings.seed, *key, seen[key])
        seen[key] += 1


def _batches(planned: Sequence[_Planned], size: int) -> Iterator[list[_Planned]]:
    """Batches of one decoding each, clips of like length together."""
    by_decoding: dict[Any, list[_Planned]] = {}
    for plan in planned:
        by_decoding.setdefault(plan.settings.decoding, []).append(plan)
    for plans in by_decoding.values():
        ordered = sorted(plans, key=lambda plan: (-plan.duration, plan.index))
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _read(batch: Sequence[_Planned]) -> list[SpeechRequest | AudioError]:
    """Decode a batch. A clip without usable sound becomes its item's error; a damaged file ends the run."""
    read: list[SpeechRequest | AudioError] = []
    for plan in batch:
        try:
            audio = clip_input.wave(plan.audio)
        except AudioError as error:
            read.append(error)
            continue
        read.append(SpeechRequest(audio, clip_input.transcript(plan.audio), plan.prompt, plan.seed))
    return read


def _default_device() -> str:
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def register() -> None:
    """Make lm-eval know `--model rba-speechlm`. Safe to call again."""
    import lm_eval.models  # noqa: F401 - lm-eval loads its own models only into an empty registry, so before ours
    from lm_eval.api.registry import model_registry

    if model_registry.get(MODEL_NAME, None) is None:
        model_registry.register(MODEL_NAME, target=RbaSpeechLM)


def load_task(path: Path, seed: int | None = None) -> Any:
    """The lm-eval `Task` of one YAML file, as stock `lm_eval --tasks <path>` builds it.

    Args:
        path: Task YAML.
        seed: Replaces the seed in `generation_kwargs`, as `--gen_kwargs seed=...` would.

    Raises:
        UserError: the file is not one task that generates text.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of defaults that are meant
    loaded = TaskManager(include_defaults=False).load([str(path)])
    if len(loaded["tasks"]) != 1 or loaded["groups"]:
        raise UserError(f"{path} is not a single task")
    task = next(iter(loaded["tasks"].values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise UserError(f"{path}: output_type is {task.OUTPUT_TYPE}, this harness runs generate_until")
    task.set_config(key="num_fewshot", value=task.get_config("num_fewshot") or 0)
    if seed is not None:
        task.set_config(key="generation_kwargs", value={"seed": seed}, update=True)
    return task


def build_requests(task: Any, limit: int | None, lm: RbaSpeechLM) -> list[Instance]:
    """The requests of this rank, built by lm-eval."""
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()):  # lm-eval draws a bar for a loop that takes milliseconds
        task.build_all_requests(limit=limit, rank=lm.rank, world_size=lm.world_size)
    return list(task.instances)
