"""What goes wrong at the command line: one line with the reason, the right exit code, and nothing lost or overwritten.

The teacher is a stand-in where it is the one that misbehaves; servers are real HTTP servers.
"""

import builtins
import errno
import json
import os
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from fake_teacher import FakeTeacher
from stages_of import candidates
from test_recorded import Translator, contents, tone
from test_server_teacher import tokenizer_with

from rba_bench import files
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.files import read_json, sha256_file
from rba_bench.synthesis import execution, pipeline
from rba_bench.textlm.text_model import Generation, TextLM
from tests.cli.test_failures import run
from tests.textlm.misbehaving_server import Reaction, body, failure, free_port, hang, serving

pytest.importorskip("espeakng_loader")
pytest.importorskip("datasketch")
Capture = pytest.CaptureFixture[str]
FEW = {
    "n_instructions": "4", "kinds": "null", "shard_size": "2", "round_size": "8", "voices_per_instruction": "1",
}  # fmt: skip
REAL = {"tagger": "null", "exclude_test": "false"}
RIVERS = ("Rhine", "Danube", "Volga", "Loire", "Thames", "Tagus", "Elbe", "Oder", "Seine", "Po")


class Scripted(FakeTeacher):
    """Asks what `ask` makes of a seed, and answers each question with `reply`."""

    def __init__(self, reply: str, ask: Callable[[int], str] | None = None) -> None:
        super().__init__()
        self.reply = reply
        self.ask = ask or (
            lambda seed: f"Which towns lie on the {RIVERS[seed % 10]} below its {seed % 9973} th mile"
        )

    def _instruction(self, seed: int) -> Generation:
        return Generation(self.ask(seed), 9, "ok")

    def _answer(self, text: str, seed: int) -> Generation:
        return Generation(self.reply, len(self.reply.split()), "ok" if self.reply else "empty")


@pytest.fixture
def teach(monkeypatch: pytest.MonkeyPatch) -> Callable[[TextLM], None]:
    """Let the command find this teacher, whatever the recipe names."""

    def put(teacher: TextLM) -> None:
        monkeypatch.setattr(execution, "load_teacher", lambda recipe: teacher)
        monkeypatch.setattr(pipeline, "teacher_identity", lambda recipe: teacher.identity())
        monkeypatch.setattr(pipeline, "find_query", lambda recipe: None)

    return put


def synth(out: Path, *more: str, **keys: str) -> int:
    """Exit code of the command, in this process."""
    settings = [word for key, value in {**FEW, **keys}.items() for word in ("--set", f"{key}={value}")]
    return run("synth", *settings, *more, "--workers", "0", "--out", str(out))


def complaint(capsys: Capture) -> str:
    """The one line that names the error; no traceback, and nothing on stdout."""
    printed, told = capsys.readouterr()
    lines = told.splitlines()
    assert printed == "" and "Traceback" not in told
    assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True], told
    return lines[-1]


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("teacher", "keys", "message", "most"),
    [
        (Scripted(""), {}, r"gave 0 of 1000 .*answer empty \d+", 512),
        (
            Scripted("I'm sorry, but I can't help with that."),
            {"text_filters": "{rules: {check_language: false}}"},
            r"gave 0 of 1000 .*answer refusal \d+",
            512,
        ),
        (
            Scripted("Yes.", lambda seed: "Which is the longest river"),
            {},
            r"gave 1 of 1000 .*duplicate \d+",
            768,
        ),
        (
            Scripted("It is a long answer that nobody would call short."),
            {"kind": "qa", "max_answer_words": "5"},
            r"gave 0 of 1000 .*answer too_long \d+",
            512,
        ),
    ],
    ids=["empty", "refusals", "the-same", "long-answers"],
)
def test_a_teacher_without_usable_pairs_is_given_up_early_with_the_reasons(
    tmp_path: Path,
    capsys: Capture,
    teach: Callable[[TextLM], None],
    teacher: Scripted,
    keys: dict[str, str],
    message: str,
    most: int,
) -> None:
    teach(teacher)
    out = tmp_path / "set"
    assert synth(out, **{**REAL, **keys, "n_instructions": "1000", "round_size": "64"}) == 1
    line = complaint(capsys)
    assert line.startswith(f"error: {most} candidates ") and "raise max_candidates" in line
    assert re.search(message, line), line
    assert len(candidates(out)) < 2 * most, "50,000 would be asked otherwise"


