"""What a run is said to take: parameters exactly, the rest by hand or within a factor."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rba_bench.cli.main import app
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.recipes import load_recipe
from rba_bench.training.model import trainable_parts as parts
from rba_bench.training.planning import assumptions, cost, plan, shapes
from rba_bench.training.planning.assumptions import DataEstimate
from rba_bench.training.training_recipe import TrainingRecipe

FULL = Path(__file__).parents[3] / "recipes" / "full"
RUNS = sorted(path.stem for path in FULL.glob("*.yaml") if not path.stem.startswith("synth-"))

# 2 layers of width 8, 4 query and 2 key heads of 2, inner width 16; 100 tokens; an encoder of 1,000 parameters
TOY = shapes.ModelShape(
    "toy", encoder=1000, projector=50, llm=2600, embedding=800, vocabulary=100, hidden=8, layers=2, ffn=16,
    attention=8, kv=4, encoder_hidden=4, encoder_layers=1, encoder_ffn=8, audio_rate=10.0, padded=False,
)  # fmt: skip
DATA = DataEstimate(groups=100, voices=4, seconds=2.0, answer_tokens=5.0, source="given")
ASSUMED = assumptions.Assumptions(text_tokens=10, overhead_gb=0, fragmentation=0, reward_parameters=500)


def step(**values: Any) -> cost.StepCost:
    return cost.step_cost(TrainingRecipe(groups_per_step=2, max_new_tokens=7, **values), TOY, DATA, ASSUMED)


@pytest.mark.parametrize(
    "lora", [None, {"r": 2, "targets": ["q_proj", "down_proj"], "encoder_targets": ["fc1"]}]
)
@pytest.mark.parametrize("train_parts", [["projector"], ["projector", "llm", "encoder"]])
def test_parameters_are_counted_exactly_without_weights(
    tiny_composite_dir: Path, family: Any, train_parts: list[str], lora: dict[str, Any] | None
) -> None:
    if lora is not None and "llm" not in train_parts:
        train_parts = ["projector", "llm", "encoder"]
    recipe = TrainingRecipe(base=str(tiny_composite_dir), train_parts=train_parts, lora=lora)
    config = shapes.find_config(str(tiny_composite_dir))
    shape = shapes.model_shape("tiny", config, recipe.lora)
    assert shape.parameters == sum(p.numel() for p in family.model.parameters())
    for name, modules in family.parts().items():
        own = {id(p): p.numel() for module in modules for p in module.parameters()}
        assert getattr(shape, name) == sum(own.values()), name
    parts.freeze(family, recipe.train_parts, recipe.lora)
    moving = sum(p.numel() for p in family.model.parameters() if p.requires_grad)
    assert sum(cost.trained_counts(recipe, shape).values()) == moving


def test_the_papers_model_is_known_without_its_weights() -> None:
    shape = shapes.model_shape("Q", shapes.find_config("Qwen/Qwen2-Audio-7B"))
    assert shape.parameters == 8_397_094_912  # as the Hub counts its safetensors
    assert (shape.audio_rate, shape.layers, shape.vocabulary) == (25.0, 32, 156_032)


@pytest.mark.parametrize("name", ["nobody/nothing", "no-such-folder"])
def test_an_unknown_model_is_refused_with_what_to_give(name: str) -> None:
    with pytest.raises(MissingPrerequisite, match="give the folder of its config.json") as refused:
        shapes.find_config(name)
    assert "\n" not in str(refused.value) and "Qwen/Qwen2-Audio-7B" in str(refused.value)
    with pytest.raises(MissingPrerequisite, match="--assume reward_parameters=8e9"):
        shapes.text_parameters(name, "reward_parameters")


def test_a_wrong_assumption_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'mfu'") as refused:
        assumptions.parse_assumptions(["mfuu=0.4"])
    assert "--set" not in str(refused.value)
    with pytest.raises(UserError, match="--assume mfu=3"):
        assumptions.parse_assumptions(["mfu=3"])


@pytest.mark.parametrize(
    ("changes", "answers", "samples", "positions"),
    [
        # prompts of 10 + 2 x 10 tokens, answers of 5, for a group of four clips
        ({"method": "sft"}, 4, 0, 4 * 30 + 4 * 5),
        ({"method": "sft", "layout": "pad"}, 4, 0, 4 * (30 + 5)),
        ({"method": "rba-single"}, 8, 4, 4 * 30 + 8 * 5),
        ({"method": "rba-single", "layout": "pad"}, 8, 4, 8 * (30 + 5)),
        ({"method": "rba-group"}, 4 + 2, 4, 4 * 30 + 6 * 5),
        ({"method": "odpo"}, 2, 4, 2 * 30 + 2 * 5),
        ({"method": "grpo"}, 4, 4, 4 * 30 + 4 * 5),
        ({"method": "dapo"}, 4, 6, 4 * 30 + 4 * 5),
        ({"method": "scst"}, 4, 8, 4 * 30 + 4 * 5),
        ({"method": "mrt"}, 4 + 16, 16, 4 * 30 + 20 * 5),
        ({"method": "gkd", "student_fraction": 0.5}, 4, 4, 4 * 30 + 4 * 5),
    ],
)
def test_what_a_step_holds_by_hand(
    changes: dict[str, Any], answers: float, samples: float, positions: float
) -> None:
    found = step(**changes)
    assert (found.scored, found.samples, found.positions) == (2 * answers, 2 * samples, 2 * positions)


@pytest.mark.parametrize("method", ["rba-single", "rba-group", "odpo", "grpo", "scst", "mrt", "gkd", "sft"])
def test_a_step_holds_what_the_trainer_draws_and_scores(
    recipe_for: Callable[..., Any], groups: dict[str, Any], method: str
) -> None:
    from rba_bench.training.methods import make_method

    recipe = recipe_for(method=method, voices_per_group=3)
    asked = make_method(recipe, [4]).requests(groups["g0"])
    assert cost.samples_per_group(recipe, 3) == (len(asked) if recipe.uses_rollout else 0)


def test_operations_by_hand() -> None:
    # 2,600 - 2 x 800 parameters that tokens pass, and attention over 35 tokens: 4 x 2 x 8 x 35 / 2
    token, head = 2 * 1000 + 1120, 2 * 100 * 8
    sft = step(method="sft", train_parts=["projector"])
    encoder = 2 * (8 * 2 * 50) * (1000 + 3 * 50 * 10 / 50)
    assert sft.train == pytest.approx(280 * 2 * token + 40 * 2 * head + encoder)
    whole = step(method="sft", train_parts=["projector", "llm"])
    assert whole.train == pytest.approx(280 * 3 * token + 40 * 3 * head + encoder)
    again = step(method="sft", train_parts=["projector", "llm"], gradient_checkpointing=True)
    assert again.train - whole.train == pytest.approx(280 * token)
    assert step(method="rba-single").other == 0
    with_reference = step(method="dpo")
    assert with_reference.other == pytest.approx(with_reference.positions * token + 80 * head)
    judged = step(method="grpo", policy_gradient={"kl_weight": 0})
    assert judged.other == pytest.approx(2 * 500 * 8 * (cost.TEACHER_TURN + 5))


def test_memory_by_hand() -> None:
    recipe = TrainingRecipe(method="dpo", groups_per_step=2, max_new_tokens=7)
    found = cost.step_cost(recipe, TOY, DATA, ASSUMED)
    one = cost.memory_cost(recipe, TOY, found, ASSUMED, 1, False)
    assert (one.weights, one.gradients, one.optimizer) == (3650 * 4, 2650 * 4, 2650 * 8)
    assert (one.reference, one.judges, one.cast) == (2650 * 4, 0, 0)
    assert one.sampling == 8 * (30 + 7) * 2 * 2 * 4 * 4
    assert one.logits == 80 * 100 * 8
    shared = cost.memory_cost(recipe, TOY, found, ASSUMED, 2, True)
    layer = (2600 - 1600) / 2
    assert shared.weights == 2650 * 4 / 2 + 1000 * 4 + layer * 4 * 2  # the encoder is frozen, and whole
    assert (shared.optimizer, shared.activations) == (one.optimizer / 2, one.activations / 2)
    half = cost.memory_cost(
        recipe.model_copy(update={"precision": "bfloat16"}), TOY, found, ASSUMED, 1, False
    )
    assert (half.weights, half.cast) == (2650 * 4 + 1000 * 2, 2650 * 2)


@pytest.mark.parametrize("name", RUNS)
def test_the_papers_runs_can_be_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their recipes say what the paper says; one model is counted once for all of them."""
    recipe = load_recipe(TrainingRecipe, FULL / f"{name}.yaml")
    assert (recipe.warmup_steps, recipe.learning_rate, recipe.adam_beta2) == (3000, 1e-4, 0.98)
    assert (recipe.validation.items, recipe.select, recipe.track) == (128, "best", "full")
    assert recipe.voices_per_group * recipe.samples_per_clip == 4
    toy = replace(TOY, encoder=637_000_000, llm=7_755_000_000, embedding=639_000_000, layers=32, hidden=4096)
    monkeypatch.setattr(plan, "model_shape", lambda *_: toy)
    monkeypatch.setattr(plan, "find_config", lambda _: {})
    made = plan.plan_training(recipe, assumptions.Assumptions())
    fits = {(fit.device, fit.devices): fit for fit in made.fits}
    assert fits["RTX 4090", 1].launch == "" and "GB on each device" in fits["RTX 4090", 1].why
    assert fits["H200", 8].launch == "fsdp2" and fits["H200", 8].hours > 0
    assert made.steps >= 250_000 // 64


