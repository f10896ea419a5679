"""Build the documentation site: `python dev/make_site.py [--to site]`.

The pages of `docs/` link to other files of the repository (`../benchmarks/RESULTS.md`), so that they work where the
repository is browsed. A site generator only knows its own source folder. This script therefore copies the pages to
`build/site-source`, and every file that they link to, directly or through another copied page, to
`build/site-source/repo`. Relative links are adjusted, and notebooks become Markdown with their stored outputs. Then it
runs `mkdocs build --strict`. `docs/cli.md` is not written here: see `dev/make_cli_docs.py`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "build" / "site-source"
LINK = re.compile(r"(\]\()([^)\s#][^)\s#]*)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^(```|~~~)[^\n]*\n.*?^\1[ ]*$", re.M | re.S)
_CODE = re.compile(rf"{FENCE.pattern}|`[^`\n]+`", re.M | re.S)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to all of it but code."""
    parts, place = [], 0
    for code in _CODE.finditer(text):
        parts += [change(text[place : code.start()]), code.group()]
        place = code.end()
    return "".join([*parts, change(text[place:])])


def relative_links(page: Path) -> Iterator[tuple[str, str]]:
    """Target (a path relative to the page) and anchor ("" or "#name") of each link to a file."""
    prose: list[str] = []
    outside_code(page.read_text(encoding="utf-8"), lambda text: prose.append(text) or text)  # type: ignore[func-returns-value]
    for match in LINK.finditer("".join(prose)):
        if not re.match(r"[a-z]+:", match[2]):
            yield match[2], match[3][:-1]


def staged(path: Path) -> Path:
    """Where a file of the repository lies in the source folder of the site, relative to that folder."""
    place = path.relative_to(DOCS) if path.is_relative_to(DOCS) else Path("repo") / path.relative_to(ROOT)
    return place.with_suffix(".md") if place.suffix == ".ipynb" else place


def notebook_page(path: Path) -> str:
    """The cells of a notebook and their stored outputs as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += filter(None, map(_output, cell.get("outputs", [])))
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    """The richest form of one output that a page can show; "" for none."""
    data = output.get("data", {})
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>"
    if "image/png" in data:
        return f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(data.get("text/plain", output.get("text", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def needed() -> list[Path]:
    """All files of the site: those of `docs/`, and what they link to."""
    found = [path for path in sorted(DOCS.rglob("*")) if path.is_file()]
    for page in found:  # grows while it is walked
        if page.suffix == ".md":
            targets = {(page.parent / link).resolve() for link, _ in relative_links(page)}
            found += sorted(target for target in targets if target.is_file() and target not in found)
    return found


def _adjusted(page: Path) -> str:
    here = staged(page).parent

    def adjust(match: re.Match[str]) -> str:
        target = (page.parent / match[2]).resolve()
        if re.match(r"[a-z]+:", match[2]) or not target.is_file():
            return match.group()
        return match[1] + Path(os.path.relpath(staged(target), here)).as_posix() + match[3]

    text = notebook_page(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")
    return outside_code(text, lambda prose: LINK.sub(adjust, prose))


def stage(folder: Path) -> None:
    """Write the source folder of the site anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in needed():
        copy = folder / staged(path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".md", ".ipynb"):
            copy.write_text(_adjusted(path), encoding="utf-8")
        else:
            shutil.copyfile(path, copy)


def build(site: Path) -> int:
    """Stage and build. Returns the exit code of mkdocs; with `--strict`, a warning is a failure."""
    stage(SOURCE)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # an announcement of the theme's authors, not a fault of the pages
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **quiet}, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=ROOT / "site", help="folder of the finished site")
    sys.exit(build(parser.parse_args().to.resolve()))
