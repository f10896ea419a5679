"""A teacher behind a server: llama.cpp with real weights, and what its tokenizer tells of the query template."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stages_of import candidates, decisions

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.synthesis.filters import KEPT, plain_text
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import LEVELS, TOPICS, load_labeller
from rba_bench.synthesis.teacher import find_query, teacher_identity, teacher_template
from rba_bench.textlm.query_template import QueryTemplate, derive_query_template
from tests.textlm.misbehaving_server import free_port
from tests.textlm.real_server import RealServer, missing, real_serving

real = pytest.mark.skipif(bool(missing()), reason=missing() or "all there")
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "<|begin|>{% if messages[0].role != 'system' %}<|header|>system<|end_header|>\n\nToday Date: "
    "{{ strftime_now('%d %b %Y') }}\n\n<|eot|>{% endif %}"
    "{% for m in messages %}<|header|>{{ m.role }}<|end_header|>\n\n{{ m.content }}<|eot|>{% endfor %}"
)


def tokenizer_with(template: str, special: list[str], bos: str | None) -> Any:
    """A real fast tokenizer with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", bos_token=bos)
    made.add_special_tokens({"additional_special_tokens": special})
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "special", "bos", "with_system", "bare", "stops"),
    [
        (
            *(CHATML, ["<|im_start|>", "<|im_end|>"], None),
            "<|im_start|>system\nYou are Q.<|im_end|>\n<|im_start|>user\n",
            "<|im_start|>user\n",
            ("<|im_end|>", "<|im_start|>", "<eos>"),
        ),
        (
            *(LLAMA, ["<|begin|>", "<|header|>", "<|end_header|>", "<|eot|>"], "<|begin|>"),
            None,
            "<|begin|><|header|>user<|end_header|>\n\n",
            ("<|eot|>", "<|header|>", "<|end_header|>", "<eos>"),
        ),
    ],
)
def test_query_templates_of_two_families(
    template: str,
    special: list[str],
    bos: str | None,
    with_system: str | None,
    bare: str,
    stops: tuple[str, ...],
) -> None:
    tokenizer = tokenizer_with(template, special, bos)
    found = derive_query_template(tokenizer, "bare", {})
    assert (found.text, found.stops) == (bare, stops)
    whole = derive_query_template(tokenizer, "template", {}).text
    assert whole.endswith(bare.removeprefix(bos or "")) and whole != bare
    assert with_system is None or whole == with_system


def test_what_a_server_leaves_behind_a_turn_is_cut() -> None:
    query = QueryTemplate("<user>", ("</user>", "<assistant>"))
    assert query.cut("Who is it?</user>\n<assistant>It is me.") == "Who is it?"
    assert query.cut("Who is it?<assistant>It is me.</user>") == "Who is it?"
    assert query.cut("Who is it?") == "Who is it?"


def test_a_server_whose_template_nobody_knows_is_refused_at_once(tmp_path: Path) -> None:
    recipe = SynthesisRecipe(teacher="openai:http://127.0.0.1:9/v1#m", tagger=None)
    with pytest.raises(UserError, match="set teacher_tokenizer .* or query_template"):
        synthesize(recipe, tmp_path / "set")
    given = recipe.model_copy(update={"query_template": "<u>", "query_stops": ("</u>",)})
    assert find_query(given) == QueryTemplate("<u>", ("</u>",))
    with pytest.raises(MissingPrerequisite, match="no tokenizer at ./nowhere"):
        find_query(recipe.model_copy(update={"teacher_tokenizer": "./nowhere"}))
    with pytest.raises(UserError, match="#<model>"):
        synthesize(SynthesisRecipe(teacher="openai:http://127.0.0.1:9/v1"), tmp_path / "set")


