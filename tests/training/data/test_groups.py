"""Alignment sets of any size behind one mapping: laziness, mixtures, damage, the held-out part."""

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio import alignment_index, clips
from rba_bench.audio.alignment_index import IndexedSet
from rba_bench.audio.alignment_set import AlignmentSet, shard_schema
from rba_bench.audio.parquet import OpenFiles, RowGroupCache
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes, sha256_file, write_json
from rba_bench.training.data.groups import SetChoice, TrainingData, choices, validation_rows

WAVE = (0.1 * np.sin(np.arange(400) / 9)).astype(np.float32)
Record = dict[str, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Indexes and marks of this test only."""
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@lru_cache
def flac(voice: int) -> bytes:
    return clips.encode_flac(WAVE * (1 + voice) / 4, 16_000)


def record(group: str, voice: int, **changes: object) -> Record:
    data = flac(voice)
    empty = dict.fromkeys(("prompt", "source_lang", "target_lang", "topic", "difficulty"), "")
    return {
        **empty,
        "id": f"{group}-{voice}",
        "group_id": group,
        "kind": "instruct",
        "instruction": f"say {group}",
        "response": f"here is {group}",
        "voice": f"v{voice}",
        "split": "train",
        "audio": {"bytes": data, "path": f"{group}.flac"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": 16_000,
        "duration": 0.025,
        **changes,
    }


def group(name: str, voices: int = 2, **changes: object) -> list[Record]:
    return [record(name, voice, **changes) for voice in range(voices)]


def write(folder: Path, shards: Sequence[Sequence[Record]], row_group_size: int = 8) -> Path:
    (folder / "shards").mkdir(parents=True)
    checksums = {}
    for number, rows in enumerate(shards):
        name = f"shards/part-{number:05d}.parquet"
        table = pa.Table.from_pylist(list(rows), schema=shard_schema())
        pq.write_table(table, folder / name, row_group_size=row_group_size)
        checksums[name] = sha256_file(folder / name)
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 20 groups of 1 to 3 voices; every fifth group is held out; kinds take turns."""
    shards: list[list[Record]] = []
    for number in range(3):
        shards.append([])
        for place in range(20):
            split = "validation" if place % 5 == 0 else "train"
            kind = ("instruct", "qa", "s2tt")[place % 3]
            name = f"g{number}{place:02d}"
            shards[-1] += group(name, 1 + place % 3, split=split, kind=kind, topic=f"t{place % 4}")
    return write(tmp_path_factory.mktemp("large") / "set", shards)


@pytest.fixture
def large(tmp_path: Path, made_once: Path) -> Path:
    """A copy of that set."""
    return shutil.copytree(made_once, tmp_path / "large")


def open_one(folder: Path, **options: Any) -> TrainingData:
    return TrainingData.open(choices(str(folder)), **options)


def test_the_same_rows_as_read_at_once(large: Path) -> None:
    data, whole = open_one(large), AlignmentSet.open(large)
    for split, groups in (("train", data.train), ("validation", data.validation)):
        assert dict(groups) == whole.groups(split)
        assert list(groups) == list(whole.groups(split)) == list(groups.ids)
    assert dict(data.all) == whole.groups()
    assert data.sha256 == whole.sha256
    assert data.kinds == ("instruct", "qa", "s2tt")
    assert data.train.ids[-1] == list(data.train)[-1] and data.train.ids[1:3] == list(data.train)[1:3]


def test_groups_that_are_not_there(large: Path) -> None:
    data = open_one(large)
    assert "g0000" not in data.all and 7 not in data.all
    held_out = data.validation.ids[0]
    assert held_out in data.all and held_out not in data.train
    for wrong in (held_out, "", "zzz", "a"):
        with pytest.raises(KeyError):
            data.train[wrong]
    with pytest.raises(IndexError):
        data.train.ids[len(data.train)]


def test_only_the_row_groups_asked_for_are_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_one(large)
    reads = []
    plain = RowGroupCache.read

    def counted(self: RowGroupCache, path: Path, opened: Any, number: int, columns: tuple[str, ...]) -> Any:
        reads.append((path.name, number, "audio" in columns))
        return plain(self, path, opened, number, columns)

    monkeypatch.setattr(RowGroupCache, "read", counted)
    rows = data.train["g107"]
    assert 1 <= len(reads) <= 2 and {name for name, _, _ in reads} == {"part-00001.parquet"}
    assert not any(audio for _, _, audio in reads), "text is read without the audio"
    np.testing.assert_allclose(clips.load_clip(rows[1].audio), WAVE * 2 / 4, atol=4e-5)


def test_second_start_reads_no_shard(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_one(large)

    def touched(*_: object) -> None:
        raise AssertionError("a shard was scanned or hashed again")

    monkeypatch.setattr(alignment_index, "build_group_index", touched)
    monkeypatch.setattr(AlignmentSet, "verify", touched)
    again = open_one(large)
    assert list(again.train) == list(first.train)
    assert isinstance(again.sources[0].index.ids, np.memmap)
    assert again.train[again.train.ids[3]] == first.train[first.train.ids[3]]


@pytest.mark.parametrize("name", ["facts.json", "ids.npy"])
def test_a_torn_index_is_made_again(large: Path, cache: Path, name: str) -> None:
    names = list(open_one(large).train)
    [torn] = (cache / "alignment-index").glob(f"*/{name}")
    torn.write_bytes(torn.read_bytes()[:20])
    assert list(open_one(large).train) == names


def test_a_cache_that_cannot_be_written(large: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert len(open_one(large).train) == 48


def test_memory_of_the_index(large: Path) -> None:
    index = open_one(large).sources[0].index
    assert index.nbytes - index.ids.nbytes <= 24 * len(index.ids) + 8 * index.rows


def test_the_index_states_seconds_and_bytes_of_every_clip(tmp_path: Path) -> None:
    """Of groups whose clips are scattered too; they stand as the groups' rows do."""
    rows = [row for number in range(5) for row in group(f"g{number}", 1 + number)]
    rows = [{**row, "duration": place / 8, "prompt": "ü" * place} for place, row in enumerate(rows)]
    rows[3]["duration"] = None
    rows[4]["response"] = ""  # not among them
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = [rows[place] for place in order]
    data = open_one(write(tmp_path / "set", [shuffled[:7], shuffled[7:]]))
    index = data.sources[0].index
    for number in range(len(index.ids)):
        found, start = data.sources[0].rows(number), int(index.starts[number])
        stated = [np.nan if row.duration is None else row.duration for row in found]
        stop = int(index.starts[number + 1])
        np.testing.assert_array_equal(index.seconds[start:stop], np.asarray(stated, dtype=np.float32))
        sizes = [len(row.prompt.encode()) + len(row.response.encode()) for row in found]
        assert index.text[start:stop].tolist() == sizes
    assert len(index.seconds) == len(rows) - 1 == int(index.starts[-1])


def test_clips_may_be_left_out(large: Path) -> None:
    data = open_one(large)
    before = dict(data.train)
    out = np.zeros(len(data.sources[0].index.seconds), dtype=bool)
    gone, thinned = data.train.ids[0], next(name for name, rows in before.items() if len(rows) == 3)
    index = data.sources[0].index
    for name, places in ((gone, slice(None)), (thinned, slice(1, 2))):
        number = index.find(name)
        out[int(index.starts[number]) : int(index.starts[number + 1])][places] = True
    data.leave_out([out])
    assert gone not in data.train and gone not in data.train.ids
    assert data.train[thinned] == [before[thinned][0], before[thinned][2]]
    assert {name: rows for name, rows in data.train.items() if name != thinned} == {
        name: rows for name, rows in before.items() if name not in (gone, thinned)
    }
    assert [data.train.place(name) for name in data.train] == list(range(len(data.train)))
    assert data.train.voices.tolist() == [len(data.train[name]) for name in data.train]
    with pytest.raises(UserError, match="no training rows that the model can take"):
        data.leave_out([np.ones_like(out)])


def test_scattered_groups_are_put_together(tmp_path: Path) -> None:
    """Another tool may have shuffled the clips, across shards and row groups."""
    rows = [row for number in range(12) for row in group(f"g{number:02d}", 4)]
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    data = open_one(write(tmp_path / "foreign", [shuffled[:30], shuffled[30:]]))
    assert len(data.train) == 12
    for name in data.train:
        found = data.train[name]
        assert sorted(row.id for row in found) == [f"{name}-{voice}" for voice in range(4)]
        for row in found:
            np.testing.assert_allclose(
                clips.load_clip(row.audio), WAVE * (1 + int(row.voice[1:])) / 4, atol=4e-5
            )


def test_clips_without_a_response_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*group("a"), record("b", 0, response=" "), record("b", 1), *group("c", response="")]
    data = open_one(write(tmp_path / "set", [rows]))
    assert {name: [row.id for row in rows] for name, rows in data.train.items()} == {
        "a": ["a-0", "a-1"],
        "b": ["b-1"],
    }
    assert data.record()["sets"][0]["clips_without_response"] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record("a", 0), record("a", 1, split="validation")], "group 'a' differ in split"),
        ([record("a", 0), record("a", 1, kind="qa")], "group 'a' differ in kind"),
        ([record("a", 0, split="dev")], "a split 'dev'; valid: train, validation, test"),
        ([record("a", 0, response="")], "no rows with a response"),
        ([record("a", 0, split="validation")], "no training rows with a response"),
        ([record("a", 0, group_id=None)], "rows without group_id"),
    ],
)
def test_sets_that_cannot_be_trained_on(tmp_path: Path, rows: list[Record], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_one(write(tmp_path / "set", [rows]))


def test_two_sets_with_the_same_ids(tmp_path: Path) -> None:
    one = write(tmp_path / "one", [group("a") + group("b") + group("v", split="validation")])
    two = write(tmp_path / "two", [group("a", kind="qa", response="other") + group("c", kind="s2tt")])
    data = TrainingData.open(choices([str(one), {"path": str(two), "kinds": ["qa"]}]))
    assert sorted(name.split("/")[1] for name in data.train) == ["a", "a", "b"]
    assert len({row.id for rows in data.all.values() for row in rows}) == 8
    for name, rows in data.train.items():
        assert {row.group_id for row in rows} == {name}
        assert {row.response for row in rows} == (
            {"other"} if rows[0].kind == "qa" else {f"here is {name[-1]}"}
        )
    assert data.kinds == ("instruct", "qa")
    assert Counter(name for _, name in data.order(6, 1)) == Counter(dict.fromkeys(data.train, 2))
    swapped = TrainingData.open([SetChoice(str(two), None, ("qa",)), SetChoice(str(one))])
    assert swapped.sha256 == data.sha256 and list(swapped.train) == list(data.train)
    assert (
        len({data.sha256, open_one(one).sha256, TrainingData.open(choices([str(one), str(two)])).sha256}) == 3
    )


def test_weights_make_shares(tmp_path: Path) -> None:
    one = write(tmp_path / "one", [[row for i in range(9) for row in group(f"a{i}", 1)]])
    two = write(tmp_path / "two", [group("b", 1)])
    weighted = [{"path": str(one), "weight": 1}, {"path": str(two), "weight": 3}]
    data = TrainingData.open(choices(weighted))
    drawn = Counter(name.split("/")[1][0] for _, name in data.order(40, 1))
    assert drawn == {"a": 10, "b": 30}
    assert data.sha256 != TrainingData.open(choices([str(one), str(two)])).sha256


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "names no set"),
        (7, "neither a folder nor"),
        ({"path": "a", "wieght": 1}, "neither a folder nor"),
        ({"path": "a", "weight": 0}, "weight of a must be a positive number"),
        ({"path": "a", "kinds": "qa"}, r"must be a list such as \[qa\]"),
        (["a", {"path": "b", "weight": 1}], "every set a weight, or none"),
    ],
)
def test_choices_that_make_no_sense(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choices(value)


def test_a_kind_that_is_not_there_and_a_set_given_twice(large: Path) -> None:
    with pytest.raises(UserError, match="no groups of kind asr; it has instruct, qa, s2tt"):
        TrainingData.open([SetChoice(str(large), None, ("asr",))])
    with pytest.raises(UserError, match="given twice"):
        TrainingData.open(choices([str(large), str(large)]))


def flip(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(bytes(data))


def test_a_damaged_set_is_refused_at_the_start(large: Path) -> None:
    flip(large / "shards" / "part-00002.parquet")
    with pytest.raises(UserError, match=r"shard .*part-00002\.parquet is damaged; run") as caught:
        open_one(large)
    assert "\n" not in str(caught.value)


def test_damage_after_an_earlier_run_is_noticed(large: Path) -> None:
    open_one(large)
    flip(large / "shards" / "part-00000.parquet")
    with pytest.raises(UserError, match="is damaged"):
        open_one(large)


def test_a_large_set_is_checked_shard_by_shard_before_a_row_is_used(large: Path, cache: Path) -> None:
    shard = large / "shards" / "part-00002.parquet"
    whole = shard.read_bytes()
    flip(shard)
    data = open_one(large, verify_bytes=0)
    assert data.train["g001"] and data.train["g101"]
    for _ in range(2):
        with pytest.raises(UserError, match=r"part-00002\.parquet is damaged"):
            data.train["g201"]
    assert not list((cache / "alignment-index").iterdir()), "an index made of damaged rows is not kept"
    shard.write_bytes(whole)
    assert open_one(large, verify_bytes=0).train["g201"]


def test_what_was_hashed_is_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    plain = AlignmentSet.verify
    monkeypatch.setattr(AlignmentSet, "verify", lambda self, n: (hashed.append(n), plain(self, n))[1])
    lazy = IndexedSet(AlignmentSet.open(large, verify=False), verify_now=False)
    assert hashed == []
    lazy.rows(0), lazy.rows(1), lazy.rows(25)
    assert hashed == [0, 1]
    open_one(large)
    assert hashed == [0, 1, 2]
    (large / "shards" / "part-00001.parquet").touch()
    open_one(large)
    assert hashed == [0, 1, 2, 1]


def test_a_missing_shard(large: Path) -> None:
    (large / "shards" / "part-00001.parquet").unlink()
    for size in (0, 10**9):
        with pytest.raises(UserError, match=r"part-00001\.parquet is missing; run"):
            open_one(large, verify_bytes=size)


def test_threads_and_forks_read_the_same(large: Path) -> None:
    data = open_one(large)
    names = list(data.train) * 4
    expected = [sha256_bytes(clips.load_clip(data.train[name][0].audio).tobytes()) for name in names]
    fresh = open_one(large)

    def heard(name: str) -> str:
        return sha256_bytes(clips.load_clip(fresh.train[name][0].audio).tobytes())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(heard, names)) == expected
    context = multiprocessing.get_context("fork")
    pipe, far = context.Pipe()
    child = context.Process(target=lambda: far.send([heard(name) for name in names[:20]]))
    child.start()
    assert pipe.poll(60) and pipe.recv() == expected[:20]
    child.join()


def test_few_files_stay_open(large: Path) -> None:
    shards = sorted((large / "shards").iterdir())
    files = OpenFiles(limit=1)
    for shard in (*shards, shards[0]):
        files.get(shard)
        assert len(files) == 1
    roomy = OpenFiles()
    kept = roomy.get(shards[0])[1]
    roomy.get(shards[1])
    assert roomy.get(shards[0])[1] is kept and len(roomy) == 2


def test_order_follows_size_or_wish(large: Path) -> None:
    assert open_one(large).window is None
    assert open_one(large, shuffle="window").record()["shuffle"] == "window of 16 x 64"
    assert open_one(large, shuffle="full").record()["shuffle"] == "full"


def test_validation_rows(large: Path) -> None:
    held_out = open_one(large).validation
    chosen = validation_rows(held_out, 3, seed=1)
    assert {kind: len(rows) for kind, rows in chosen.items()} == {"instruct": 3, "qa": 3, "s2tt": 3}
    assert chosen == validation_rows(open_one(large).validation, 3, seed=1)
    assert chosen != validation_rows(held_out, 3, seed=2)
    for kind, rows in chosen.items():
        assert {(row.kind, row.split) for row in rows} == {(kind, "validation")}
        assert len({row.group_id for row in rows}) == 3
    everything = validation_rows(held_out, 128, seed=1)
    assert sum(map(len, everything.values())) == len(held_out) == 12


def test_validation_topics_are_balanced(tmp_path: Path) -> None:
    topics = ["common"] * 60 + ["rare"] * 6 + ["odd"] * 2
    rows = [
        row
        for i, topic in enumerate(topics)
        for row in group(f"g{i:02d}", 1, split="validation", topic=topic)
    ]
    data = open_one(write(tmp_path / "set", [[*rows, *group("t")]]))
    chosen = validation_rows(data.validation, 12, seed=0)["instruct"]
    assert Counter(row.topic for row in chosen) == {"common": 5, "rare": 5, "odd": 2}


def test_questions_mixed_with_the_instruction_set(
    tmp_path: Path, alignment_dir: Path, recipe_for: Callable[..., Any]
) -> None:
    """RBA-QA: a set of short answers and the original set, for two more epochs."""
    from rba_bench.training.training_run import train

    [shard] = (alignment_dir / "shards").iterdir()
    records = [
        row for row in pq.read_table(shard).to_pylist() if row["kind"] == "qa" and row["voice"] == "v0"
    ]
    questions = write(tmp_path / "qa", [[{**row, "response": "the lake"} for row in records]])
    recipe = recipe_for(
        method="sft", alignment_set=(str(alignment_dir), str(questions)), epochs=2, groups_per_step=4
    )
    result = train(recipe, tmp_path / "out")
    assert result.steps == 4  # six groups and two, twice, four a step
    assert [one["train_groups"] for one in result.run["data"]["sets"]] in ([6, 2], [2, 6])
    assert result.run["alignment_set_sha256"] == TrainingData.open(choices(recipe.alignment_set)).sha256
