"""Work ahead of its turn gives what work in its turn gives, within bounds; failures arrive where it is needed."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.training.data import clips
from rba_bench.training.data.clips import Prefetcher
from rba_bench.training.training_run import train
from tests.training.test_training_run import same


class Noted:
    """Squares, and notes who asked."""

    def __init__(self) -> None:
        self.threads: dict[int, str] = {}
        self.times: dict[int, int] = {}
        self.lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self.lock:
            self.threads[item] = threading.current_thread().name
            self.times[item] = self.times.get(item, 0) + 1
        if item == 13:
            raise UserError("row 13: no sound")
        return item * item


def wait_for(noted: Noted, items: list[int]) -> None:
    until = time.monotonic() + 20
    while set(items) - noted.times.keys() and time.monotonic() < until:
        time.sleep(0.005)


def test_what_is_ahead_is_done_by_others_once_and_what_is_not_is_done_here() -> None:
    noted = Noted()
    ready = Prefetcher(noted, 8, threads=2)
    ready.ahead([3, 4, 3])
    wait_for(noted, [3, 4])
    assert [ready(item) for item in (3, 4, 3, 5)] == [9, 16, 9, 25]
    assert noted.threads[3].startswith("prefetch") and noted.threads[4].startswith("prefetch")
    assert noted.threads[5] == threading.current_thread().name
    assert noted.times == {3: 1, 4: 1, 5: 1}
    ready.close()


def test_no_more_is_begun_than_the_bound_allows_however_long_the_plan() -> None:
    noted = Noted()
    ready = Prefetcher(noted, 3, threads=2)
    ready.ahead(iter(range(100, 10**9)))
    wait_for(noted, [100, 101, 102])
    ready.close()
    assert sorted(noted.times) == [100, 101, 102]


def test_what_the_next_plan_still_wants_is_kept_and_the_rest_is_dropped() -> None:
    noted = Noted()
    ready = Prefetcher(noted, 2, threads=1)
    ready.ahead([1, 2])
    wait_for(noted, [1, 2])
    ready.ahead([2, 3])
    wait_for(noted, [3])
    assert [ready(item) for item in (1, 2, 3)] == [1, 4, 9]
    assert noted.times == {1: 2, 2: 1, 3: 1}
    ready.close()


def test_a_failure_is_raised_where_the_item_is_needed_and_nowhere_else() -> None:
    ready = Prefetcher(Noted(), 4, threads=2)
    ready.ahead([12, 13, 14])
    assert (ready(12), ready(14)) == (144, 196)
    for _ in range(2):
        with pytest.raises(UserError, match="row 13: no sound"):
            ready(13)
    ready.close()


def test_switched_off_it_starts_no_thread() -> None:
    noted = Noted()
    ready = Prefetcher(noted, 0)
    ready.ahead([1, 2])
    assert ready(2) == 4 and noted.threads == {2: threading.current_thread().name}
    ready.close()


def test_closing_ends_the_threads() -> None:
    ready = Prefetcher(Noted(), 4, threads=2)
    ready.ahead([1, 2, 3])
    ready.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert ready(3) == 9


def test_a_run_that_looks_ahead_is_the_run_that_does_not(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set()
    plain = clips.load_clip

    def noted(*given: Any) -> Any:
        readers.add(threading.current_thread().name.partition("_")[0])
        return plain(*given)

    monkeypatch.setattr(clips, "load_clip", noted)
    for prefetch in (0, 2):
        readers.clear()
        monkeypatch.setattr(clips, "_last", {})  # what an earlier run has encoded needs no reading
        recipe = recipe_for(method="rba-single", steps=2, prefetch=prefetch, cache_mb=0.001)
        train(recipe, tmp_path / str(prefetch))
        assert ("prefetch" in readers) == (prefetch > 0)
    same(tmp_path / "0", tmp_path / "2")


def test_a_clip_that_cannot_be_read_is_named_when_its_turn_comes(
    family: Any, rows: list[AlignmentRow], store_for: Callable[..., Any]
) -> None:
    damaged = replace(rows[1], audio=replace(rows[1].audio, sha256="0" * 64))
    store = store_for(family, frozen=False)
    store.waves.limit = 4
    store.look_ahead([rows[0], damaged])
    assert len(store.get([rows[0]])) == 1
    with pytest.raises(UserError, match=rf"^row {damaged.id}: .* is damaged or was replaced"):
        store.get([damaged])
    store.waves.close()
