"""Which clips are answered together: windows of neighbours, like lengths inside a window, a budget of audio.

Sorting a whole set by length would read its files in random order, and a parquet file can only be read in groups of
rows. So a window of a few hundred neighbours is sorted, and batches are cut where the padded audio reaches the budget.

The one module that touches lm-eval (0.4.12 to 0.4.x): our model as an `LM`, and tasks as lm-eval builds them.

`RbaSpeechLM` is what stock `lm_eval --model rba-speechlm` runs. `rba-bench eval` drives the same class over the same
`Instance`s, so both send the same prompts, the same audio and the same seeds. What lm-eval's own audio path gets wrong
and this one does not: clips are decoded lazily, one batch ahead; partial results are cached under the whole request,
audio included; batches hold clips of like length.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from rba_bench.audio.clips import AudioError
from rba_bench.errors import UserError
from rba_bench.evaluation import model_input, outcomes
from rba_bench.evaluation.model_input import AnswerBatch, PlannedRequest
from rba_bench.evaluation.records import UNANSWERED
from rba_bench.files import canonical_json
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest
from rba_bench.textlm.text_model import Decoding, Generation

WINDOW = 512  # items
SECONDS_PER_CLIP = 12.0  # the default budget is as many of such clips as the batch size says
SMALLEST_BUDGET = 1.0


class Item(Protocol):
    """What is planned: a request with its place, length, content and decoding."""

    index: int
    duration: float
    key: str
    settings: Any


Plan = TypeVar("Plan", bound=Item)


class Planner:
    """Cuts batches; learns from running out of memory.

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

    def batches(self, planned: Sequence[Plan]) -> Iterator[list[Plan]]:
        """Batches of one decoding each. Lazily, so that a smaller budget holds from the next batch on."""
        by_decoding: dict[Any, list[Plan]] = {}
        for plan in planned:
            by_decoding.setdefault(plan.settings.decoding, []).append(plan)
        for plans in by_decoding.values():
            for window in windows(plans, max(WINDOW, self.batch_size)):
                # Longest first: memory peaks at once. Requests for one clip are neighbours, so it is encoded once.
                yield from self._cut(sorted(window, key=lambda p: (-p.duration, p.key, p.index)))

    def halve(self, requests: Sequence[Any]) -> None:
        """Memory ran out on these requests: keep to half of their padded audio from now on."""
        longest = max(len(request.audio) for request in requests) / 16_000
        with self._lock:
            self.seconds = max(SMALLEST_BUDGET, min(self.seconds, longest * len(requests)) / 2)

    def _cut(self, ordered: Sequence[Plan]) -> Iterator[list[Plan]]:
        start = 0
        while start < len(ordered):
            longest = max(ordered[start].duration, 0.1)
            n = max(1, min(self.batch_size, int(self.seconds / longest)))
            yield list(ordered[start : start + n])
            start += n


