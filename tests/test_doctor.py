"""The doctor names what is missing and what to type."""

import json

import pytest

from rba_bench import doctor
from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite


def test_missing_extra_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"tts": ("no_such_module",)})
    (check,) = [check for check in doctor.examine().checks if check.name == "extra tts"]
    assert not check.ok
    assert "no_such_module" in check.found
    assert check.fix == "pip install 'rba-bench[tts]'"


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