def test_the_address_of_a_server_is_not_part_of_a_set(tmp_path: Path) -> None:
    texts = {"query_template": "<u>", "query_stops": ("</u>",), "tagger": None}
    ids = [
        teacher_identity(SynthesisRecipe(teacher=f"openai:http://127.0.0.1:{port}/v1#m", **texts))  # type: ignore[arg-type]
        for port in (1, 2)
    ]
    assert ids[0]["weights_sha256"] == ids[1]["weights_sha256"] and ids[0]["url"] != ids[1]["url"]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("## Plan\n\n**First**, pack *light*.\n", "Plan\n\nFirst, pack light."),
        ("* one\n* two **big** things\n  * three", "- one\n- two big things\n  - three"),
        ("Use `ls` and [the manual](https://x.org/y).", "Use ls and the manual."),
        ("```python\nprint(1)\n```\nDone.", "print(1)\nDone."),
        ("2 * 3 * 4 and a_b_c and snake__case", "2 * 3 * 4 and a_b_c and snake__case"),
        ("1. One\n2. Two\n\n---\n\n> Said he.", "1. One\n2. Two\n\nSaid he."),
        ("A *b* c **d e** f ***g***", "A b c d e f g"),
    ],
)
def test_marks_of_markdown_are_taken_out_and_words_stay(marked: str, plain: str) -> None:
    assert plain_text(marked) == plain == plain_text(plain)


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with real_serving(free_port()) as running:
        yield running


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> SynthesisRecipe:
    for name in ("RBA_API_KEY", "OPENAI_API_KEY", "RBA_ENDPOINT_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "1")
    return SynthesisRecipe(
        teacher="openai:http://127.0.0.1:1/v1#smollm2",
        teacher_tokenizer="asset:smollm2-135m-instruct",
        tagger=None,
        n_instructions=4,
        round_size=8,
        shard_size=2,
        instruction_top_p=0.9,
        instruction_max_new_tokens=40,
        answer_prompt=" Answer in one short sentence.",
        response_temperature=0.0,
        response_max_new_tokens=60,
        voices_per_instruction=1,
    )


@real
@pytest.mark.assets
def test_a_set_from_a_real_server_that_is_killed_and_comes_back(
    tmp_path: Path, server: RealServer, recipe: SynthesisRecipe
) -> None:
    """A dead server ends the run in one line; with another address the same set goes on, and asks nothing twice."""
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "set"
    gone = recipe.model_copy(update={"teacher": f"openai:http://127.0.0.1:{free_port()}/v1#smollm2"})
    with pytest.raises(RbaError, match="127.0.0.1"):
        synthesize(gone, out)
    back = recipe.model_copy(update={"teacher": server.spec})
    data = AlignmentSet.open(synthesize(back, out))
    assert len(data.groups()) == 4
    for row in data.rows():
        assert "<|" not in row.instruction + row.response and len(row.instruction.split()) > 1
    assert data.manifest["teacher"]["pre_query_template"].endswith("<|im_start|>user\n")
    found = candidates(out)
    assert {record["status"] for record in found} <= {"ok", "truncated", "empty"}
    assert sum(record["reason"] == KEPT for record in decisions(out)) >= 4
    (out / "manifest.json").unlink()
    again = AlignmentSet.open(synthesize(gone, out))  # the server is not needed for what is asked already
    assert again.sha256 == data.sha256


@real
@pytest.mark.assets
def test_a_real_server_talks_over_two_turns(
    tmp_path: Path, server: RealServer, recipe: SynthesisRecipe
) -> None:
    pytest.importorskip("espeakng_loader")
    changes = {"teacher": server.spec, "turns": 2, "n_instructions": 2, "shard_size": 2}
    data = AlignmentSet.open(synthesize(recipe.model_copy(update=changes), tmp_path / "set"))
    assert data.has_turns and len(data.groups()) == 2
    for row in data.rows():
        [earlier] = row.turns
        assert (
            "<|" not in f"{earlier} {row.instruction} {row.response}"
            and row.instruction != earlier.instruction
        )
    found = [record for record in candidates(tmp_path / "set") if record["turns"]]
    assert found and not any(
        "briefly" in record["text"] for record in found
    )  # what is behind turns is not fed


@real
@pytest.mark.assets
def test_a_real_server_is_held_to_the_labels(server: RealServer, recipe: SynthesisRecipe) -> None:
    """`recipe` is asked for because it clears the environment of keys."""
    labeller = load_labeller(server.spec, "cpu", 8)
    found = labeller.label(
        ["What is the capital of Peru?", "Write a poem about rain.", "How do I fix a bike?"]
    )
    assert all(one.topic in TOPICS and one.difficulty in LEVELS for one in found)
    assert labeller.identity()["method"] == "json schema"


def test_a_tokenizer_alone_is_enough_and_the_date_that_it_would_write_is_fixed(tmp_path: Path) -> None:
    """Of a model of 70 billion parameters behind a server nobody has the weights."""
    dated = LLAMA.replace(
        "{{ strftime_now('%d %b %Y') }}",
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}",
    )
    marks = ["<|begin|>", "<|header|>", "<|end_header|>", "<|eot|>"]
    tokenizer_with(dated, marks, "<|begin|>").save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    known = {"teacher": "openai:http://127.0.0.1:1/v1#m", "teacher_tokenizer": str(tmp_path), "tagger": None}
    recipe = SynthesisRecipe.model_validate(known)
    assert teacher_template(recipe) == {"date_string": "26 Jul 2024"}
    assert "Today Date: 26 Jul 2024" in find_query(recipe).text
    assert len(teacher_identity(recipe)["setup_sha256"]) == 64
    given = SynthesisRecipe.model_validate({**known, "template": {"date_string": "1 May 2026"}})
    assert "1 May 2026" in find_query(given).text
