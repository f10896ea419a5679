"""Kept distributions: exact, the same after reloading, bound to what decides them, whole after a kill."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.errors import UserError
from rba_bench.training.data.packing import Response
from rba_bench.training.losses.distillation import top_k
from rba_bench.training.options.nested_options import TeacherOptions
from rba_bench.training.teachers import text_teacher as module
from rba_bench.training.teachers.keyed_store import Store
from rba_bench.training.teachers.readers import OtherReader, OwnReader
from rba_bench.training.teachers.text_teacher import (
    CachedTeacher,
    TextTeacher,
    decode_entry,
    encode_entry,
    make_cached_teacher,
    make_text_teacher,
)

TEXTS = ("what is the capital of france", "give me a plan for the garden", "der hund schläft im garten")
Answers = list[tuple[int, ...]]


@pytest.fixture
def text_teacher(student: Callable[..., Any]) -> TextTeacher:
    return TextTeacher(OwnReader(student(), "weights"))


def branches_of(answers: Answers) -> list[Response]:
    return [
        Response(0, answers[0]),
        Response(1, answers[1]),
        Response(0, answers[1]),
        Response(2, answers[2]),
    ]


def test_all_tokens_are_the_whole_distribution(text_teacher: TextTeacher, answers: Answers) -> None:
    whole = (text_teacher.targets(TEXTS, branches_of(answers)).logits() / 2.0).log_softmax(-1)
    found = CachedTeacher(text_teacher, Store(None), 10**6, 2.0).targets(TEXTS, branches_of(answers))
    assert found.ids.shape == whole.shape and found.responses == (0, 1, 2, 3)
    torch.testing.assert_close(found.logits, whole.gather(-1, found.ids), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.ids.sort(-1).values[0], torch.arange(text_teacher.vocabulary))
    assert bool((found.log_rest == -torch.inf).all())


def test_the_likeliest_and_the_rest_are_everything(text_teacher: TextTeacher, answers: Answers) -> None:
    whole = (text_teacher.targets(TEXTS, branches_of(answers)).logits() / 0.7).log_softmax(-1)
    found = CachedTeacher(text_teacher, Store(None), 5, 0.7).targets(TEXTS, branches_of(answers), [2, 1])
    start, stop = len(answers[0]), len(answers[0]) + 2 * len(answers[1])
    torch.testing.assert_close(found.logits, whole[start:stop].topk(5).values, rtol=1e-5, atol=1e-5)
    assert found.responses == (1, 2) and bool((found.logits[:, :-1] >= found.logits[:, 1:]).all())
    everything = found.logits.exp().sum(-1) + found.log_rest.exp()
    torch.testing.assert_close(everything, torch.ones_like(everything), rtol=1e-5, atol=1e-5)


def test_a_second_teacher_reads_nothing(
    text_teacher: TextTeacher,
    answers: Answers,
    tmp_path: Path,
    student: Callable[..., Any],
    tiny_textlm_dir: Path,
) -> None:
    options = TeacherOptions(model=str(tiny_textlm_dir), top_k=7, folder=str(tmp_path))
    responses = branches_of(answers)

    def teacher() -> CachedTeacher:
        return make_cached_teacher(options, make_text_teacher(options, student(), weights="w", shared=True))

    first = teacher()
    made = first.targets(TEXTS, responses)
    second = teacher()
    kept = second.targets(TEXTS, responses)
    for one, other in zip(
        (made.ids, made.logits, made.log_rest), (kept.ids, kept.logits, kept.log_rest), strict=True
    ):
        assert torch.equal(one, other)
    reader = second.reader
    assert isinstance(reader, OtherReader) and not reader.loaded
    assert second.fill([TEXTS[0]], [answers[0]]) == 0 and not reader.loaded
    assert (second.store.hits, second.store.misses) == (4, 0)


def test_what_decides_a_distribution_is_in_its_key(
    student: Callable[..., Any], answers: Answers, tmp_path: Path
) -> None:
    family = student()
    store = Store(tmp_path / "kept.sqlite")

    def asked(
        weights: str = "a", k: int = 4, temperature: float = 1.0, kept: Any = "float32", text: int = 0
    ) -> int:
        text_teacher = TextTeacher(OwnReader(family, weights))
        before = store.misses
        CachedTeacher(text_teacher, store, k, temperature, kept).targets(
            [TEXTS[text]], [Response(0, answers[0])]
        )
        return store.misses - before

    assert asked() == 1 and asked() == 0
    changes: list[dict[str, Any]] = [
        {"weights": "b"}, {"k": 5}, {"temperature": 2.0}, {"kept": "float16"}, {"text": 1},
    ]  # fmt: skip
    assert [asked(**change) for change in changes] == [1] * 5
    assert asked() == 0


def test_half_precision_errs_little(text_teacher: TextTeacher, answers: Answers) -> None:
    """Log-probabilities between -16 and 0 lie within 2^-8 of what they were."""
    entry = top_k(text_teacher.targets(TEXTS, branches_of(answers)).logits(), 64, 1.0)
    half, full = decode_entry(encode_entry(entry, "float16")), decode_entry(encode_entry(entry))
    assert (
        torch.equal(full[0], entry[0]) and torch.equal(full[1], entry[1]) and torch.equal(full[2], entry[2])
    )
    assert torch.equal(half[0], entry[0]) and torch.equal(half[2], entry[2])
    assert 0 < (half[1] - entry[1]).abs().max() <= 2**-8
    assert len(encode_entry(entry, "float16")) < 0.77 * len(encode_entry(entry))


def test_a_fill_that_was_stopped_goes_on(
    text_teacher: TextTeacher, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILL_ANSWERS", 1)
    path = tmp_path / "kept.sqlite"
    texts, tokens = TEXTS + TEXTS[:1], [answers[0], answers[1], answers[2], answers[0]]
    states, calls = text_teacher.states, []

    def stopping(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return states(*args)

    monkeypatch.setattr(CachedTeacher, "states", lambda self, *args: stopping(*args))
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(text_teacher, Store(path), 4, 1.0).fill(texts, tokens)
    assert CachedTeacher(text_teacher, Store(path), 4, 1.0).fill(texts, tokens) == 1
    assert len(calls) == 4  # three distinct, one of them asked twice
    again = CachedTeacher(text_teacher, Store(path), 4, 1.0)
    again.targets(texts, [Response(0, answers[0]), Response(1, answers[1]), Response(2, answers[2])])
    assert again.store.misses == 0


def test_damage_is_told(text_teacher: TextTeacher, answers: Answers, tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    teacher = CachedTeacher(text_teacher, Store(path), 4, 1.0)
    teacher.targets(TEXTS, branches_of(answers))
    teacher.store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET value = substr(value, 1, length(value) - 4)")
    connection.close()
    with pytest.raises(UserError, match=r"kept.sqlite is damaged .*: delete it"):
        CachedTeacher(text_teacher, Store(path), 4, 1.0).targets(TEXTS, branches_of(answers))
    path.write_bytes(b"not a database, but long enough to be looked at " * 50)
    with pytest.raises(UserError, match=r"kept.sqlite is damaged .*: delete it"):
        CachedTeacher(text_teacher, Store(path), 4, 1.0).targets(TEXTS, branches_of(answers))
    for data in (b"", b"RTK1", b"XXXX" + bytes(20), encode_entry(top_k(torch.randn(3, 9), 2, 1.0)) + b"x"):
        with pytest.raises(ValueError, match="entry|format|length"):
            decode_entry(data)


WRITER = """
import itertools, sys, time
from pathlib import Path
from rba_bench.training.teachers.keyed_store import Store
store = Store(Path(sys.argv[1]))
for number in itertools.count():
    store.put({b"%d-%d" % (number, part): bytes([part]) * 20_000 for part in range(8)})
    print(number, flush=True)
    time.sleep(0.01)  # lets the other one in
