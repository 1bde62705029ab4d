import os
import threading

import pytest

from edge_sdk.errors import InputError
from edge_sdk.files import replacing, write_atomically


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