def windows(items: Sequence[Plan], size: int) -> Iterator[list[Plan]]:
    """`items` in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def out_of_memory() -> tuple[type[BaseException], ...]:
    """What is raised when memory runs out, on a GPU or off."""
    import torch

    return (torch.OutOfMemoryError, MemoryError)


MODEL_NAME = "rba-speechlm"
BATCH_SIZE = 32
UNHEARD = "unheard"  # in place of a content hash


class RbaSpeechLM(LM):
    """A speech language model under lm-eval.

    Args:
        pretrained: Checkpoint folder, or a name that `speechlm.load` knows (`base`, `text`, `cascade`, `constant`).
        batch_size: Clips per batch; "auto" is 32.
        device: Torch device; by default a GPU if there is one.
        batch_seconds: Most audio per batch in seconds, padding included; halved whenever memory runs out.
        perturb: What is done to every clip before the model hears it, such as `noise=10dB,telephone`.
        model: A loaded model instead of `pretrained`.
        model_options: Passed on to the loader: `true_length`, `encoder_cache`, `trust_remote_code`,
            `template` (`enable_thinking=false`).

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
        batch_seconds: float | None = None,
        perturb: str = "",
        model: SpeechLM | None = None,
        **model_options: Any,
    ) -> None:
        super().__init__()
        del max_batch_size  # lm-eval passes it to every model; there is no search for a batch size here
        self._join_process_group()
        self.batch_size = BATCH_SIZE if batch_size in (None, "auto") else int(str(batch_size))
        if self.batch_size < 1:
            raise UserError(f"batch size must be at least 1, not {batch_size}")
        self.planner = Planner(self.batch_size, batch_seconds)
        self.perturbation = _perturbation(perturb)
        self.pretrained = str(pretrained)
        self.device_name = device or _default_device()
        if model is None:
            from rba_bench.speechlm.model_names import load_speech_model

            model = load_speech_model(
                self.pretrained, batch_size=self.batch_size, device=self.device_name, **model_options
            )
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
        """Answers in the order of the requests; each is cached the moment its batch is done.

        Raises:
            RbaError: too little was answered for a score, see `outcomes.check_answers`.
        """
        from tqdm import tqdm

        texts = [""] * len(requests)
        found: list[outcomes.ItemOutcome] = []
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm or self.rank != 0) as progress:
            for together in self.stream(self.plan(requests)):
                for answer in together.answers:
                    texts[answer.index] = answer.text
                    generation = answer.generation
                    found.append(outcomes.item_outcome(generation.status, answer.text, generation.error))
                    if generation.status not in UNANSWERED:
                        self.cache_hook.add_partial(
                            "generate_until", requests[answer.index].args, answer.text
                        )
                progress.update(len(together.answers))
        outcomes.check_answers(MODEL_NAME, found)
        return texts

    def stream(
        self, requests: Sequence[PlannedRequest], done: Collection[int] = frozenset()
    ) -> Iterator[AnswerBatch]:
        """Answers as they come, without those `done` (positions among the requests).

        Clips are read one batch ahead. A model that runs out of memory gets the batch again in halves, and smaller
        batches from then on.
        """
        planned = [plan for plan in requests if plan.index not in done]
        if self.model.streams:
            yield from self._stream_single(planned)
            return
        with ThreadPoolExecutor(1) as reader:
            batches = self.planner.batches(planned)
            upcoming = next(batches, None)
            following = reader.submit(self._read, upcoming) if upcoming else None
            while upcoming is not None and following is not None:
                started = time.perf_counter()
                batch, clips = upcoming, following.result()
                io_s = time.perf_counter() - started
                upcoming = next(batches, None)
                following = reader.submit(self._read, upcoming) if upcoming else None
                yield self._answer(batch, clips, started, io_s)

    def plan(self, requests: Iterable[Instance]) -> list[PlannedRequest]:
        """The requests as they will be sent, seeds and content keys included. Instances are not kept."""
        damage = "|" + canonical_json(self.perturbation.identity()).decode() if self.perturbation else ""
        seen: Counter[tuple[str, str]] = Counter()
        planned = []
        for index, request in enumerate(requests):
            plan = PlannedRequest.of(index, request)
            plan.key = _content_key(plan.audio) + damage
            # The same question asked again (lm-eval's `repeats`) draws another sample.
            asked = (plan.prompt, plan.key)
            plan.seed = stable_seed("eval", plan.settings.seed, *asked, seen[asked])
            seen[asked] += 1
            planned.append(plan)
        return planned

    def _answer(
        self,
        batch: list[PlannedRequest],
        clips: list[SpeechRequest | AudioError],
        started: float,
        io_s: float,
    ) -> AnswerBatch:
        before = dict(self._stages())
        usable = [clip for clip in clips if not isinstance(clip, AudioError)]
        generated = iter(self._generate(usable, batch[0].settings.decoding))
        answers = [
            plan.answer(_unheard(clip) if isinstance(clip, AudioError) else next(generated))
            for plan, clip in zip(batch, clips, strict=True)
        ]
        stages = {name: spent - before.get(name, 0.0) for name, spent in self._stages().items()}
        return AnswerBatch(answers, time.perf_counter() - started, io_s, stages)

    def _generate(self, requests: list[SpeechRequest], decoding: Decoding) -> list[Generation]:
        if not requests:
            return []
        try:
            return self.model.generate(requests, decoding)
        except out_of_memory() as error:
            if len(requests) == 1:
                return [Generation("", 0, "error", f"out of memory: {str(error).splitlines()[0]}")]
        self.planner.halve(requests)
        half = len(requests) // 2
        return self._generate(requests[:half], decoding) + self._generate(requests[half:], decoding)

    def _stream_single(self, planned: list[PlannedRequest]) -> Iterator[AnswerBatch]:
        """For endpoints: each answer on its own the moment it arrives; a clip is read when it is about to be sent."""
        by_decoding: dict[Decoding, list[PlannedRequest]] = {}
        for plan in planned:
            by_decoding.setdefault(plan.settings.decoding, []).append(plan)
        for decoding, plans in by_decoding.items():
            started = time.perf_counter()
            for index, generation in self.model.stream(_Lazy(plans, self._read_one), decoding):
                now = time.perf_counter()
                yield AnswerBatch([plans[index].answer(generation)], now - started, 0.0, {})
                started = now

    def _stages(self) -> dict[str, float]:
        return self.model.clock.seconds if self.model.clock is not None else {}

    def _read(self, batch: Sequence[PlannedRequest]) -> list[SpeechRequest | AudioError]:
        """Decode a batch and extract its features, in the reading thread.

        A clip without usable sound makes its item `not_heard`; a damaged file ends the run.
        """
        read: list[SpeechRequest | AudioError] = []
        for plan in batch:
            try:
                read.append(self._read_one(plan))
            except AudioError as error:
                read.append(error)
        self.model.prepare([one for one in read if not isinstance(one, AudioError)])
        return read

    def _read_one(self, plan: PlannedRequest) -> SpeechRequest:
        reads = self.model.reads_transcript
        if plan.audio is None and not reads:
            raise AudioError("the item has no clip")
        audio = None if reads else model_input.load_wave(plan.audio)
        if audio is not None and self.perturbation is not None:
            audio = self.perturbation.apply(
                audio, plan.key.partition("|")[0]
            )  # the clip alone seeds its noise
        return SpeechRequest(audio, model_input.spoken_text(plan.audio), plan.prompt, plan.seed, plan.key)

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


