"""lm-eval (0.4.12 to 0.4.x): our model as its `LM`, and tasks as it builds them. No other module touches lm-eval.

`RbaSpeechLM` is what stock `lm_eval --model rba-speechlm` runs. `rba-bench eval` drives the same class over the same
`Instance`s, so both send the same prompts, the same audio and the same seeds. It avoids the faults of lm-eval's own
audio path: clips are decoded lazily, one batch ahead; partial results are cached under the whole request, audio
included; batches hold clips of similar length.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from rba_bench.audio import perturbations
from rba_bench.audio.clips import AudioError
from rba_bench.errors import UserError
from rba_bench.evaluation import model_input, outcomes
from rba_bench.evaluation.audio_control import exchanged_audio, refuse_reader, requested_control
from rba_bench.evaluation.model_input import AnswerBatch, PlannedRequest, load_wave
from rba_bench.evaluation.records import UNANSWERED
from rba_bench.speechlm.speech_model import SAMPLING_RATE, SpeechLM, SpeechRequest
from rba_bench.textlm.text_model import Decoding, Generation

MODEL_NAME = "rba-speechlm"
BATCH_SIZE = 32
WINDOW = 512  # items
SECONDS_PER_CLIP = 12.0  # the default budget is as many of such clips as the batch size says
SMALLEST_BUDGET = 1.0


class BatchPlanner:
    """Cuts requests into batches by number of clips and seconds of audio; learns from running out of memory.

    Sorting a whole set by length would read its files in random order, and a parquet file can only be read in groups of
    rows. So a window of a few hundred neighbours is sorted, and batches are cut where the padded audio reaches the
    budget.

    Args:
        batch_size: Most clips in a batch.
        batch_seconds: Most audio in a batch, padding included; by default 12 s for each clip of the batch size.

    Attributes:
        seconds: The budget at present.
    """

    def __init__(self, batch_size: int, batch_seconds: float | None = None) -> None:
        self.batch_size = batch_size
        self.seconds = batch_seconds or batch_size * SECONDS_PER_CLIP
        self._lock = threading.Lock()

    def batches(self, requests: Sequence[PlannedRequest]) -> Iterator[list[PlannedRequest]]:
        """Batches of one decoding each. Lazily, so that a smaller budget holds from the next batch on."""
        size = max(WINDOW, self.batch_size)
        for same_decoding in by_decoding(requests).values():
            for first in range(0, len(same_decoding), size):
                window = same_decoding[first : first + size]
                # Longest first: memory peaks at once. Requests for one clip are neighbours, so it is encoded once.
                ordered = sorted(window, key=lambda request: (-request.duration, request.key, request.index))
                start = 0
                while start < len(ordered):
                    longest = max(ordered[start].duration, 0.1)
                    n = max(1, min(self.batch_size, int(self.seconds / longest)))
                    yield ordered[start : start + n]
                    start += n

    def halve(self, requests: Sequence[SpeechRequest]) -> None:
        """Memory ran out on these requests: keep to half of their padded audio from now on."""
        lengths = [0 if request.audio is None else len(request.audio) for request in requests]
        seconds = max(lengths) / SAMPLING_RATE * len(requests)
        with self._lock:
            self.seconds = max(SMALLEST_BUDGET, min(self.seconds, seconds) / 2)


def by_decoding(requests: Sequence[PlannedRequest]) -> dict[Decoding, list[PlannedRequest]]:
    """Requests by their decoding: one call of a model has one."""
    groups: dict[Decoding, list[PlannedRequest]] = {}
    for request in requests:
        groups.setdefault(request.settings.decoding, []).append(request)
    return groups


class RbaSpeechLM(LM):
    """A speech language model under lm-eval.

    Args:
        pretrained: Checkpoint folder, or a name that `speechlm.model_names.load_speech_model` knows (`base`, `text`,
            `cascade`, `constant`).
        batch_size: Clips per batch; "auto" is 32.
        device: Torch device; by default a GPU if there is one.
        batch_seconds: Most audio per batch in seconds, padding included; halved whenever memory runs out.
        perturb: What is done to every clip before the model gets it, such as `noise=10dB,telephone`.
        audio_control: What takes the speech away, such as `silence`; `shuffle` under `rba-bench eval` alone.
        model: A loaded model instead of `pretrained`.
        model_options: Passed on to the loader: `true_length`, `encoder_cache`, `trust_remote_code`,
            `template` (`enable_thinking=false`).

    Raises:
        MissingPrerequisite: the checkpoint does not exist.
        UserError: an option that is not valid, or a control for a model that takes no audio.
    """

    MULTIMODAL = True

    def __init__(
        self,
        pretrained: str = "base",
        batch_size: int | str | None = BATCH_SIZE,
        device: str | None = None,
        max_batch_size: int | None = None,
        batch_seconds: float | None = None,
        perturb: str = "",
        audio_control: str = "",
        model: SpeechLM | None = None,
        **model_options: Any,
    ) -> None:
        super().__init__()
        del max_batch_size  # lm-eval passes it to every model; there is no search for a batch size here
        # Data parallelism under `torchrun` or `accelerate launch`: lm-eval gives every rank its share of the items
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._rank = int(os.environ.get("RANK", "0")) if self._world_size > 1 else 0
        self._device = "cpu"  # of the counters that lm-eval gathers; the model has its own
        if self._world_size > 1:
            import torch.distributed as dist

            if not dist.is_initialized():
                dist.init_process_group("gloo")
        self.batch_size = BATCH_SIZE if batch_size in (None, "auto") else int(str(batch_size))
        if self.batch_size < 1:
            raise UserError(f"batch size must be at least 1, not {batch_size}")
        self.planner = BatchPlanner(self.batch_size, batch_seconds)
        self.perturbation = perturbations.parse_perturbation(perturb) if perturb else None
        self.control = requested_control(audio_control, perturb)
        self.pretrained = str(pretrained)
        self.device_name = device or _default_device()
        if model is None:
            from rba_bench.speechlm.model_names import load_speech_model

            model = load_speech_model(
                self.pretrained, batch_size=self.batch_size, device=self.device_name, **model_options
            )
        self.model = model
        if model.reads_transcript:
            refuse_reader(self.control, self.pretrained)

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
        """Answers in the order of the requests; each is cached the moment its batch is done.

        Raises:
            RbaError: too little was answered for a score, see `outcomes.check_answers`.
        """
        from tqdm import tqdm

        texts = [""] * len(requests)
        item_outcomes: list[outcomes.ItemOutcome] = []
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm or self.rank != 0) as progress:
            for batch in self.stream(self.plan(requests)):
                for answer in batch.answers:
                    texts[answer.index] = answer.text
                    status, error = answer.generation.status, answer.generation.error
                    item_outcomes.append(outcomes.item_outcome(status, answer.text, error))
                    if status not in UNANSWERED:
                        args = requests[answer.index].args
                        self.cache_hook.add_partial("generate_until", args, answer.text)
                progress.update(len(batch.answers))
        outcomes.check_answers(MODEL_NAME, item_outcomes)
        return texts

    def plan(self, instances: Any, played: Mapping[int, Any] | None = None) -> list[PlannedRequest]:
        """See `model_input.plan_requests`. Raises UserError where clips are to be exchanged and are not `played`."""
        if self.control is not None and self.control.exchanges and played is None:
            raise UserError("clips are exchanged in whole test sets: use `rba-bench eval --audio shuffle`")
        identity = self.perturbation.identity() if self.perturbation else None
        return model_input.plan_requests(instances, identity, self.control, played)

    def stream(
        self, requests: Sequence[PlannedRequest], done: Collection[int] = frozenset()
    ) -> Iterator[AnswerBatch]:
        """Answers as they come, without those `done` (positions among the requests).

        Clips are read one batch ahead. A model that runs out of memory gets the batch again in halves, and smaller
        batches from then on.
        """
        waiting = [request for request in requests if request.index not in done]
        if self.model.streams:
            # Servers: each answer on its own the moment it arrives; a clip is read when it is about to be sent
            for decoding, group in by_decoding(waiting).items():
                started = time.perf_counter()
                for index, generation in self.model.stream(_LazyRequests(group, self._read_clip), decoding):
                    now = time.perf_counter()
                    yield AnswerBatch([group[index].answer(generation)], now - started, 0.0, {})
                    started = now
            return
        with ThreadPoolExecutor(1) as reader:
            batches = self.planner.batches(waiting)
            upcoming = next(batches, None)
            reading = reader.submit(self._read_batch, upcoming) if upcoming else None
            while upcoming is not None and reading is not None:
                started = time.perf_counter()
                batch, clips = upcoming, reading.result()
                io_s = time.perf_counter() - started
                upcoming = next(batches, None)
                reading = reader.submit(self._read_batch, upcoming) if upcoming else None
                yield self._answer_batch(batch, clips, started, io_s)

    def _answer_batch(
        self,
        batch: list[PlannedRequest],
        clips: list[SpeechRequest | AudioError],
        started: float,
        io_s: float,
    ) -> AnswerBatch:
        """Answers to a batch; a clip without usable sound makes its item `not_heard`."""
        clock = self.model.clock
        before = {} if clock is None else dict(clock.seconds)
        usable = [clip for clip in clips if not isinstance(clip, AudioError)]
        generations = iter(self._generate(usable, batch[0].settings.decoding))
        answers = []
        for request, clip in zip(batch, clips, strict=True):
            unheard = Generation("", 0, "not_heard", str(clip)) if isinstance(clip, AudioError) else None
            answers.append(request.answer(unheard or next(generations)))
        after = {} if clock is None else clock.seconds
        stages = {name: spent - before.get(name, 0.0) for name, spent in after.items()}
        return AnswerBatch(answers, time.perf_counter() - started, io_s, stages)

    def _generate(self, requests: list[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """The model's answers, in halves where memory runs out, on a GPU or off."""
        import torch

        if not requests:
            return []
        try:
            return self.model.generate(requests, decoding)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if len(requests) == 1:
                return [Generation("", 0, "error", f"out of memory: {str(error).splitlines()[0]}")]
        self.planner.halve(requests)
        half = len(requests) // 2
        return self._generate(requests[:half], decoding) + self._generate(requests[half:], decoding)

    def _read_batch(self, batch: Sequence[PlannedRequest]) -> list[SpeechRequest | AudioError]:
        """Decode the clips of a batch and extract their features, in the reading thread; a damaged file raises."""
        clips: list[SpeechRequest | AudioError] = []
        for request in batch:
            try:
                clips.append(self._read_clip(request))
            except AudioError as error:
                clips.append(error)
        self.model.prepare([clip for clip in clips if not isinstance(clip, AudioError)])
        return clips

    def _read_clip(self, request: PlannedRequest) -> SpeechRequest:
        audio = None
        if not self.model.reads_transcript:
            if request.audio is None:
                raise AudioError("the item has no clip")
            audio = load_wave(request.audio)
            if self.perturbation is not None:
                content = request.key.partition("|")[0]  # the clip alone seeds its noise
                audio = self.perturbation.apply(audio, content)
            audio = self.control.apply(audio) if self.control else audio
        spoken = model_input.spoken_text(request.audio)
        return SpeechRequest(audio, spoken, request.prompt, request.seed, request.key)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: no task here asks for it. Raises UserError."""
        raise UserError(f"{MODEL_NAME} answers `generate_until` tasks; this task asks for log-likelihoods")

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not offered, see `loglikelihood`. Raises UserError."""
        raise UserError(
            f"{MODEL_NAME} answers `generate_until` tasks; this task asks for rolling log-likelihoods"
        )

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