def test_more_devices_take_less_time_and_memory(recipe_for: Callable[..., Any]) -> None:
    recipe = recipe_for(method="sft", groups_per_step=8)
    fits = {(fit.device, fit.devices): fit for fit in plan.plan_training(recipe, ASSUMED).fits}
    one, eight = fits["H100 80GB", 1], fits["H100 80GB", 8]
    assert (one.launch, eight.launch) == ("one", "ddp")
    assert eight.step_s == pytest.approx(one.step_s / 8) and eight.memory.peak < one.memory.peak
    assert "no multiple of 32" in fits["H100 80GB", 32].why
    split = plan.plan_training(recipe.model_copy(update={"accumulate": 4, "groups_per_step": 48}), ASSUMED)
    assert [fit.why.split(":")[0] for fit in split.fits if fit.devices == 8] == ["set accumulate to 3"] * 5


def test_data_are_read_where_they_are(recipe_for: Callable[..., Any], rows: list[Any]) -> None:
    made = plan.plan_training(recipe_for(method="sft", steps=7), assumptions.Assumptions())
    assert (made.data.groups, made.data.voices, made.steps) == (7, 2, 7)
    assert made.data.seconds == pytest.approx(sum(row.duration for row in rows) / len(rows))
    assumed = plan.plan_training(
        recipe_for(epochs=2), assumptions.parse_assumptions(["groups=100", "seconds=9"])
    )
    assert (assumed.steps, assumed.data.seconds) == (100, 9)


