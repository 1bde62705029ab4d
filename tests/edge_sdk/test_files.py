import os
import stat
import subprocess
import sys
import threading

import pytest

from edge_sdk.errors import InputError
from edge_sdk.files import check_private_folder, open_private, replacing, write_atomically


def test_bytes_and_text_are_written_whole(tmp_path):
    write_atomically(tmp_path / "a", b"\x00\xff")
    write_atomically(tmp_path / "b", "für")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_text(encoding="utf-8") == "für"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="none"):
        write_atomically(tmp_path / "none" / "a", b"")


def test_an_old_file_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space"):
        write_atomically(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_many_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    failed = []

    def write(number):
        try:
            for _ in range(20):
                write_atomically(tmp_path / "a", bytes([number]) * 1000)
        except InputError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failed
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    def interrupted():
        with replacing(tmp_path / "set") as partial:
            partial.mkdir()
            (partial / "one").write_text("1")
            assert not (tmp_path / "set").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with replacing(tmp_path / "set") as partial:
        partial.mkdir()
        (partial / "one").write_text("1")
    assert (tmp_path / "set" / "one").read_text() == "1"


def test_a_tool_sees_the_suffix_that_it_writes_by(tmp_path):
    with replacing(tmp_path / "picture.png") as partial:
        assert partial.suffix == ".png"
        partial.write_bytes(b"")
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


WRITER = """
import sys
from pathlib import Path
from edge_sdk.files import write_atomically
number = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    write_atomically(Path(sys.argv[1]), bytes([number]) * 100_000)
"""


def test_twenty_processes_that_write_one_file_all_succeed(tmp_path):
    path = tmp_path / "out.edge"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for number in range(20)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:  # all at once
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * 20
    assert len(path.read_bytes()) == 100_000
    assert len(set(path.read_bytes())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out.edge"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_a_private_file_is_this_users_alone(tmp_path):
    handle = open_private(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    assert stat.S_IMODE(os.fstat(handle).st_mode) == 0o600
    os.close(handle)
    os.close(open_private(tmp_path / "a"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, other: p.symlink_to(other), "is a link"),
        (lambda p, other: p.symlink_to(p.with_name("nowhere")), "is a link"),
        (lambda p, other: os.mkfifo(p), "no regular file"),
        (lambda p, other: (p.touch(), p.chmod(0o666)), "other users may write"),
    ],
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_what_is_not_private_is_not_opened(tmp_path, make, said, flags):
    (tmp_path / "other").write_bytes(b"precious")
    make(tmp_path / "a", tmp_path / "other")
    with pytest.raises(InputError, match=said) as caught:
        open_private(tmp_path / "a", flags)
    assert str(tmp_path / "a") in caught.value.remedy
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_a_file_or_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").touch(mode=0o600)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match="another user"):
        open_private(tmp_path / "a")
    with pytest.raises(InputError, match="another user"):
        check_private_folder(tmp_path, "name another")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_may_write_is_refused_with_the_remedy(tmp_path, mode):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(mode)
    with pytest.raises(InputError, match="may write") as caught:
        check_private_folder(tmp_path / "a", "name another")
    assert "chmod 700" in caught.value.remedy
    assert "name another" in caught.value.remedy
    (tmp_path / "a").chmod(0o755)
    check_private_folder(tmp_path / "a", "name another")


def test_a_link_to_a_folder_is_no_private_folder(tmp_path):
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="is a link"):
        check_private_folder(tmp_path / "b", "name another")
