"""The doctor names what is missing and what to type."""

import contextlib
import json
from pathlib import Path

import pytest

from rba_bench import doctor
from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.families import FAMILIES, VERIFIED_WITH, Entry


def test_missing_extra_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"tts": ("no_such_module",)})
    (check,) = [check for check in doctor.examine().checks if check.name == "extra tts"]
    assert not check.ok
    assert "no_such_module" in check.found
    assert check.fix == extra("tts")


def test_optional_extra_does_not_spoil_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"ko": ("no_such_module",)})
    checks = {check.name: check for check in doctor.examine().checks}
    assert not checks["extra ko"].ok
    assert doctor.examine().ready == all(checks[name].ok for name in doctor.NEEDED & checks.keys())


def test_absent_weights_are_found_and_exit_with_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json"])
    assert end.value.code == MissingPrerequisite.exit_code
    report = json.loads(capsys.readouterr().out)
    weights = next(check for check in report["checks"] if check["name"] == "micro weights")
    assert report["ready"] is False
    assert not weights["ok"] and "teacher" in weights["found"] and weights["fix"] == "rba-bench micro build"


def test_broken_check_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Check:
        raise MissingPrerequisite("no voices:\ninstall them")

    monkeypatch.setattr(doctor, "_speech", broken)
    (check,) = [check for check in doctor.examine().checks if check.name == "speech"]
    assert not check.ok and check.found == "no voices: install them"


def _group(heading: str) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine().checks if check.group == heading}


def test_every_family_says_whether_it_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda _: f"{VERIFIED_WITH}.9")
    monkeypatch.setitem(
        doctor.FAMILIES, "strange", Entry("strange", "Strange", "", verified=False, note="new")
    )
    found = _group(doctor.MODELS)
    assert set(found) == {*FAMILIES, "others"} and "qwen2_audio" in found
    assert found["qwen2_audio"].found.startswith(
        f"verified with transformers {VERIFIED_WITH}; Qwen/Qwen2-Audio"
    )
    assert found["strange"].found == "not verified; new"
    assert "not verified" in found["others"].found


@pytest.mark.parametrize("installed", ["5.3.0", "5.230", "6.0"])
def test_another_transformers_is_named(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda _: installed)
    assert f"verified with transformers {VERIFIED_WITH}, not with {installed};" in (
        _group(doctor.MODELS)["qwen2_audio"].found
    )


def test_keys_are_named_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RBA_API_KEY", "sk-very-secret")
    monkeypatch.setenv("RBA_API_KEY_X_ORG", "another-secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = _group(doctor.SERVERS)
    assert found["RBA_API_KEY"].found == "set; for servers on this machine"
    assert found["OPENAI_API_KEY"].found == "not set; for api.openai.com"
    assert found["RBA_API_KEY_X_ORG"].found == "set; for the host in its name"
    for arguments in (["doctor"], ["doctor", "--json"]):
        with contextlib.suppress(SystemExit):  # 3 where the micro weights are not built
            main(arguments)
    shown = capsys.readouterr()
    assert "RBA_API_KEY" in shown.out and "secret" not in shown.out + shown.err


def test_downloaded_whisper_weights_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _group(doctor.RECOGNISERS)["openai-whisper"].found.endswith("downloaded: none yet")
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.en.pt").write_bytes(b"")
    assert _group(doctor.RECOGNISERS)["openai-whisper"].found.endswith("downloaded: tiny.en")


def test_groups_have_headings(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    for heading in (doctor.MODELS, doctor.RECOGNISERS, doctor.SERVERS):
        assert lines.count(heading) == 1
    assert max(map(len, lines)) <= 140
