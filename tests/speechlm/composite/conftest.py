"""A freshly loaded composite and its processor for each test."""

from pathlib import Path

import pytest

from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor


@pytest.fixture
def model(tiny_composite_dir: Path) -> CompositeForConditionalGeneration:
    return CompositeForConditionalGeneration.from_pretrained(tiny_composite_dir)


@pytest.fixture(params=["sdpa", "eager"])
def attention(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model_of_attention(tiny_composite_dir: Path, attention: str) -> CompositeForConditionalGeneration:
    return CompositeForConditionalGeneration.from_pretrained(
        tiny_composite_dir, attn_implementation=attention
    )


@pytest.fixture(scope="session")
def processor(tiny_composite_dir: Path) -> CompositeProcessor:
    return CompositeProcessor.from_pretrained(tiny_composite_dir)