def test_fewer_candidates_than_instructions_end_at_once(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    teach(FakeTeacher())
    assert synth(tmp_path / "set", n_instructions="1000000", max_candidates="100") == 1
    assert "error: 8 candidates gave" in (line := complaint(capsys)) and "max_candidates (100)" in line


def test_a_teacher_that_is_good_enough_is_not_given_up(
    tmp_path: Path, teach: Callable[[TextLM], None]
) -> None:
    """One usable pair in 25, where one in fifty would do."""
    rare = Scripted("Yes.")
    usable, rare.ask = rare.ask, lambda seed: usable(seed) if seed % 25 == 0 else "x ** y"
    teach(rare)
    assert synth(tmp_path / "set", **REAL, n_instructions="12", round_size="64", drop_unspeakable="true") == 0


def test_a_translator_that_only_gives_empty_answers_is_given_up_early(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    sf.write(tmp_path / "a.wav", tone(0.2), 16_000)
    line = {"audio": "a.wav", "source_lang": "de", "target_lang": "en"}
    lines = [json.dumps({**line, "id": str(n), "transcript": "Stumm"}) + "\n" for n in range(5_000)]
    (tmp_path / "list.jsonl").write_text("".join(lines))
    teach(Translator())
    source = f"{{manifest: {tmp_path / 'list.jsonl'}}}"
    assert synth(tmp_path / "set", source=source, round_size="100") == 1
    assert "none of the first 500 transcripts has a usable translation (answer empty 500)" in complaint(
        capsys
    )


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ({"voices": "[nowhere]"}, 2, "unknown bank of voices 'nowhere'"),
        ({"voices": "[train/nobody]"}, 2, "the bank train has no voice 'nobody'"),
        ({"voices": "[/nowhere/voices]"}, 3, "no folder /nowhere/voices"),
        (
            {"voices": "[clear-dev]", "voices_per_instruction": "99"},
            2,
            "voices_per_instruction is 99, and `voices`",
        ),
        ({"round_trip": "{recognizer: nowhere}"}, 3, "no recogniser 'nowhere'"),
        ({"labels": "{model: ./nowhere}"}, 3, "no text model at ./nowhere"),
        ({**REAL, "language": "xx"}, 2, "does not speak 'xx'"),
        ({"text_filters.against": "nowhere.txt"}, 3, "no file nowhere.txt"),
        ({"augmentation": "{noise: 1, noise_folder: /nowhere}"}, 3, "/nowhere"),
        (
            {**REAL, "voices": "server:http://127.0.0.1:9/v1#m?bank={bank}"},
            2,
            "1 shorter than .*1 not readable",
        ),
        ({**REAL, "voices": "server:http://127.0.0.1:9/v1#m?voice=a"}, 1, "127.0.0.1:9"),
    ],
)
def test_a_mistake_is_found_before_the_teacher_works_and_leaves_no_folder(
    tmp_path: Path,
    capsys: Capture,
    teach: Callable[[TextLM], None],
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "0")
    bank = tmp_path / "bank"
    bank.mkdir()
    (bank / "broken.wav").write_bytes(b"no sound at all")
    sf.write(bank / "short.wav", tone(0.5), 16_000)
    teacher = FakeTeacher()
    teach(teacher)
    out = tmp_path / "set"
    assert synth(out, **{key: value.replace("{bank}", str(bank)) for key, value in keys.items()}) == code
    line = complaint(capsys)
    assert re.search(message, line), line
    assert not teacher.calls and not out.exists()


def test_the_corrected_command_may_use_the_folder(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    teach(FakeTeacher())
    out = tmp_path / "set"
    out.mkdir()
    assert synth(out, voices="[nowhere]") == 2 and list(out.iterdir()) == []
    assert synth(out) == 0
    before = tree(out)
    assert synth(out, voices="[nowhere]") == 2 and tree(out) == before
    assert "belongs to another synth run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["empty.txt", "noise.txt", "noise.jsonl", "noise.parquet", "noise.xlsx", "a.txt:col"]
)
def test_files_of_against_that_cannot_be_read(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None], name: str
) -> None:
    teach(FakeTeacher())
    file = tmp_path / name.partition(":")[0]
    file.write_bytes(
        b"" if name.startswith("empty") else bytes(range(256)) if "noise" in name else b"a text\n"
    )
    assert synth(tmp_path / "set", "--against", str(tmp_path / name)) == 2
    assert "--against" in (line := complaint(capsys)) and file.name in line


