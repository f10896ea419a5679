"""`rba-bench compose` from the command line: the checkpoint's path or JSON on stdout, mistakes in one line."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.test_failures import refused, run


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import WhisperConfig, WhisperModel

    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    config = WhisperConfig(**sizes, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WhisperModel(config).save_pretrained(folder)
    return folder


def test_json_names_what_was_joined(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, tiny_textlm_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    words = ("--encoder", str(encoder_dir), "--llm", str(tiny_textlm_dir), "--out", str(out))
    assert run("compose", *words, "--stack", "2", "--json") == 0
    printed, told = capsys.readouterr()
    found = json.loads(printed)
    assert found["path"] == str(out) and found["provenance"]["options"]["stack"] == 2
    assert f"--set base={out}" in told
    assert run("compose", *words, "--stack", "2") == 0  # again: there already
    assert capsys.readouterr().out == f"{out}\n"


def test_mistakes_have_their_exit_codes(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, tiny_textlm_dir: Path, tmp_path: Path
) -> None:
    text, out = str(tiny_textlm_dir), str(tmp_path / "out")
    code, line = refused(capsys, "compose", "--encoder", text, "--llm", text, "--out", out)
    assert code == 2 and "not an encoder of Whisper's kind" in line
    nowhere = str(tmp_path / "nowhere")
    code, line = refused(capsys, "compose", "--encoder", nowhere, "--llm", text, "--out", out)
    assert code == 3 and "no encoder at" in line
    words = ("--encoder", str(encoder_dir), "--llm", text, "--out", out)
    code, line = refused(capsys, "compose", *words, "--connector", "decodr")
    assert code == 2 and "no connector 'decodr': did you mean 'decoder'?" in line
    code, line = refused(capsys, "compose", *words, "--connector", "decoder")
    assert code == 2 and "no usable Whisper" in line
    code, line = refused(capsys, "compose", "--encoder", str(encoder_dir), "--llm", text)
    assert code == 2 and "--out" in line
