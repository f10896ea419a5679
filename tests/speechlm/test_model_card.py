"""Every composite that is saved has a card; one that is there stays."""

import re
import runpy
from pathlib import Path

from rba_bench.cards import CARD, front_matter
from rba_bench.files import write_json
from rba_bench.speechlm.model_card import PROVENANCE, write_model_card


def test_save_pretrained_writes_a_card_where_there_is_none(tiny_composite_dir: Path, tmp_path: Path) -> None:
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration

    front = front_matter(tiny_composite_dir / CARD)
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "audio-text-to-text"
    model = CompositeForConditionalGeneration.from_pretrained(tiny_composite_dir)
    (tmp_path / CARD).write_text("# Mine\n")
    model.save_pretrained(tmp_path)
    assert (tmp_path / CARD).read_text() == "# Mine\n"
    assert not write_model_card(tmp_path)


def test_a_composed_model_names_its_parts(tiny_composite_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_composite_dir / "config.json").read_bytes())
    part = {"revision": None, "weights_sha256": "e" * 64}
    made_of = {
        "encoder": {**part, "id": "openai/whisper-small@main", "revision": "b" * 40},
        "llm": {**part, "id": str(tmp_path / "llm")},
        "options": {"stack": 4},
    }
    write_json(tmp_path / PROVENANCE, made_of)
    assert write_model_card(tmp_path)
    text = (tmp_path / CARD).read_text()
    assert front_matter(tmp_path / CARD)["base_model"] == "openai/whisper-small"
    assert "e" * 64 in text and "b" * 40 in text and "| stack | 4 |" in text and str(tmp_path) not in text


def test_the_lines_of_the_card_load_the_model(tiny_composite_dir: Path, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (tiny_composite_dir / CARD).read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "lines.py").write_text(found[1].replace("DIR", str(tiny_composite_dir)))
    names = runpy.run_path(str(tmp_path / "lines.py"))
    assert type(names["model"]).__name__ == "CompositeForConditionalGeneration"
    assert names["processor"].stack_factor == 3