class _LazyRequests(Sequence[SpeechRequest]):
    """Requests whose clips are read on access, so that only those being answered are in memory."""

    def __init__(
        self, requests: Sequence[PlannedRequest], read: Callable[[PlannedRequest], SpeechRequest]
    ) -> None:
        self._requests, self._read = requests, read

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: Any) -> Any:
        return self._read(self._requests[index])


def _default_device() -> str:
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def register() -> None:
    """Make lm-eval know `--model rba-speechlm`. Safe to call again."""
    import lm_eval.models  # noqa: F401 - lm-eval loads its own models only into an empty registry, so before ours
    from lm_eval.api.registry import model_registry

    if model_registry.get(MODEL_NAME, None) is None:
        model_registry.register(MODEL_NAME, target=RbaSpeechLM)


def load_task(path: Path, seed: int | None = None, metadata: dict[str, Any] | None = None) -> Any:
    """The lm-eval `Task` of one YAML file, as stock `lm_eval --tasks <path>` builds it.

    Args:
        path: Task YAML.
        seed: Replaces the seed in `generation_kwargs`, as `--gen_kwargs seed=...` would.
        metadata: As `lm_eval --metadata`: `data_dir`, `baseline`.

    Raises:
        UserError: the file is not one task that generates text.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of defaults that are meant
    loaded = TaskManager(include_defaults=False, metadata=metadata).load([str(path)])
    if len(loaded["tasks"]) != 1 or loaded["groups"]:
        raise UserError(f"{path} is not a single task")
    task = next(iter(loaded["tasks"].values()))
    if task.OUTPUT_TYPE != "generate_until":
        raise UserError(f"{path}: output_type is {task.OUTPUT_TYPE}, this harness runs generate_until")
    task.set_config(key="num_fewshot", value=task.get_config("num_fewshot") or 0)
    if seed is not None:
        task.set_config(key="generation_kwargs", value={"seed": seed}, update=True)
    return task


def build_requests(task: Any, limit: int | None, lm: RbaSpeechLM) -> list[PlannedRequest]:
    """This rank's requests, each built by lm-eval from its document; neither is kept, so large sets stay small."""
    exchanges = lm.control is not None and lm.control.exchanges
    played = exchanged_audio(list(task.eval_docs), task.config.task) if exchanges else None
    return lm.plan(_instances(task, limit, lm), played)


def _instances(task: Any, limit: int | None, lm: RbaSpeechLM) -> Iterator[Instance]:
    """What `Task.build_all_requests` makes, one at a time."""
    for doc_id, doc in task.doc_iterator(rank=lm.rank, limit=limit, world_size=lm.world_size):
        context = task.fewshot_context(
            doc, num_fewshot=task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(doc)
        )
        metadata = (task.config.task, doc_id, task.config.repeats)
        instances = task.construct_requests(doc=doc, ctx=context, metadata=metadata)
        yield from instances if isinstance(instances, list) else [instances]