def _perturbation(text: str) -> Any:
    if not text:
        return None
    from rba_bench.audio import perturbations

    return perturbations.parse_perturbation(text)


class _Lazy(Sequence[SpeechRequest]):
    """Requests whose clips are read on access, so that no more of them are in memory than are under way."""

    def __init__(
        self, plans: Sequence[PlannedRequest], read: Callable[[PlannedRequest], SpeechRequest]
    ) -> None:
        self._plans, self._read = plans, read

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: Any) -> Any:
        return self._read(self._plans[index])


def _content_key(audio: Any) -> str:
    """As `clip_input.content_key`; of a clip that cannot be heard, which has no content, a name."""
    try:
        return UNHEARD if audio is None else model_input.clip_key(audio)
    except AudioError:
        return UNHEARD


def _unheard(error: AudioError) -> Generation:
    return Generation("", 0, "not_heard", str(error))


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
    return lm.plan(_instances(task, limit, lm))


def _instances(task: Any, limit: int | None, lm: RbaSpeechLM) -> Iterator[Instance]:
    """What `Task.build_all_requests` makes, one at a time."""
    for doc_id, doc in task.doc_iterator(rank=lm.rank, limit=limit, world_size=lm.world_size):
        context = task.fewshot_context(
            doc, num_fewshot=task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(doc)
        )
        made = task.construct_requests(
            doc=doc, ctx=context, metadata=(task.config.task, doc_id, task.config.repeats)
        )
        yield from made if isinstance(made, list) else [made]
