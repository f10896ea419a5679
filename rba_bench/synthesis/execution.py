"""Where the stages of a synthesis run: in this process and processes of this machine, or on a Ray cluster.

The stages are the same, and so are the bytes: what is asked or spoken somewhere depends on its shard alone.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.synthesis.asking import LANES
from rba_bench.synthesis.ray_cluster import RayOptions, ray_cluster
from rba_bench.synthesis.ray_speaking import RaySpeaker
from rba_bench.synthesis.ray_teacher import RayTeacher
from rba_bench.synthesis.speaking import RowMaker, ShardMaker, ShardSpeaker
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import load_teacher
from rba_bench.textlm.query_template import QueryTemplate
from rba_bench.textlm.text_model import TextLM


@dataclass(frozen=True)
class Execution:
    """Who works for a run.

    Attributes:
        teacher: Asks and answers.
        lanes: Shards that it is asked for at once.
        speaker: Makes the clips.
    """

    teacher: TextLM
    lanes: int
    speaker: ShardMaker


@contextmanager
def execution(
    recipe: SynthesisRecipe,
    out: Path,
    maker: RowMaker,
    finished: Callable[[str, dict[str, Any]], None],
    *,
    teacher: TextLM | None,
    query: QueryTemplate | None,
    workers: int | None,
    ray: RayOptions | None,
) -> Iterator[Execution]:
    """Load the teacher and make ready who speaks; at the end nothing is left running.

    Args:
        recipe: Names the teacher.
        out: Folder of the set.
        maker: Makes the rows.
        finished: Is told name and marker of each shard of clips.
        teacher: Is used in this process instead of the recipe's.
        query: What makes the recipe's teacher ask.
        workers: Processes that speak.
        ray: The cluster; None for this machine's processes.

    Raises:
        MissingPrerequisite: the teacher or Ray is not there.
        UserError: the teacher or the cluster cannot be used.
    """
    with ExitStack() as stack:
        if ray is None:
            loaded = teacher or load_teacher(recipe)
            lanes = LANES if loaded.streams else 1
            yield Execution(loaded, lanes, stack.enter_context(ShardSpeaker(maker, workers or 0, finished)))
            return
        cluster = stack.enter_context(ray_cluster(recipe, ray, workers, out))
        speaker = stack.enter_context(RaySpeaker(cluster, maker, finished))
        if teacher is not None:
            yield Execution(teacher, LANES if teacher.streams else 1, speaker)
            return
        remote = stack.enter_context(RayTeacher(cluster, recipe, query))
        yield Execution(remote, remote.lanes, speaker)
