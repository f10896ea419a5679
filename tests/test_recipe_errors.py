"""What a user wrote wrong is named with what to write instead, in one line, whatever form the value has."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.recipes import load_recipe, suggest
from rba_bench.training.training_recipe import TrainingRecipe


def refused(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(TrainingRecipe, path, overrides)
    line = str(caught.value)
    assert "\n" not in line and "Input should" not in line and "constrained" not in line
    return line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("polcy_gradient.kl_weight=1", "unknown key 'polcy_gradient'; did you mean 'policy_gradient'?"),
        ("lora.rank=8", "valid: alpha, encoder_targets, r, targets"),
        ("lora=8", "lora: has keys of its own (r, alpha, targets, encoder_targets)"),
        ("validation=5", "--set validation.metric=..."),
        ("teacher=micro", "top_k, ...): write them below it, or --set teacher.model=..."),
        ("steps=1e3", "steps: must be a whole number (given: '1e3')"),
        ("steps=-5", "steps: must be greater than 0 (given: -5)"),
        ("steps=null", "steps: must be a whole number"),
        ("learning_rate=.inf", "must be a finite number"),
        ("budget_s=10m", "budget_s: must be a number"),
        ("gradient_checkpointing=maybe", "must be true or false"),
        ("base=[a]", "base: must be text"),
        ("train_parts={llm: true}", "must be a list, such as [a, b]"),
        ("train_parts=projector,llm", "write a list: [projector,llm]"),
        ("train_parts=projecter", "did you mean 'projector'?"),
        ("schedule=Cosine", "did you mean 'cosine'?"),
        ("method=RBA-Group", "did you mean 'rba-group'?"),
        ("precision=bf16", "did you mean 'bfloat16'?"),
        ("temperature=0", "temperature: must be greater than 0 (given: 0)"),
        ("temperature=hot", "temperature: must be a number or a list"),
        ("temperature=[0.5, hot]", "temperature.1: must be a number (given: 'hot')"),
        ("alignment_set=5", "must be text or a mapping of keys to values or a list"),
        ("alignment_set={dir: x}", "unknown key 'alignment_set.dir'; valid: kinds, path, weight"),
        ("alignment_set=[{path: a, weight: -1}]", "alignment_set.0.weight: must be greater than 0"),
        (
            "alignment_set={path: a, kinds: [quiz]}",
            "alignment_set.kinds.0: must be 'instruct', 'qa', 's2tt' or 'ifeval'",
        ),
        ("lr=1e-4", "unknown key 'lr'; did you mean 'learning_rate'?"),
        ("LR=1e-4", "did you mean 'learning_rate'?"),
        ("num_train_epochs=3", "did you mean 'epochs'?"),
        ("kl_weight=3", "did you mean 'policy_gradient.kl_weight'?"),
        ("beta='0.1", "the value is not YAML (line 1, column 5: found unexpected end of stream)"),
    ],
)
def test_overrides(override: str, message: str) -> None:
    line = refused(None, override)
    assert message in line and line.startswith(f"--set {override}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora:\n  - r: 8\n", "recipe.yaml:1: lora: has keys of its own"),
        (
            "method: sft\nlora.r: 8\n",
            "recipe.yaml:2: unknown key 'lora.r'; in a file write `r` below `lora:`",
        ),
        ("5: 3\n", "5: keys must be words"),
        ("just words\n", "not plain text"),
        (
            "method: sft\n\tsteps: 3\n",
            "line 2, column 1: found character '\\t' that cannot start any token; indent",
        ),
        ("teacher: model: x\n", "line 1, column 15: mapping values are not allowed here"),
        ("a: 1\nb: 2\nc: 3\nd: 4\ne: 5\n", "and 2 more (is it a recipe of another command?)"),
    ],
)
def test_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert message in refused(path)


def test_an_override_is_named_where_the_file_has_the_key_too(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("train_parts: [projector, llm]\n")
    assert refused(path, "train_parts=decoder").startswith("--set train_parts=decoder: train_parts.0")


def test_other_names_lead_to_keys_that_there_are() -> None:
    for known in TrainingRecipe.other_names.values():
        section, _, key = known.partition(".")
        assert section in TrainingRecipe.model_fields
        assert not key or f"unknown key '{section}.no'" in refused(None, f"{section}.no=1")
    assert not TrainingRecipe.other_names.keys() & TrainingRecipe.model_fields.keys()


def test_names_are_suggested_whatever_their_case() -> None:
    assert suggest("RBA_Group", ["rba-group", "sft"]) == "; did you mean 'rba-group'?"
    assert suggest("zzz", ["b", "a"]) == "; valid: a, b"
