"""The documents say what the code does: commands parse, code runs, pages are whole, numbers have their commits."""

import importlib.util
import json
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

from edge_sdk import errors

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "benchmarks/*.md",
        "training/*.md",
        "targets/*.md",
        "quantize/*.md",
        "edge_sdk/zoo/*.md",
    )
    for path in ROOT.glob(pattern)
)


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _options(hooks):
    for name, parser in hooks.verbs(hooks.command_parser()):
        yield name, [option for action in parser._actions for option in action.option_strings]


def test_the_command_reference_holds_every_verb_and_option(hooks):
    text = hooks.cli_reference()
    sections = dict(
        re.findall(r"^## edge-sdk ([\w -]+?) \{.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    found = dict(_options(hooks))
    assert {"zoo", "predict", "build", "doctor", "bench"} <= set(found)
    assert set(sections) == set(found)
    for verb, options in found.items():
        for option in set(options) - {"-h", "--help"}:
            assert re.search(rf"^.*`{re.escape(option)}[` ]", sections[verb], re.MULTILINE), (verb, option)
    assert "(no text)" not in text


def _commands():
    for path in TEXTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            found = re.match(r" {4}(edge-sdk [^`#&|]*)", line)
            if found and "..." not in found.group(1):
                yield pytest.param(found.group(1).strip(), id=f"{path.name}: {found.group(1).strip()[:60]}")


@pytest.mark.parametrize("command", list(_commands()))
def test_a_command_that_a_text_shows_can_be_typed(hooks, command):
    words = shlex.split(re.sub(r"\s2?>.*", "", command))[1:]
    hooks.command_parser().parse_args(words)


def _links():
    for path in TEXTS:
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
            yield pytest.param(path, link, id=f"{path.name}: {link}")


# What the site makes is not in the repository; pages link to it all the same.
MADE = {"cli.md", "manifest.schema.json"}


@pytest.mark.parametrize(("path", "link"), list(_links()))
def test_a_link_leads_to_a_file_of_the_repository(path, link):
    assert (path.parent / link).exists() or (path.parent.name == "docs" and link in MADE)


def test_messages_name_documents_that_exist():
    named = set()
    for package in ("edge_sdk", "quantize", "targets", "benchmarks", "training"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".toml"}:
                named |= set(re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


# Groups of entry points look like modules.
GROUPS = {"edge_sdk.targets", "edge_sdk.evaluators"}


def _names():
    for path in TEXTS:
        if path.name == "CHANGELOG.md":  # it names what is gone
            continue
        found = re.findall(r"`(edge_\w+(?:\.\w+)+)(?:\([^`]*\))?`", path.read_text(encoding="utf-8"))
        for name in sorted(set(found) - GROUPS):
            yield pytest.param(name, id=f"{path.name}: {name}")


@pytest.mark.parametrize("name", list(_names()))
def test_a_name_that_a_text_mentions_exists(name):
    if name.startswith("edge_training"):
        pytest.importorskip("torch", reason="training is not installed")
    assert pkgutil.resolve_name(name) is not None


def test_the_table_of_exit_codes_names_errors_that_exist():
    named = re.findall(r"`([A-Z]\w+)`", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    assert {name for name in named if not hasattr(errors, name)} == set()
    # Bases stand for what inherits from them.
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.EdgeError)]
    leaves = {e.__name__ for e in kinds if not e.__subclasses__()}
    assert leaves - set(named) == set()


def test_every_page_has_a_place_in_the_navigation(hooks):
    shown = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | set(hooks.TEXTS.values()) | {"cli.md"}
    assert pages - shown == set()
    assert shown - pages == set()


def test_links_between_texts_fit_the_site(hooks):
    def mend(text, path):
        return hooks.for_the_site(text, path)

    assert mend("[a](../docs/errors.md#x)", "benchmarks/README.md") == "[a](errors.md#x)"
    assert mend("[card](edge_sdk/zoo/fer-gmenet.md)", "README.md") == "[card](models/fer-gmenet.md)"
    assert mend("![p](fer-gmenet.png)", "edge_sdk/zoo/fer-gmenet.md") == "![p](fer-gmenet.png)"
    assert mend("[q](../../docs/quantization.md)", "edge_sdk/zoo/fer-yolo11n.md") == "[q](../quantization.md)"
    assert (
        mend("[worker](workers/protocol.py)", "benchmarks/peers/README.md")
        == "`benchmarks/peers/workers/protocol.py`"
    )
    assert (
        mend("[away](https://example.com) [here](#a)", "README.md")
        == "[away](https://example.com) [here](#a)"
    )
    assert mend("[gone](nowhere.md)", "README.md") == "[gone](nowhere.md)"


def test_the_api_pages_name_every_public_module_once(hooks):
    modules = hooks.modules("edge_sdk")
    assert {"edge_sdk", "edge_sdk.schema", "edge_sdk.tasks.detection"} <= set(modules)
    assert len(set(modules)) == len(modules)
    assert not any("._" in name or name.endswith("__main__") for name in modules)


def test_a_page_that_loads_from_the_network_is_found(hooks):
    assert (
        hooks.loaded_from_elsewhere('<a href="https://example.com">x</a><script src="assets/x.js"></script>')
        == []
    )
    for page in (
        '<script src="https://x.org/y.js">',
        "<link href=//x.org/y.css>",
        '<img alt="p" src="http://x.org/p.png">',
    ):
        assert len(hooks.loaded_from_elsewhere(page)) == 1, page


def test_the_schema_that_the_site_publishes_is_closed(hooks):
    schema = json.loads(json.dumps(hooks.manifest_schema()))
    objects = [schema, *schema["$defs"].values()]
    assert all(o["additionalProperties"] is False for o in objects if "properties" in o)
    assert schema["properties"]["schema"] == {"const": 1}


def test_the_lab_log_has_no_number_without_its_commit():
    text = (ROOT / "docs" / "lab-log.md").read_text(encoding="utf-8")
    commit = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7}\b")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) > 5
    for section in sections:
        title, _, body = section.partition("\n")
        assert commit.search(body), title
        # A section that is not of one commit as a whole names one in each paragraph, row and item with a figure.
        if re.search(r"^Measured at [0-9a-f]{7}\.", body, re.MULTILINE):
            continue
        for part in re.split(r"\n\n|\n(?=[-|])", body):
            if re.search(r"\d\.\d+ |\d %", part) and not part.startswith(("|---", "    ")):
                assert commit.search(part) or "measured at" in part, (title, part)


PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/first-picture.md"])
def test_the_code_of_a_text_runs(name, tmp_path, monkeypatch, capsys):
    astronaut = pytest.importorskip("skimage.data", reason="brings the public-domain portrait").astronaut()
    pytest.importorskip("onnxruntime", reason="an engine is needed")
    from edge_sdk.image import write_image

    write_image(tmp_path / "photo.jpg", astronaut)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(PYTHON.findall((ROOT / name).read_text(encoding="utf-8")))
    assert code
    namespace = {}
    exec(compile(code, name, "exec"), namespace)
    assert "happy" in capsys.readouterr().out
    assert [face.label for face in namespace["faces"]] == ["happy"]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    astronaut = pytest.importorskip("skimage.data", reason="brings the public-domain portrait").astronaut()
    pytest.importorskip("onnxruntime", reason="an engine is needed")
    from edge_sdk.cli import main
    from edge_sdk.image import write_image

    write_image(tmp_path / "photo.jpg", astronaut)
    monkeypatch.chdir(tmp_path)
    lines = re.findall(
        r"^ {4}edge-sdk ([^#\n]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    quick = [line for line in lines if line.split()[0] in {"zoo", "predict", "inspect", "verify"}]
    assert len(quick) == 4
    for line in quick:
        assert main(shlex.split(line)) == 0, line
    assert "happy" in capsys.readouterr().out
    assert (tmp_path / "out" / "photo.jpg").exists()