def told(*words: str) -> Any:
    return CliRunner().invoke(app, ["train", "--plan", *words])


def test_the_command_prints_a_plan_and_starts_nothing(
    recipe_for: Callable[..., Any], tiny_composite_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--method", "sft", "--set", f"base={tiny_composite_dir}"]
    printed = told(*base)
    assert printed.exit_code == 0 and "8 x H100 80GB" in printed.stdout and "assumed" in printed.stdout
    values = json.loads(told(*base, "--json", "--assume", "seconds=3").stdout)
    assert values["plan"]["data"]["seconds"] == 3 and values["totals"]["clips"] == 200 * 32
    assert list(tmp_path.iterdir()) == []
    unknown, wrong, alone = (
        told("--set", "base=nobody/nothing"),
        told("--assume", "mfu=7"),
        CliRunner().invoke(app, ["train", "--assume", "mfu=0.5"]),
    )
    assert [one.exception.exit_code for one in (unknown, wrong, alone)] == [3, 2, 2]  # type: ignore[union-attr]
    assert "add --plan" in str(alone.exception)


def test_this_machine_can_be_measured() -> None:
    here = assumptions.probe_device(64, 128, seconds=0.05)
    assert here.tflops > 1e-4 and here.bandwidth > 0.1 and here.memory_gb > 0.1


def test_a_ctc_compressor_counts_as_encoder_and_shortens_the_clips() -> None:
    from transformers import LlamaConfig, WhisperConfig

    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.ctc_compressor import CompressorSizes, CTCCompressor
    from rba_bench.training.planning.shapes import WORD_PIECES_PER_SECOND, model_shape

    audio = WhisperConfig(d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16)
    text = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    sizes = CompressorSizes(12, 2, 2, 16, 5, 20, 1)
    plain = model_shape("plain", CompositeConfig(audio, text).to_dict())
    compressed = model_shape("ctc", CompositeConfig(audio, text, compressor=sizes.to_dict()).to_dict())
    compressor = CTCCompressor(sizes, 8, 16)
    assert compressed.encoder - plain.encoder == sum(p.numel() for p in compressor.parameters())
    assert compressed.llm == plain.llm
    assert compressed.audio_rate == WORD_PIECES_PER_SECOND < plain.audio_rate


def test_whispers_decoder_counts_as_encoder_and_pads_the_clips() -> None:
    from transformers import LlamaConfig, WhisperConfig

    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.decoder_compressor import DecoderCompressor, DecoderSettings
    from rba_bench.training.planning.shapes import model_shape

    sizes = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_layers": 1}
    audio = WhisperConfig(
        d_model=8, vocab_size=30, pad_token_id=0, decoder_attention_heads=2, decoder_ffn_dim=16, **sizes
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    settings = DecoderSettings(8, (20, 21), 19, n_pieces=9, longest=2)
    plain = model_shape("plain", CompositeConfig(audio, text).to_dict())
    written = model_shape("decoder", CompositeConfig(audio, text, compressor=settings.to_dict()).to_dict())
    decoder = DecoderCompressor(settings, audio, 16)
    assert written.encoder - plain.encoder == sum(p.numel() for p in decoder.parameters())
    assert written.padded and not plain.padded and written.audio_rate < plain.audio_rate
