"""Children that answer, chatter, fail and hang, and what is said of those that do."""

import sys

import pytest

from edge_benchmarks import child_process
from edge_sdk.errors import InferFailed, LoadFailed


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Puts a module beside those that may be run as a child."""
    package = tmp_path / "some_children"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(child_process, "CHILDREN", "some_children")

    def write(source):
        (package / "toy.py").write_text(source)

    return write


def test_a_child_answers_with_a_line_of_json_among_others(child):
    child("import sys; print('chatter'); print('{\"a\": %s}' % sys.argv[1]); print('more')")
    assert child_process.json_of("toy", "3", timeout_s=60) == {"a": 3}


def test_chatter_on_stderr_does_not_stop_a_child(child):
    child("import sys; sys.stderr.write('x' * 300_000); print('{}')")
    assert child_process.json_of("toy", timeout_s=60) == {}


@pytest.mark.parametrize(
    "source", ["raise SystemExit('broken')", "print('words')", "", "print('{}'); exit(3)"]
)
def test_a_child_that_fails_is_an_error(child, source):
    child(source)
    with pytest.raises(LoadFailed, match="a fresh process"):
        child_process.json_of("toy", timeout_s=60)


def test_a_child_that_hangs_is_ended(child):
    child("import time; time.sleep(60)")
    with pytest.raises(LoadFailed, match="no answer within"):
        child_process.json_of("toy", timeout_s=0.5)


def test_a_tools_main_is_called_with_its_arguments_and_its_end_is_ours(tmp_path, monkeypatch):
    (tmp_path / "toy_tool.py").write_text(
        "import sys\ndef main():\n    sys.exit(sys.argv[1:] != ['a', 'b'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    child_process.call_main("toy_tool", ["a", "b"], timeout_s=60)
    with pytest.raises(InferFailed, match="toy_tool ended with code 1"):
        child_process.call_main("toy_tool", ["c"], timeout_s=60)


def test_a_program_says_how_it_failed():
    assert child_process.run_program([sys.executable, "--version"], timeout_s=60) is None
    broken = child_process.run_program([sys.executable, "-m", "no_such_module"], timeout_s=60)
    assert broken.startswith("failed: ")
    assert "no_such_module" in broken
    assert "cannot be started" in child_process.run_program(["/no/such/program"], timeout_s=60)