def test_against_leaves_out_what_a_file_holds_beside_those_of_the_recipe(
    tmp_path: Path, teach: Callable[[TextLM], None]
) -> None:
    texts = [
        "Which towns lie on the upper Rhine and have an old bridge",
        "How long does a goose egg have to boil until it is hard",
        "Who wrote the first book about the stars over the south pole",
        "Why do cats sleep so much more than people or horses do",
        "What can I plant next to beans so that both of them grow",
        "When did ships with sails stop to carry letters to islands",
    ]
    for number in (0, 1):
        (tmp_path / f"{number}.txt").write_text(texts[number] + "\n")
    teach(Scripted("Many.", lambda seed: texts[seed % 6]))
    out = tmp_path / "set"
    first = f"[{tmp_path / '0.txt'}]"
    words = ("--set", f"text_filters.against={first}", "--against", str(tmp_path / "1.txt"))
    assert synth(out, *words, **REAL, round_size="64", max_words="30") == 0
    manifest = read_json(out / "manifest.json")
    assert manifest["recipe"]["text_filters"]["against"] == [str(tmp_path / f"{n}.txt") for n in (0, 1)]
    assert manifest["filters"]["instructions"]["dropped"]["contaminated"]["n"] > 1
    assert not {row.instruction for row in AlignmentSet.open(out).rows()} & set(texts[:2])


def test_against_does_nothing_for_recordings_and_says_so(tmp_path: Path, capsys: Capture) -> None:
    assert synth(tmp_path / "set", "--against", "x.txt", source="{manifest: x.csv}") == 2
    assert "--against" in complaint(capsys) and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "keys",
    [{"max_seconds": "0.01"}, {"clip_limits": "{most_per_word: 0.001, spare: 0.0}"}],
    ids=["length", "speed"],
)
def test_a_set_all_of_whose_clips_are_left_out_is_no_set(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None], keys: dict[str, str]
) -> None:
    teach(FakeTeacher())
    assert synth(tmp_path / "set", **keys) == 1
    line = complaint(capsys)
    assert "all 4 clips were left out (" in line and " 4)" in line
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the shards of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "load_teacher", lambda recipe: FakeTeacher())
        patch.setattr(pipeline, "teacher_identity", lambda recipe: FakeTeacher().identity())
        patch.setattr(pipeline, "find_query", lambda recipe: None)
        out = tmp_path_factory.mktemp("whole") / "set"
        assert synth(out) == 0
    return contents(out)


@pytest.mark.parametrize(
    "place",
    [
        "ask/",
        "done/.ask",
        "filter/.filter",
        "state-",
        "done/.filter",
        "shards/",
        "done/.part",
        "manifest.json",
        "README",
    ],
)
def test_a_full_disk_ends_the_run_and_room_lets_the_same_command_go_on(
    tmp_path: Path,
    capsys: Capture,
    teach: Callable[[TextLM], None],
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, str],
    place: str,
) -> None:
    """Names still fit on a full disk, content does not."""
    teach(FakeTeacher())
    out = tmp_path / "set"

    def full(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        handle = builtins.open(file, mode, *more, **options)  # noqa: SIM115 - closed by whoever asked
        if "w" in mode and place in str(file).removeprefix(str(out)):
            handle.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return handle

    monkeypatch.setattr(files, "open", full, raising=False)
    assert synth(out) == 1
    assert "no space left on the disk: free some and run the same command again" in complaint(capsys)
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    monkeypatch.delattr(files, "open")
    assert synth(out) == 0 and contents(out) == whole
    assert AlignmentSet.open(out).names


def test_a_limit_of_the_system_on_the_size_of_files_is_a_full_disk(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None], whole: dict[str, str]
) -> None:
    teach(FakeTeacher())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        code = synth(tmp_path / "set")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "no space left" in complaint(capsys)
    assert synth(tmp_path / "set") == 0 and contents(tmp_path / "set") == whole


