import dataclasses

import pytest

from edge_sdk.errors import InputError, UnknownTarget
from edge_sdk.profile import default_recipe, is_profile, profile_names, read_profile
from edge_sdk.target import engine_of, target_names

BOARDS = (
    "generic-cpu",
    "intel-cpu",
    "jetson-agx-orin",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "raspberry-pi-4",
    "raspberry-pi-5",
)
OURS = """
name = "my-board"
title = "My board"
engine = "onnxruntime"
recipe = "int8"
install = "pip install 'face-edge-sdk[onnxruntime]'"
"""


def test_every_board_has_a_profile():
    assert profile_names() == BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_a_shipped_profile_is_whole(name):
    profile = read_profile(name)
    assert profile.engine in target_names()
    assert "pip install" in profile.install
    assert profile.extra is None or f"face-edge-sdk[{profile.extra}]" in profile.install
    assert profile.pythons
    assert profile.glibc
    assert profile.boards or profile.families


def test_no_two_profiles_claim_the_same_machine():
    claims = [c for n in BOARDS for c in (*read_profile(n).boards, *read_profile(n).families)]
    assert len(claims) == len(set(claims))


def test_a_users_own_profile_is_read_by_its_path(tmp_path):
    path = tmp_path / "my-board.toml"
    path.write_text(OURS)
    assert read_profile(path).title == "My board"
    assert read_profile(str(path)) == read_profile(path)
    assert engine_of(str(path)) == "onnxruntime"
    assert is_profile(path)
    assert not is_profile("my-board")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('colour = "red"', "unknown key 'colour'"),
        ("threads = 0", "threads is 0"),
        ('threads = "four"', "threads: expected int"),
        ('pythons = ["three"]', "'three', expected a version"),
        ('glibc = "2"', "'2', expected a version"),
        ("=", "cannot read"),
    ],
)
def test_a_profile_that_breaks_the_schema_is_refused_by_key(tmp_path, line, problem):
    path = tmp_path / "my-board.toml"
    path.write_text(OURS + line)
    with pytest.raises(InputError, match=problem) as caught:
        read_profile(path)
    assert "mend" in caught.value.remedy


@pytest.mark.parametrize(
    ("line", "other", "problem"),
    [
        ('name = "my-board"', 'name = "yours"', "name is 'yours'"),
        ('recipe = "int8"', "recipe = 8", "recipe: expected str"),
        ('engine = "onnxruntime"', "", "lacks the key 'engine'"),
    ],
)
def test_a_profile_with_a_wrong_value_is_refused(tmp_path, line, other, problem):
    path = tmp_path / "my-board.toml"
    path.write_text(OURS.replace(line, other))
    with pytest.raises(InputError, match=problem):
        read_profile(path)


def test_what_is_no_profile_says_which_there_are(tmp_path):
    with pytest.raises(InputError) as caught:
        read_profile("toaster")
    assert "raspberry-pi-5" in caught.value.remedy
    with pytest.raises(InputError, match="cannot read"):
        engine_of(str(tmp_path / "missing.toml"))


def test_a_profile_of_an_engine_that_nobody_brings_is_an_error(tmp_path):
    path = tmp_path / "my-board.toml"
    path.write_text(OURS.replace("onnxruntime", "rocket"))
    with pytest.raises(UnknownTarget, match="rocket"):
        engine_of(str(path))


def test_a_profile_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_profile("generic-cpu").threads = 3


@pytest.mark.parametrize(
    ("target", "recipe"),
    [("jetson-orin-nano", "fp16"), ("raspberry-pi-5", "int8"), ("intel-cpu", "int8"), ("tensorrt", "int8")],
)
def test_a_board_is_built_for_by_its_own_recipe(target, recipe):
    assert default_recipe(target) == recipe
