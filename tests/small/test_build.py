"""The build of the base from small parts: killed, it goes on; its connector is a model that answers."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rba_bench.assets import SMALL, WEIGHTS
from rba_bench.errors import UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.small import build, training_speech
from rba_bench.small.alignment import load_alignment_set
from rba_bench.small.build import SmallBuild, build_aligned, build_weights
from rba_bench.small.training_texts import Sentence
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.compose import compose_connector
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding
from rba_bench.training.connector import ConnectorRecipe
from rba_bench.training.decoder_adaptation import DecoderRecipe, DecoderTrainer

pytest.importorskip("espeakng_loader")
PLAN = SmallBuild(kd_steps=2, repeated=2, decoder=DecoderRecipe(steps=4, clips=2, warmup=1, save_every=1))
CTC_PLAN = SmallBuild(
    connector="ctc",
    sentences=6,
    layers=3,
    ffn=16,
    kd_steps=2,
    repeated=2,
    recipe=ConnectorRecipe(epochs=1, warmup=1, batch_seconds=4.0),
)


@pytest.fixture
def parts(
    whisper_dir: Path,
    tiny_textlm_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiny models for the assets, noises for the training clips, a few lines for the alignment set."""
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "ENCODER", str(whisper_dir))
    monkeypatch.setattr(build, "LLM", str(tiny_textlm_dir))
    lines = [
        {"id": f"text-{n}", "kind": "instruct", "instruction": "say the red cat", "answer": "the red cat"}
        for n in range(12)
    ]
    own = tmp_path / "texts.jsonl"
    own.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(build, "TEXTS", own)
    monkeypatch.setattr(build, "load_alignment_set", lambda texts=own: load_alignment_set(texts))
    words = ("say", "the", "red", "cat", "to", "me")
    sentences = [Sentence(" ".join([*words[n:], *words[:n]]), "example") for n in range(PLAN.sentences)]
    monkeypatch.setattr(build.training_texts, "training_sentences", lambda count, seed: sentences[:count])

    def noises(numbered: Any, *_: Any, **__: Any) -> Any:
        for number, text in numbered:
            yield number, text, np.random.default_rng(number).standard_normal(16_000).astype(np.float32) * 0.1

    monkeypatch.setattr(training_speech, "clips", noises)


def test_the_base_is_a_projector_behind_whispers_decoder_which_learnt_new_voices(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_weights(tmp_path / "out", PLAN).parent
    facts = read_json(folder / "connector.json")
    assert facts["compressor"]["kind"] == "decoder" and facts["compressor"]["trained"] == ["encoder_attn"]
    assert facts["kd"]["steps"] == 2 and facts["clips"] == 8
    assert facts["parts"]["encoder"]["id"] == build.ENCODER and str(tmp_path) not in json.dumps(facts["kd"])
    shipped = load_file(folder / "connector.safetensors")
    decoder = {name for name in shipped if not name.startswith("projector.")}
    assert decoder and all(
        name.startswith("compressor.decoder.") and ".encoder_attn." in name for name in decoder
    )
    own = compressor_of(tmp_path / "out" / "untrained")
    compose_connector(folder, tmp_path / "composed")
    loaded = compressor_of(tmp_path / "composed")
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]) != (f"compressor.{name}" in decoder), name
    distilled = list(read_jsonl(tmp_path / "out" / "kd-texts.jsonl"))
    assert [row["answer"] for row in distilled[12:]] == [row["instruction"] for row in distilled[12:]]
    assert len(distilled) == 12 + PLAN.repeated and distilled[-1]["prompt"].startswith("Repeat")
    _check_answers(folder)
    _check_aligned(folder, tmp_path, monkeypatch)
    shared = read_json(tmp_path / "aligned" / "aligned-rba-single" / "connector.json")["compressor_of"]
    assert shared["id"] == str(folder)


def test_a_decoder_that_is_killed_while_it_trains_ends_with_the_same_weights(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_distil", lambda *_: None)
    monkeypatch.setattr(build, "load_family", only_decoders(build.load_family))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out, last in ((whole, 99), (killed, 2)):
        steps = DecoderTrainer.loss

        def loss(self: DecoderTrainer, last: int = last, steps: Any = steps) -> Any:
            if self.step == last:
                raise KeyboardInterrupt
            return steps(self)

        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Stopped)):
            patch.setattr(DecoderTrainer, "loss", loss)
            build_weights(out, PLAN)
    with pytest.raises(Stopped):
        build_weights(killed, PLAN)
    ours, theirs = (
        load_file(out / "decoder" / "connector" / "connector.safetensors") for out in (killed, whole)
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Stopped(Exception):
    """Behind the decoder's stage."""


def only_decoders(load: Any) -> Any:
    """A `load_family` that stops a build before it loads what was distilled."""

    def loaded(folder: Path) -> Any:
        if folder.name == "kd":
            raise Stopped
        return load(folder)

    return loaded


def compressor_of(folder: Path) -> Any:
    """Of a composite."""
    return load_family(folder).model.model.compressor


def test_a_killed_build_of_a_ctc_compressor_goes_on_and_ends_in_a_model_that_can_be_aligned(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "_distil", dies)
        with pytest.raises(KeyboardInterrupt):
            build_weights(tmp_path / "out", CTC_PLAN)
    read = tmp_path / "out" / "ctc" / "connector" / "connector.safetensors"
    before = read.stat().st_mtime_ns
    folder = build_weights(tmp_path / "out", CTC_PLAN).parent
    assert read.stat().st_mtime_ns == before  # the compressor was not trained again
    facts = read_json(folder / "connector.json")
    assert facts["plan"]["sentences"] == facts["clips"] == CTC_PLAN.sentences
    assert facts["parts"]["encoder"]["id"] == build.ENCODER and facts["kd"]["steps"] == 2
    assert str(tmp_path) not in json.dumps(facts["kd"])  # it ships
    assert build_weights(tmp_path / "out", CTC_PLAN).parent == folder

    _check_answers(folder)
    with pytest.raises(UserError, match="seed"):
        build_weights(tmp_path / "out", replace(CTC_PLAN, seed=1))

    _check_aligned(folder, tmp_path, monkeypatch)


def _check_answers(folder: Path) -> None:
    request = SpeechRequest(np.zeros(8_000, np.float32), key="a")
    assert not load_speech_model(folder).generate([request], Decoding(max_new_tokens=3))[0].error


def _check_aligned(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An aligned connector holds its projector alone."""
    short = ("steps=2", "groups_per_step=1", "voices_per_group=2", "warmup_steps=0", "max_new_tokens=4")
    monkeypatch.setattr(build, "ALIGNMENT", (*build.ALIGNMENT, *short, "eval_every=0", "select=last"))
    folder = build_aligned("rba-single", tmp_path / "aligned", str(base)).parent
    facts = read_json(folder / "connector.json")
    assert facts["aligned"]["recipe"]["method"] == "rba-single" and facts["aligned"]["steps"] == 2
    ours, theirs = (load_file(f / "connector.safetensors") for f in (folder, base))
    assert ours.keys() == {name for name in theirs if name.startswith("projector.")}
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    _check_answers(folder)
    with pytest.raises(UserError, match="no aligned connector of 'dpo': there are sft, rba-single"):
        build_aligned("dpo", tmp_path / "other", str(base))


def test_the_shipped_base_is_what_the_build_makes_today() -> None:
    shipped = read_json(WEIGHTS[SMALL].folder / "base" / "connector.json")
    assert shipped["plan"] == json.loads(json.dumps(asdict(SmallBuild())))
