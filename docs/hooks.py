"""What ``mkdocs build`` makes from the code: pages that nobody writes by hand, so that they cannot be out of date.

- ``cli.md``: every verb and option, from the argument parser;
- ``manifest.schema.json``: JSON Schema of a bundle's manifest, from its dataclasses;
- ``api/MODULE.md``: one page per module, filled by mkdocstrings from the docstrings;
- texts that lie beside their code (model cards, READMEs of the rooms), with links that fit the site.

mkdocs calls the functions ``on_*`` by their names. It is imported inside them, so that tests call the rest without it.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

TEXTS = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/peers/README.md": "peers.md",
    "training/README.md": "training.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{f"edge_sdk/zoo/{card.name}": f"models/{card.name}" for card in ROOT.glob("edge_sdk/zoo/*.md")},
}
"""Texts outside ``docs/`` that the site shows: path in the repository to path in the site."""

PACKAGES = {
    "edge_sdk": ROOT,
    "edge_quantize": ROOT / "quantize",
    "edge_targets": ROOT / "targets",
    "edge_benchmarks": ROOT / "benchmarks",
}
"""Packages whose modules have an API page, with the folder that each lies in."""

_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add the API pages to the end of the navigation's Reference."""
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    pages = [
        {package: [{m.removeprefix(f"{package}."): _page(m)} for m in modules(package)]}
        for package in PACKAGES
    ]
    reference.append({"Python API": [{"Public names": "api/index.md"}, *pages]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    made: dict[str, str | bytes] = {
        "cli.md": cli_reference(),
        "manifest.schema.json": json.dumps(manifest_schema(), indent=2) + "\n",
        "api/index.md": _api_index(),
        **{_page(m): f"# {m}\n\n::: {m}\n" for package in PACKAGES for m in modules(package)},
    }
    for path, page in TEXTS.items():
        made[page] = for_the_site((ROOT / path).read_text(encoding="utf-8"), path)
    for picture in ROOT.glob("edge_sdk/zoo/*.png"):
        made[f"models/{picture.name}"] = picture.read_bytes()
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Make links of pages in ``docs/`` that leave the folder fit the site."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]
    if page.file.generated_by is not None:
        return markdown
    return for_the_site(markdown, f"docs/{page.file.src_uri}")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would load something from the network (a warning, which --strict makes an error)."""
    for asset in loaded_from_elsewhere(output):
        logging.getLogger("mkdocs.hooks").warning("%s loads %s from the network", page.file.src_uri, asset)
    return output


def loaded_from_elsewhere(html: str) -> list[str]:
    """Addresses of scripts, styles, fonts and pictures that a page takes from another host."""
    tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", html)
    return [a for tag in tags for a in re.findall(r"""(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", tag)]


def for_the_site(text: str, path: str) -> str:
    """Links of a text as the site needs them.

    Args:
        text: Markdown.
        path: of the text in the repository; its links are relative to it.

    Returns:
        The text with links between pages relative to the page; a link to a file that the site does not hold becomes
        the file's path in the repository.
    """
    here = posixpath.dirname(_in_the_site(path) or path)

    def mend(found: re.Match[str]) -> str:
        image, shown, link, anchor = found.group(1), found.group(2), found.group(3), found.group(4) or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        page = _in_the_site(target)
        if page is not None:
            return f"{image}[{shown}]({posixpath.relpath(page, here or '.')}{anchor})"
        if not (ROOT / target).exists():  # mkdocs names it, and --strict fails
            return found.group(0)
        return f"`{target}`" if target in shown or shown in target else f"{shown} (`{target}`)"

    return _LINK.sub(mend, text)


def _in_the_site(path: str) -> str | None:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("edge_sdk/zoo/") and path.endswith(".png"):
        return f"models/{posixpath.basename(path)}"
    return TEXTS.get(path)


# API pages


def modules(package: str) -> list[str]:
    """Dotted names of a package's public modules, the package first."""
    folder = PACKAGES[package]
    found = []
    for path in sorted((folder / package).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return sorted(found)


def _page(module: str) -> str:
    return f"api/{module}.md"


def _api_index() -> str:
    lines = [
        "# Public names",
        "",
        "What `import edge_sdk as edge` gives. Modules below are for who builds on them.",
        "",
    ]
    public = importlib.import_module("edge_sdk")
    for name in public.__all__:
        thing = getattr(public, name)
        module = getattr(thing, "__module__", "edge_sdk")
        said = ((getattr(thing, "__doc__", None) or "").strip().splitlines() or [""])[0]
        lines.append(f"- [`{name}`][{module}.{name}]: {said}")
    return "\n".join(lines) + "\n"


# The manifest's schema


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of a bundle's ``manifest.json``."""
    from edge_sdk.bundle import Manifest
    from edge_sdk.schema import json_schema

    return json_schema(Manifest)


# The command line


def cli_reference() -> str:
    """Every verb of ``edge-sdk`` with its options, as Markdown."""
    parser = command_parser()
    lines = [
        "# Command line",
        "",
        "Made from the argument parser of `edge-sdk`. Every verb takes `--json` (results for a program to read), "
        "`--debug` (tracebacks) and `--help`. Results go to stdout, errors to stderr; exit codes are explained in "
        "[Errors](errors.md).",
        "",
    ]
    found = list(verbs(parser))
    lines += [f"- [`{name}`](#{_anchor(name)}): {sub.description}" for name, sub in found] + [""]
    for name, sub in found:
        lines += [f"## edge-sdk {name} {{ #{_anchor(name)} }}", "", f"{_sentence(sub.description or '')}", ""]
        lines += ["```text", _usage(sub), "```", ""]
        # What every verb takes comes last.
        for action in sorted(sub._actions, key=lambda action: action.dest in ("json", "debug")):
            if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
                lines += [_signature(action), f":   {_sentence(_help(sub, action)) or '(no text)'}", ""]
    return "\n".join(lines)


def command_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    cli = importlib.import_module("edge_sdk.cli")
    return cli._parser([])


def verbs(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each verb's name and parser, verbs of verbs too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield f"{prefix}{name}", sub
                yield from verbs(sub, f"{prefix}{name} ")


def _usage(parser: argparse.ArgumentParser) -> str:
    # The width of whoever builds must not show in the page.
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=72)
    return parser.format_usage().removeprefix("usage: ").rstrip()


def _signature(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{option}{' ' + value if value else ''}`" for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        name = action.dest.upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if not action.help:
        return ""
    text = argparse.HelpFormatter(parser.prog)._expand_help(action)
    # What the text does not say: whether it must be given, and what may be.
    said = ["required"] if action.required and action.option_strings else []
    if action.choices is not None and action.metavar is not None:
        said.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    text = re.sub(r"(?<![`\w])(--[a-z][a-z-]*)", r"`\1`", text)
    return text + (f" ({'; '.join(said)})" if said else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def _anchor(verb: str) -> str:
    return verb.replace(" ", "-")
