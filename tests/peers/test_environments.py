"""Where peers' environments lie: a folder of this user alone, since what is installed there is run."""

import pytest

from edge_sdk.errors import InputError
from peers import catalogue
from peers.environments import Environments


def prepare(root):
    return Environments(root, catalogue.read(), lambda line: None).prepare([], [])


def test_the_folder_is_made_for_this_user_alone(tmp_path):
    assert prepare(tmp_path / "envs") == {}
    assert (tmp_path / "envs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "envs" / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs").chmod(0o777)
    with pytest.raises(InputError, match="may write") as caught:
        prepare(tmp_path / "envs")
    assert "--environments" in caught.value.remedy


def test_the_lock_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "envs").mkdir(mode=0o700)
    (tmp_path / "envs" / "lock").symlink_to(victim)
    with pytest.raises(InputError, match="is a link"):
        prepare(tmp_path / "envs")
    assert victim.read_bytes() == b"precious"
