"""A set that was made here goes to a Hub and comes back: what is published, and what stays."""

import shutil
from pathlib import Path

import pytest
from datasets import Audio, load_dataset
from huggingface_hub import DatasetCard, DatasetCardData, constants

from rba_bench import hub
from rba_bench.audio import clips
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.cards import CARD
from tests.cli.test_failures import run
from tests.local_hub import TOKEN, serve


def test_a_made_set_is_published_without_its_working_files(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An upload that is broken off goes on, and `datasets` reads what arrived."""
    made = shutil.copytree(finished, tmp_path / "set")
    assert (made / "ask").is_dir() and (made / "filter").is_dir() and (made / "done").is_dir()
    shards = AlignmentSet.open(made).names
    arrived = tmp_path / "arrived"
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "COMMIT_SIZE", 1)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.refuse_after("/commit/", 1, (500, "broken off"))
        assert run("push", str(made), "ann/spoken") == 1
        assert list(server.files("ann/spoken", "dataset")) == shards[:1]
        server.refuse = {}
        asked = len(server.asked)
        assert run("push", str(made), "ann/spoken") == 0
        again = [line for line in server.asked[asked:] if "/commit/" in line]
        files = server.files("ann/spoken", "dataset")
        assert server.repos["datasets/ann/spoken"]["private"]
    assert "1 are there already" in capsys.readouterr().err
    assert len(again) == len(files) - 1
    assert not [
        name for name in files if name.split("/")[0] in ("ask", "filter", "done") or name.startswith(".")
    ]
    assert {name for name in files if name.endswith(".parquet")} == set(shards)
    for name, data in files.items():
        (arrived / name).parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).write_bytes(data)
    assert AlignmentSet.open(arrived).sha256 == AlignmentSet.open(finished).sha256
    data = DatasetCard.load(arrived / CARD).data
    assert isinstance(data, DatasetCardData) and data.pretty_name and data.size_categories == ["n<1K"]
    rows = {row.id: row for row in AlignmentSet.open(finished).rows()}
    both = load_dataset(str(arrived), "all", split="train", cache_dir=str(tmp_path / "cache"))
    read = both.cast_column("audio", Audio(decode=False))
    assert {row["id"]: row["audio"]["bytes"] for row in read} == {
        name: clips.read_clip_bytes(row.audio) for name, row in rows.items()
    }
    train = load_dataset(str(arrived), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(train["id"]) == sorted(name for name, row in rows.items() if row.split == "train")
