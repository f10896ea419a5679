"""A teacher in processes of a Ray cluster: each holds a local model, or a client of a server with its own requests.

What to ask and what becomes of it is decided where the command runs; only the questions and the answers travel. An
answer depends on the model, its question and its seed alone, so it does not matter which process gives it.
"""

import threading
from collections.abc import Sequence
from queue import Queue
from typing import Any

from rba_bench.errors import RbaError
from rba_bench.synthesis.asking import LANES
from rba_bench.synthesis.ray_cluster import TRIES, Cluster, Home, ray_error
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import is_server, load_teacher, teacher_identity
from rba_bench.textlm.judging import Message
from rba_bench.textlm.query_template import QueryTemplate
from rba_bench.textlm.text_model import Decoding, Generation, TextLM


class _TeacherProcess:
    """The teacher in one process (a Ray actor); loaded when it is first asked, so that errors arrive as they are."""

    def __init__(self, recipe: SynthesisRecipe, home: Home) -> None:
        self._recipe, self._home = recipe, home
        self._loaded: TextLM | None = None
        self._lock = threading.Lock()

    def chat(self, texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        return self._teacher().chat(texts, decoding, seeds)

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        return self._teacher().converse(conversations, decoding, seeds)

    def complete(self, texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        return self._teacher().complete(texts, decoding, seeds)

    def logprobs(self, texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return self._teacher().logprobs(texts, responses)

    def _teacher(self) -> TextLM:
        with self._lock:
            if self._loaded is None:
                self._home.enter()
                self._loaded = load_teacher(self._recipe)
            return self._loaded


class RayTeacher(TextLM):
    """The teacher of a recipe on a cluster; may be asked from several threads at once. A context manager.

    A process that is killed is started again, and what it was asked is asked again.

    Args:
        cluster: Where.
        recipe: Names the teacher.
        query: What makes it ask; None where it is asked in words.

    Attributes:
        lanes: Shards that are asked at once.
    """

    streams = True

    def __init__(self, cluster: Cluster, recipe: SynthesisRecipe, query: QueryTemplate | None) -> None:
        self.recipe, self.query, self._cluster = recipe, query, cluster
        self._each = LANES if is_server(recipe) else 1
        self.lanes = cluster.shares.teachers * self._each
        self._free: Queue[Any] = Queue()  # processes, once for each question that they may have at a time
        self._processes: list[Any] = []
        self._lock = threading.Lock()

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.chat`."""
        found: list[Generation] = self._ask("chat", user_texts, decoding, seeds)
        return found

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """See `TextLM.converse`."""
        found: list[Generation] = self._ask("converse", conversations, decoding, seeds)
        return found

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.complete`."""
        found: list[Generation] = self._ask("complete", prompts, decoding, seeds)
        return found

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `TextLM.logprobs`."""
        found: list[float] = self._ask("logprobs", user_texts, responses)
        return found

    def pre_query_template(self) -> str:
        """See `TextLM.pre_query_template`."""
        return "" if self.query is None else self.query.text

    def identity(self) -> dict[str, Any]:
        """See `teacher_identity`."""
        return teacher_identity(self.recipe)

    def __enter__(self) -> "RayTeacher":
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for process in self._processes:
            ray.kill(process)

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        self._start()
        process = self._free.get()
        try:
            return ray.get(getattr(process, method).remote(*arguments))
        except RayTaskError as error:
            if isinstance(error.cause, RbaError):
                raise error.cause from None
            raise
        except RayError as error:
            raise ray_error(error) from error
        finally:
            self._free.put(process)

    def _start(self) -> None:
        """Start the processes, if nobody did: a run whose candidates were all asked before needs none."""
        import ray

        with self._lock:
            if self._processes:
                return
            shares = self._cluster.shares
            remote = ray.remote(
                num_cpus=shares.teacher_cpus,
                num_gpus=shares.teacher_gpus,
                max_concurrency=self._each,
                max_restarts=-1,
                max_task_retries=TRIES - 1,
                scheduling_strategy="SPREAD",
            )(_TeacherProcess)
            self._processes = [remote.remote(self.recipe, self._cluster.home) for _ in range(shares.teachers)]
            for process in self._processes * self._each:
                self._free.put(process)
