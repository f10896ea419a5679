"""The documentation is true to the repository: links, commands, options, variables, formats, and the site builds."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from markdown.extensions.toc import slugify

from rba_bench.audio.alignment_set import shard_schema
from rba_bench.cli.main import app
from rba_bench.evaluation.records import STATUSES, MetricValue, RunRecord, Sample, Timing

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "tasks").rglob("README.md"),
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "recipes/README.md", "leaderboards/README.md")
        ),
    ]
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def script(name: str) -> Any:
    """A module of `dev/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "dev" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SITE = script("make_site")


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@lru_cache
def anchors(page: Path) -> frozenset[str]:
    """Names of headings that a link can lead to, both on the site and where the repository is browsed."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "") for title in titles]
    browsed = {re.sub(r"[^\w\s-]", "", title).lower().replace(" ", "-") for title in plain}
    return frozenset(f"#{name}" for name in browsed & {slugify(title, "-") for title in plain})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link, anchor in SITE.relative_links(page):
        target = (page.parent / link).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link + anchor)
    own = re.findall(r"\]\((#[^)]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    broken += [anchor for anchor in own if anchor not in anchors(page)]
    assert not broken


def test_every_path_that_is_named_exists() -> None:
    """Folders and files of the repository in code font; `<...>`, `*` and `NAME` stand for something."""
    places = ("rba_bench", "tasks", "recipes", "leaderboards", "benchmarks", "dev", "tests", "docs")
    missing = []
    for page in PAGES:
        for path in re.findall(rf"`((?:{'|'.join(places)})/[\w./-]*)`", page.read_text(encoding="utf-8")):
            if not (ROOT / path).exists() and not re.search(r"\b[A-Z]{4,}\b", path):
                missing.append(f"{page.relative_to(ROOT)}: {path}")
    assert not missing


def test_the_walks_pass_files_that_do_what_is_said() -> None:
    rows = re.findall(
        r"^\| `([\w/.]+)` \| (.*) \|$", (ROOT / "docs" / "walks.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 20
    for path, text in rows:
        place = ROOT / "rba_bench" / path
        files = [place] if place.is_file() else sorted(place.glob("*.py"))
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for name in re.findall(r"`([\w/.]+)`", text):
            if "/" in name or name.endswith(".py"):
                assert (ROOT / "rba_bench" / name).exists() or (place / name).exists(), f"{path}: {name}"
            elif "." not in name:
                assert re.search(rf"\b{name}\b", code), f"{path} does not mention {name}"


def test_the_words_are_those_of_the_field() -> None:
    """Images that only their author understands: an encoder is no ear, and a model does not hear."""
    private = re.compile(r"(?<![`_\w])(ears?|hears?|heard|hearing|odds|twins?|bears|deaf)(?![`_\w])", re.I)
    found = []
    for page in PAGES:
        prose: list[str] = []
        SITE.outside_code(
            page.read_text(encoding="utf-8"), lambda text, prose=prose: prose.append(text) or text
        )
        found += [f"{page.relative_to(ROOT)}: {word}" for word in private.findall(" ".join(prose))]
    assert not found


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The words after `rba-bench` of every shell line that runs it, by its name or as `-m rba_bench`."""
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language not in ("sh", "bash", "shell"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [i for i, word in enumerate(words) if word in ("rba-bench", "rba_bench")]
            if starts and "pip" not in words and words[:2] != ["docker", "build"]:
                yield words[starts[0] + 1 :]
            elif words and words[0] == "$eval":
                yield ["eval", *words[1:]]
            elif words and (inner := re.match(r"\w+=rba-bench (.*)", words[0])):  # eval="rba-bench eval ..."
                yield shlex.split(inner[1])


def test_every_command_shown_parses() -> None:
    """The command line's own parser takes them: sub-commands, options and values exist."""
    root, seen, wrong = typer.main.get_command(app), 0, []
    for page in PAGES:
        for words in shown_commands(page):
            seen += 1
            try:
                _parse(root, "rba-bench", words)
            except (typer.TyperException, typer.Exit) as error:
                wrong.append(f"{page.relative_to(ROOT)}: {shlex.join(words)}: {error}")
    assert seen > 60
    assert not wrong


def _parse(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    context = command.make_context(name, list(words), parent=parent)
    rest = [*context._protected_args, *context.args]
    if rest and hasattr(command, "commands"):
        found, child, left = command.resolve_command(context, rest)
        _parse(child, found, left, context)


def test_the_page_of_commands_is_up_to_date() -> None:
    assert text("cli.md") == script("make_cli_docs").page(), "run `python dev/make_cli_docs.py`"


def test_every_variable_of_the_environment_is_documented() -> None:
    used: set[str] = set()
    for path in (ROOT / "rba_bench").rglob("*.py"):
        used |= set(re.findall(r"\bRBA_[A-Z_]+\b", path.read_text(encoding="utf-8")))
    used.discard("RBA_WEIGHTS")  # a constant of the presets
    page = text("environment.md")
    assert {"RBA_CACHE", "RBA_API_KEYS", "RBA_JUDGE"} <= used
    assert not [name for name in used if f"`{name}" not in page]
    assert not [name for name in re.findall(r"`(RBA_[A-Z_]+)", page) if name not in used]


def test_every_extra_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = " ".join(re.findall(r"^\| (`[^|]*) \|", text("install.md"), re.M))
    assert set(re.findall(r"`([\w-]+)`", rows)) == set(project["optional-dependencies"])


def test_every_field_of_the_formats_is_documented() -> None:
    page = text("formats.md")
    models = (Sample, RunRecord, MetricValue, Timing)
    fields = {name for model in models for name in model.model_fields} | set(shard_schema().names)
    assert not sorted(name for name in fields if f"`{name}`" not in page)
    assert not [status for status in STATUSES if f"| `{status}` |" not in text("evaluating.md")]


def test_the_glossary_is_alphabetical_and_short() -> None:
    entries = re.findall(r"^\*\*(.+?)\.\*\* (.+?)(?=^\*\*|\Z)", text("glossary.md"), re.M | re.S)
    terms = [term.lower() for term, _ in entries]
    assert terms == sorted(terms) and len(set(terms)) == len(terms) == 30
    assert not [term for term, meaning in entries if len(meaning.split()) > 60]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    named = set(re.findall(r": (\S+\.md)$", navigation, re.M))
    staged = {SITE.staged(path).as_posix() for path in SITE.needed()}
    own = {page for page in staged if page.endswith(".md") and not page.startswith("repo/")}
    assert not own - named, "add a line to mkdocs.yml"
    assert not named - staged


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: `make setup`"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "dev" / "make_site.py"), "--to", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    page = (tmp_path / "site" / "evaluating.html").read_text(encoding="utf-8")
    assert 'href="repo/tasks/index.html"' in page and "asserted_match" in page
    # nothing is fetched from another host: scripts, styles, fonts and images are the site's own
    assert not re.findall(r"""<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="?https?:[^>]*>""", page)
