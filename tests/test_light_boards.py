"""Boards are read, compared, verified and built where the libraries that run models are broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import rba_bench
from rba_bench.errors import MissingPrerequisite
from rba_bench.leaderboard import verify
from rba_bench.metrics import whisper_text
from tests.published import published_run

ROOT = Path(rba_bench.__file__).parent.parent

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "whisper")
BROKEN = f"""
import json, sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise OSError(f"lib{{name}}.so: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from rba_bench.cli.main import main
def run(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def _qa(model: str) -> Path:
    """The greedy run of a model on spoken questions, whose scorer reads Whisper's table of spellings."""
    return published_run(model, "micro_triviaqa")


def test_boards_need_none_of_the_libraries_that_run_models(tmp_path: Path) -> None:
    base, sft = _qa("base"), _qa("sft")
    code = BROKEN + (
        "run('tasks', 'list')\n"
        f"run('compare', {str(base)!r}, {str(sft)!r})\n"
        f"run('leaderboard', 'verify', {str(base)!r})\n"
        f"run('rescore', {str(base)!r}, '--out', {str(tmp_path / 'rescored')!r})\n"
        "import rba_bench.study.report\n"
        "import rba_bench as rba\n"
        f"run = rba.load_run({str(base)!r})\n"
        f"assert len(run.samples.to_pandas()) == 96 == run.results['micro_triviaqa']['asserted_match'].n\n"
        f"assert len(rba.compare(run, {str(sft)!r}).to_pandas()) == 3\n"
        f"assert len(rba.leaderboard([run, {str(sft)!r}], {str(tmp_path / 'board')!r}).to_pandas()) == 6\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert "asserted_match" in done.stdout and "1 record, 0 at fault" in done.stdout
    assert "| sft" in (tmp_path / "board" / "index.md").read_text()


def test_a_scorer_without_its_package_costs_its_own_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translations are scored without openai-whisper, English questions are not, whatever was scored before."""
    translated = published_run("base", "micro_covost2")
    assert verify.verify_records([_qa("base")]).ok  # with the package; normalised answers are remembered now
    monkeypatch.setattr(whisper_text, "DISTRIBUTION", "no-such-package")
    _forget_normalized_texts()
    try:
        checked = verify.verify_records([_qa("base"), translated])
        by_task = {verdict.record.task: verdict for verdict in checked.verdicts if verdict.record}
        assert checked.ok
        assert by_task["micro_covost2"].unscored == ""
        line = by_task["micro_triviaqa"].line()
        assert line.startswith("UNSURE") and line.endswith("not installed: pip install no-such-package")
        assert by_task["micro_triviaqa"].to_dict()["scores_computed_again"] is False
        with pytest.raises(
            MissingPrerequisite, match=r"micro_triviaqa-\w+ cannot be verified: .*pip install"
        ):
            verify.refuse_faulty(checked.runs)
    finally:
        _forget_normalized_texts()


def _forget_normalized_texts() -> None:
    """Empty every cache of scores: what one of them remembers needs no package any more."""
    for name in [
        name
        for name in sys.modules
        if name.startswith(("rba_bench.metrics", "rba_bench.leaderboard.item_facts"))
    ]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def test_the_normaliser_is_that_of_the_package() -> None:
    from whisper.normalizers import EnglishTextNormalizer

    own, theirs = whisper_text.english_normalizer(), EnglishTextNormalizer()
    for text in ("Mr. Brown's colour won't cost $20 million", "twenty-one (21) organisations", "one oh one"):
        assert own(text) == theirs(text)
    assert whisper_text.american_spelling() == theirs.standardize_spellings.mapping