"""


def test_a_kill_leaves_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "kept.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(module.__file__).parents[3]
    ) as writer:
        assert writer.stdout is not None
        last = 0
        other = Store(path)
        for _ in range(12):
            last = int(writer.stdout.readline())
            other.put({b"mine-%d" % last: b"x"})  # a second writer meanwhile
        writer.send_signal(signal.SIGKILL)
    other.close()
    store = Store(path)
    for number in range(last + 1):
        found = store.get([b"%d-%d" % (number, part) for part in range(8)])
        assert sorted(value[0] for value in found.values()) == list(range(8))
        assert all(len(value) == 20_000 for value in found.values())
    later = [
        store.get([b"%d-%d" % (number, part) for part in range(8)]) for number in range(last + 1, last + 50)
    ]
    assert {len(found) for found in later} <= {0, 8}
    assert store.get([b"mine-%d" % last]) == {b"mine-%d" % last: b"x"}
    store.put({b"more": b"goes on"})
    assert Store(path).get([b"more"]) == {b"more": b"goes on"}


def test_memory_is_bounded_only_where_there_is_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "kept.sqlite", max_bytes=250)
    entries = {b"%d" % n: bytes(100) for n in range(600)}  # more than one statement asks for
    store.put(entries)
    assert store._bytes == 200 and store.get(list(entries)) == entries
    assert store._bytes == 200 and store.missing([b"0", b"?", b"?"]) == [b"?"]
    memory = Store(None, max_bytes=250)
    memory.put(entries)
    assert memory.get(list(entries)) == entries


def test_a_disk_that_takes_nothing_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "kept.sqlite")
    store.put({b"a": b"b"})
    assert "not kept on disk any longer" in capsys.readouterr().err
    assert store.get([b"a"]) == {b"a": b"b"}
