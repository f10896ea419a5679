"""The shipped task files under stock lm_eval and under our own runner, and their BLEU against the sacrebleu command."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rba_bench.evaluation import harness, task_registry
from rba_bench.evaluation.documents import SPLIT
from rba_bench.evaluation.model_input import read_generation_settings
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import read_samples
from rba_bench.evaluation.runner import evaluate
from rba_bench.evaluation.sources import language_pairs
from rba_bench.files import read_jsonl
from tests.evaluation.conftest import ScriptedModel
from tests.evaluation.sources import speech_sets as sets

TASKS = task_registry.tasks_dir()
TARGETS = {"en": "de_en", "de": "en_de", "zh": "en_zh-CN", "ja": "en_ja"}
TOKENIZERS = {"en": "13a", "de": "13a", "zh": "zh", "ja": "ja-mecab"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)


def path_of(name: str) -> Path:
    return TASKS / language_pairs.benchmark_of(name) / f"{name}.yaml"


def half_right(request) -> str:
    """A translation that is partly right: a seeded drop and a swap of words (of characters in Chinese and Japanese)."""
    code, number = next(
        (code, texts.index(request.transcript))
        for code, texts in sets.SENTENCES.items()
        if request.transcript in texts
    )
    wanted = {"English": "en", "German": "de", "Chinese": "zh", "Japanese": "ja"}
    target = next(code for name, code in wanted.items() if name in request.prompt)
    text, gap = sets.SENTENCES[target][number], "" if target in ("zh", "ja") else " "
    tokens = list(text) if gap == "" else text.split()
    rng = random.Random(f"{code}{number}")
    del tokens[rng.randrange(len(tokens))]
    place = rng.randrange(len(tokens) - 1)
    tokens[place], tokens[place + 1] = tokens[place + 1], tokens[place]
    return gap.join(tokens)


def sacrebleu(folder: Path, references: list[str], hypotheses: list[str], *flags: str) -> str:
    """What the command prints for these files, with 13 decimals."""
    for name, lines in (("ref", references), ("hyp", hypotheses)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(folder / "ref"), "-i", str(folder / "hyp")]
    done = subprocess.run(
        [*command, "-b", "-w", "13", *flags], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


@pytest.mark.parametrize("target", list(TARGETS))
def test_scores_equal_the_sacrebleu_command_to_the_last_digit(target, tmp_path, use_model):
    name = f"covost2_{TARGETS[target]}"
    sets.write_covost2(tmp_path / "data", TARGETS[target])
    use_model(ScriptedModel(half_right))
    request = EvalRequest((name,), "x", track="full", out=tmp_path / "out", data_dir=tmp_path / "data")
    [record] = evaluate(request)
    [run] = (tmp_path / "out").glob("*/*/run.json")
    samples = read_samples(run.parent)
    references = [sample.references[0] for sample in samples]
    hypotheses = [sample.response for sample in samples]
    found = {key: f"{metric.value:.13f}" for key, metric in record.metrics.items()}
    assert found == {
        "bleu": sacrebleu(tmp_path, references, hypotheses, "-tok", TOKENIZERS[target]),
        "chrf++": sacrebleu(tmp_path, references, hypotheses, "-m", "chrf", "--chrf-word-order", "2"),
    }
    assert 5 < record.metrics["bleu"].value < 95
    assert f"tok:{TOKENIZERS[target]}" in record.metrics["bleu"].signature


@pytest.mark.slow
def test_task_and_group_under_the_lm_eval_command(tmp_path):
    """One task by its path, one group by its name with `_models.yaml` beside it, data from RBA_DATA_DIR."""
    for code in ("en", *language_pairs.FLEURS_FROM_ENGLISH):
        sets.write_fleurs(tmp_path / "data", code, (2, 1))
    sets.write_covost2(tmp_path / "data", "de_en")
    chosen = (path_of("covost2_de_en"), TASKS / "_models.yaml", "fleurs_en_x")
    arguments = [
        *("--model", "rba-speechlm", "--model_args", "pretrained=constant", "--include_path", str(TASKS)),
        *("--tasks", ",".join(map(str, chosen)), "--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    environment = {"RBA_DATA_DIR": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *arguments],
        **{"capture_output": True, "text": True, "timeout": 900, "env": {**os.environ, **environment}},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [file] = (tmp_path / "out").glob("*/results_*.json")
    results = json.loads(file.read_text())["results"]
    members = language_pairs.GROUPS["fleurs_en_x"]
    assert results.keys() == {"covost2_de_en", "rba_bench_models", "fleurs_en_x", *members}
    for metric in ("bleu,none", "chrf++,none"):
        mean = sum(results[name][metric] for name in members) / len(members)
        assert results["fleurs_en_x"][metric] == pytest.approx(mean, abs=1e-12)
    assert all(results[name]["sample_len"] == 3 for name in members)
    [log] = (tmp_path / "out").glob("*/samples_covost2_de_en_*.jsonl")
    samples = list(read_jsonl(log))
    assert {sample["resps"][0][0] for sample in samples} == {"i do not know"}
    assert f"{results['covost2_de_en']['bleu,none']:.13f}" == sacrebleu(
        tmp_path, [sample["doc"]["references"][0] for sample in samples], ["i do not know"] * len(samples)
    )


def test_stock_and_runner_agree_on_transcription(tmp_path, use_model):
    from lm_eval.evaluator import evaluate as lm_eval_evaluate
    from lm_eval.tasks import TaskManager

    sets.write_fleurs(tmp_path / "data", "de", (2, 1, 1, 1))

    def hear(request):
        return request.transcript.replace("das kleine", "ein kleines").replace("drei", "")

    manager = TaskManager(include_defaults=False, metadata={"data_dir": str(tmp_path / "data")})
    loaded = manager.load([str(path_of("asr_fleurs_de"))])
    lm = harness.RbaSpeechLM(device="cpu", model=ScriptedModel(hear))
    printed = lm_eval_evaluate(lm, loaded)["results"]["asr_fleurs_de"]
    use_model(ScriptedModel(hear))
    names, folder = ("asr_fleurs_de",), tmp_path / "data"
    [record] = evaluate(EvalRequest(names, "x", track="full", out=tmp_path / "out", data_dir=folder))
    assert record.metrics["wer"].value == pytest.approx(100 * 5 / 46)  # 2 + 2 + 1 of 9 + 9 + 9 + 9 + 10 words
    for metric, value in record.metrics.items():
        assert printed[f"{metric},none"] == pytest.approx(value.value, abs=1e-12)
        assert printed[f"{metric}_stderr,none"] == pytest.approx(value.stderr, abs=1e-12)


def test_mustc_runs_with_intervals_over_talks(tmp_path, use_model):
    sets.write_mustc(tmp_path / "data", "de")
    use_model(ScriptedModel(half_right))
    names, folder = ("mustc_en_de",), tmp_path / "data"
    [record] = evaluate(EvalRequest(names, "x", track="full", out=tmp_path / "out", data_dir=folder))
    bleu = record.metrics["bleu"]
    assert bleu.low < bleu.value < bleu.high and bleu.n == 6 and "cluster" in bleu.method


def test_shipped_files_are_what_the_generator_writes():
    script = TASKS.parent / "dev" / "make_translation_tasks.py"
    spec = importlib.util.spec_from_file_location("make_translation_tasks", script)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.differing(TASKS) == generator.stale(TASKS) == set()
    assert len(generator.wanted()) == 36 + 20 + 15 + 16 + 22 + 7


def test_generator_drops_files_that_no_longer_belong(tmp_path):
    script = TASKS.parent / "dev" / "make_translation_tasks.py"
    spec = importlib.util.spec_from_file_location("make_translation_tasks", script)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    for name in ("covost2_en_tlh", "mine"):
        (tmp_path / "covost2").mkdir(exist_ok=True)
        track = "full" if name != "mine" else "custom"
        text = yaml.safe_dump({"task": name, "metadata": {"track": track}})
        (tmp_path / "covost2" / f"{name}.yaml").write_text(text)
    assert generator.stale(tmp_path) == {Path("covost2/covost2_en_tlh.yaml")}
    assert len(generator.differing(tmp_path)) == len(generator.wanted())


def test_every_shipped_task_has_the_protocol_of_its_kind():
    specs = {spec.name: spec for spec in task_registry.list_tasks()}
    for name in language_pairs.SHIPPED:
        spec = specs[name]
        chosen = read_generation_settings(spec.config["generation_kwargs"])
        assert (spec.track, spec.version, spec.protocol) == ("full", "2", "greedy")
        assert chosen.decoding.max_new_tokens == 256 and chosen.until == ()
        assert spec.metrics == (["wer", "cer"] if spec.benchmark == "asr" else ["bleu", "chrf++"])
        assert spec.config["dataset_kwargs"] == language_pairs.dataset_kwargs(name)
    micro = specs["micro_covost2"].config
    assert specs["covost2_en_de"].config["metric_list"] == micro["metric_list"]


def test_any_pair_of_fleurs_is_a_task(tmp_path):
    sets.write_fleurs(tmp_path / "data", "ja", (1, 1))
    sets.write_fleurs(tmp_path / "data", "it", (1, 1))
    path = language_pairs.task_file("fleurs_ja_it", TASKS, tmp_path / "made")
    assert path is not None and language_pairs.task_file("fleurs_ja_tlh", TASKS, tmp_path / "made") is None
    task = harness.load_task(path, metadata={"data_dir": str(tmp_path / "data")})
    docs = list(task.dataset[SPLIT])
    assert [doc["references"] for doc in docs] == [[text] for text in sets.SENTENCES["it"][:2]]
    assert docs[0]["prompt"].startswith("Translate the speech into Italian.")
    assert [spec.name for spec in task_registry.resolve_tasks(["fleurs_ja_it"], track="full")] == [
        "fleurs_ja_it"
    ]


@pytest.mark.parametrize("group", list(language_pairs.GROUPS))
def test_groups_resolve_to_their_tasks(group):
    assert (
        tuple(spec.name for spec in task_registry.resolve_tasks([group], track="full"))
        == language_pairs.GROUPS[group]
    )


def test_readmes_name_every_task():
    for benchmark in ("covost2", "fleurs", "mustc", "asr"):
        text = (TASKS / benchmark / "README.md").read_text(encoding="utf-8")
        for name in (*language_pairs.SHIPPED, *language_pairs.GROUPS):
            if language_pairs.benchmark_of(name) == benchmark:
                assert f"`{name}`" in text, name
