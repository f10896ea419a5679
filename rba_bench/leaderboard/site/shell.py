"""What every page of the site has: header, navigation, switch of colours, footer, and a policy that lets nothing out.

A page opens from a disk (`file:`) as from any static host. It has no inline script, no inline style and no style
attribute, so its policy needs no exception; texts of records reach it only through autoescape, as JSON that HTML reads
as text, or as scripts that call one function with JSON.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from rba_bench import __version__
from rba_bench.html_pages import page_part, render_template, script_json

PACKAGE = "rba_bench.leaderboard.site"
PAGE = "index.html"  # the page of a folder
FOLDER = "site"  # of styles and scripts, below the top of the site
SHELL_FILES = ("site.css", "theme.js")
# `file:` because from a disk not every browser takes files beside the page for 'self'.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "media-src 'self' file:; base-uri 'none'; form-action 'none'"
)


def render_page(
    template: str,
    *,
    title: str,
    root: str,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    nav: Sequence[tuple[str, str]] = (),
    served: bool = False,
    **values: Any,
) -> str:
    """A page of the site.

    Args:
        template: Name of a jinja2 file in this package that makes the content of `<main>`. It sees `root`, `values` and
            the macros of `macros.html.jinja`.
        title: Of the window and of the page (its `<h1>` is made by the shell).
        root: The top of the site as seen from the page, "" or such as "../../".
        scripts: Addresses as seen from the page; they run in this order when the page has been read.
        styles: Addresses of style sheets besides `site.css`.
        nav: Text and address (as seen from the page) of each link behind the one to the front page.
        served: Whether the page is not a file but comes from a server of this machine.
        values: What the template uses.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not in `values`.
    """
    source = page_part(PACKAGE, "macros.html.jinja") + page_part(PACKAGE, template)
    content = Markup(render_template(source, root=root, **values))
    return render_template(
        page_part(PACKAGE, "shell.html.jinja"),
        title=title,
        root=root,
        scripts=scripts,
        styles=styles,
        nav=nav,
        served=served,
        content=content,
        policy=POLICY,
        version=__version__,
    )


def site_assets(*names: str) -> dict[str, bytes]:
    """Files of this package by the names that they have in a site: `site.css` as `site/site.css`."""
    return {f"{FOLDER}/{name}": page_part(PACKAGE, name).encode() for name in names}


def call_script(function: str, *arguments: Any) -> bytes:
    """A script that does nothing but call `function` with JSON values: how pages read data without a server."""
    return f"{function}({','.join(script_json(value) for value in arguments)});\n".encode()