def test_folders_of_others_stay_as_they_are(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    teach(FakeTeacher())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    run_of_eval = tmp_path / "eval"
    run_of_eval.mkdir()
    (run_of_eval / "rba_config.json").write_text('{"schema_version": 1, "stage": "eval", "config": {}}')
    before = tree(tmp_path)
    for out, message in (
        (foreign, "is not empty (thesis.txt, ...)"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot use"),
        (run_of_eval, "holds the output of `eval`"),
    ):
        assert synth(out) == 2
        assert message in complaint(capsys) and tree(tmp_path) == before


REACTIONS: dict[str, tuple[Reaction, int, str]] = {
    "unauthorised": (failure(401, "wrong key"), 3, "refuses the API key (401)"),
    "no-model": (failure(404, "No model m."), 2, "serves no model 'm'"),
    "broken": (failure(500, "out of order"), 1, "out of order"),
    "a-web-page": (body("<html><body>Welcome</body></html>"), 1, "does not answer"),
    "slow": (hang(), 1, "no whole answer within 0.5 s"),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RBA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "0")
    monkeypatch.setenv("RBA_ENDPOINT_CONCURRENCY", "4")
    yield


def from_server(out: Path, address: str) -> int:
    query = {"query_template": "<user>", "query_stops": "[</user>]"}
    return synth(out, **REAL, **query, teacher=f"openai:{address}#m")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", REACTIONS)
def test_a_server_that_does_not_work_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    reaction, code, message = REACTIONS[kind]
    monkeypatch.setenv("RBA_ENDPOINT_TIMEOUT", "0.5" if kind == "slow" else "60")
    with serving(lambda seen: reaction) as server:
        assert from_server(tmp_path / "set", f"http://127.0.0.1:{server.port}/v1") == code
        line = complaint(capsys)
        assert message in line and str(server.port) in line
        assert len(server.seen) < 80, "each of four lanes gives up after eight items"
    assert not (tmp_path / "set").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("host", ["127.0.0.1", "teacher.invalid"], ids=["refused", "no-such-name"])
def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, capsys: Capture, host: str) -> None:
    assert from_server(tmp_path / "set", f"http://{host}:{free_port()}/v1") == 1
    assert host in complaint(capsys) and not (tmp_path / "set").exists()


@pytest.mark.parametrize("kind", ["template", "bare"])
@pytest.mark.parametrize(
    "template",
    ["{{ 'Hello' }}", "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "{% for %}"],
    ids=["constant", "no-user", "broken"],
)
def test_a_chat_template_without_a_user_turn_is_one_line(
    tmp_path: Path, capsys: Capture, template: str, kind: str
) -> None:
    tokenizer_with(template, [], None).save_pretrained(tmp_path / "tokenizer")
    asked = {"teacher": "openai:http://127.0.0.1:9/v1#m", "query_template": kind}
    out = tmp_path / "set"
    assert synth(out, **REAL, **asked, teacher_tokenizer=str(tmp_path / "tokenizer")) == 2
    assert "template" in complaint(capsys) and not out.exists()


def recordings(folder: Path, names: Sequence[str]) -> str:
    """A manifest of recordings, most of them unusable."""
    rate = 8_000
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound")
    sf.write(folder / "nan.wav", np.full(4_000, np.nan, np.float32), rate, subtype="FLOAT")
    sf.write(folder / "no-samples.wav", np.zeros(0, np.float32), rate)
    sf.write(folder / "stereo.wav", np.stack([tone(0.5, rate), 0.5 * tone(0.5, rate)], axis=1), rate)
    sf.write(folder / "long.wav", tone(600.0, rate), rate)
    lines = [
        {
            "id": name,
            "audio": f"{name}.wav",
            "transcript": f"Die {name}",
            "source_lang": "de",
            "target_lang": "en",
        }
        for name in names
    ]
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{{manifest: {path}}}"


def test_recordings_that_cannot_be_used_cost_themselves(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    teach(Translator())
    bad = ["empty", "text", "nan", "no-samples", "long"]
    assert synth(tmp_path / "set", source=recordings(tmp_path, [*bad, "stereo"])) == 0
    told = capsys.readouterr().err
    for name in bad:
        assert f"{name} is left out: " in told
    [row] = AlignmentSet.open(tmp_path / "set").rows()
    assert row.instruction == "Die stereo" and row.duration == pytest.approx(0.5, abs=0.01)
    dropped = read_json(tmp_path / "set" / "manifest.json")["filters"]["clips"]["dropped"]
    assert (dropped["silent"]["n"], dropped["too_long"]["n"]) == (4, 1)


def test_recordings_none_of_which_can_be_used_are_found_before_the_teacher_works(
    tmp_path: Path, capsys: Capture, teach: Callable[[TextLM], None]
) -> None:
    teacher = Translator()
    teach(teacher)
    assert synth(tmp_path / "set", source=recordings(tmp_path, ["empty", "text", "nan"])) == 2
    assert "none of 3 recordings that were tried can be decoded (empty: " in complaint(capsys)
    assert synth(tmp_path / "set", source=recordings(tmp_path, ["absent"])) == 3
    assert "absent.wav" in complaint(capsys) and not teacher.asked and not (tmp_path / "set").exists()
