"""Engines compiled on the device: what is kept, what is never loaded, and that nothing here can fail a start."""

import multiprocessing
import os
import stat
import time

import pytest

from edge_sdk.engine_cache import FOLDER_VARIABLE, EngineCache, default_cache

FACTS = {"model": "abc", "engine": "1.0"}


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def only_engine(cache):
    (path,) = cache.folder.glob("*.engine")
    return path


def test_what_was_put_is_got(cache):
    assert cache.get(FACTS) is None
    assert cache.put(FACTS, b"native code")
    assert cache.get(FACTS) == b"native code"


@pytest.mark.parametrize("changed", [{"engine": "1.1"}, {"model": "abd"}, {"device": "other"}])
def test_another_fact_is_another_engine(cache, changed):
    cache.put(FACTS, b"native code")
    assert cache.get({**FACTS, **changed}) is None


def test_the_order_of_facts_does_not_matter(cache):
    cache.put(FACTS, b"native code")
    assert cache.get(dict(reversed(FACTS.items()))) == b"native code"


@pytest.mark.parametrize("length", [0, 1, 31, 32, 40])
def test_a_truncated_engine_is_not_loaded(cache, length):
    cache.put(FACTS, b"native code")
    path = only_engine(cache)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get(FACTS) is None
    assert cache.put(FACTS, b"rebuilt")
    assert cache.get(FACTS) == b"rebuilt"


def test_no_changed_bit_goes_unseen(cache):
    cache.put(FACTS, b"native code")
    path = only_engine(cache)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get(FACTS) is None


def test_an_engine_under_anothers_name_is_not_loaded(cache):
    cache.put(FACTS, b"native code")
    first = only_engine(cache)
    cache.put({"model": "other"}, b"other code")
    (second,) = set(cache.folder.glob("*.engine")) - {first}
    first.replace(second)
    assert cache.get({"model": "other"}) is None


def test_an_engine_of_another_device_is_not_loaded(cache, tmp_path):
    foreign = EngineCache(tmp_path / "foreign")
    foreign.put(FACTS, b"hostile")
    cache.put(FACTS, b"ours")
    only_engine(cache).write_bytes(only_engine(foreign).read_bytes())
    assert cache.get(FACTS) is None


def test_the_key_is_for_its_owner_alone(cache):
    cache.put(FACTS, b"native code")
    key = cache.folder / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)
    assert cache.get(FACTS) is None
    assert not cache.put(FACTS, b"native code")


@pytest.mark.parametrize("content", [b"", b"short"])
def test_half_a_key_is_no_key(cache, content):
    cache.put(FACTS, b"native code")
    (cache.folder / "key").write_bytes(content)
    assert cache.get(FACTS) is None
    assert not cache.put(FACTS, b"native code")


def test_the_least_recently_used_engines_go_first(cache):
    cache = EngineCache(cache.folder, limit_bytes=3 * (100 + 32))
    for name in "abc":
        assert cache.put({"model": name}, name.encode() * 100)
        time.sleep(0.01)
    assert cache.get({"model": "a"}) is not None
    assert cache.put({"model": "d"}, b"d" * 100)
    assert cache.get({"model": "b"}) is None
    assert all(cache.get({"model": name}) for name in "acd")


def test_an_engine_over_the_limit_is_not_kept_and_evicts_nothing(cache):
    cache = EngineCache(cache.folder, limit_bytes=100)
    cache.put(FACTS, b"small")
    assert not cache.put({"model": "large"}, b"x" * 101)
    assert cache.get(FACTS) == b"small"


def test_a_full_disk_leaves_no_partial_file(cache, monkeypatch):
    cache.put(FACTS, b"native code")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not cache.put({"model": "new"}, b"native code")
    assert sorted(p.name for p in cache.folder.iterdir() if p.name != "key") == [only_engine(cache).name]


@pytest.mark.parametrize("place", ["{}.1.partial", ".{}.0a1b.partial.engine"])
def test_what_an_ended_process_left_half_written_goes_and_what_is_being_written_stays(cache, place):
    cache = EngineCache(cache.folder, limit_bytes=100)
    cache.put(FACTS, b"native code")
    stale, fresh = (cache.folder / place.format(name) for name in ("stale", "fresh"))
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    assert cache.put({"model": "new"}, b"native code")
    assert not stale.exists()
    assert fresh.exists()


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "engines")
    assert cache.get(FACTS) is None
    assert not cache.put(FACTS, b"native code")


def _put_and_get(folder, number, results):
    cache = EngineCache(folder)
    kept = cache.put({"number": str(number)}, bytes([number]) * 1000)
    results.put(kept and cache.get({"number": str(number)}) == bytes([number]) * 1000)


def test_processes_that_start_at_once_agree_on_the_key(cache):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    started = [context.Process(target=_put_and_get, args=(cache.folder, n, results)) for n in range(4)]
    for process in started:
        process.start()
    assert all(results.get(timeout=60) for _ in started)
    for process in started:
        process.join()
    assert all(cache.get({"number": str(n)}) for n in range(4))


def test_a_folder_that_others_may_write_is_not_used_and_says_how_to_mend_it(cache):
    cache.put(FACTS, b"native code")
    assert cache.problem is None
    for mode in (0o777, 0o770, 0o1777):
        cache.folder.chmod(mode)
        assert cache.get(FACTS) is None
        assert not cache.put(FACTS, b"native code")
        assert "other users may write" in cache.problem
        assert f"chmod 700 {cache.folder}" in cache.problem
        assert FOLDER_VARIABLE in cache.problem
    cache.folder.chmod(0o700)
    assert cache.get(FACTS) == b"native code"
    assert cache.problem is None


def test_a_folder_of_another_user_is_not_used(cache, monkeypatch):
    cache.put(FACTS, b"native code")
    monkeypatch.setattr(os, "geteuid", lambda: cache.folder.stat().st_uid + 1)
    assert cache.get(FACTS) is None
    assert not cache.put(FACTS, b"native code")
    assert "belongs to another user" in cache.problem


def test_a_folder_behind_a_link_is_not_used(cache, tmp_path):
    cache.put(FACTS, b"native code")
    (tmp_path / "link").symlink_to(cache.folder)
    linked = EngineCache(tmp_path / "link")
    assert linked.get(FACTS) is None
    assert not linked.put(FACTS, b"native code")
    assert "is a link" in linked.problem


def test_a_key_that_others_may_read_is_told(cache):
    cache.put(FACTS, b"native code")
    (cache.folder / "key").chmod(0o644)
    assert cache.get(FACTS) is None
    assert "others may read" in cache.problem


@pytest.mark.parametrize("name", ["key", "engine"])
@pytest.mark.parametrize("trap", ["link", "pipe", "folder"])
def test_what_is_no_file_is_neither_read_nor_waited_for(cache, tmp_path, name, trap):
    cache.put(FACTS, b"native code")
    path = cache.folder / "key" if name == "key" else only_engine(cache)
    other = tmp_path / "other"
    path.replace(other)
    if trap == "link":
        path.symlink_to(other)
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    kept = other.read_bytes()
    assert cache.get(FACTS) is None
    cache.put(FACTS, b"another engine")
    assert other.read_bytes() == kept


def test_the_key_that_is_read_is_the_one_that_was_looked_at(cache, monkeypatch, tmp_path):
    """Whoever swaps the file between a look at its name and the reading gains nothing: the open file is looked at."""
    cache.put(FACTS, b"native code")
    foreign = EngineCache(tmp_path / "foreign")
    foreign.put(FACTS, b"hostile")
    (foreign.folder / "key").chmod(0o666)
    only_engine(foreign).replace(only_engine(cache))
    opened = os.open

    def swapping(path, *rest, **named):
        if str(path) == str(cache.folder / "key") and (foreign.folder / "key").exists():
            (foreign.folder / "key").replace(path)
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", swapping)
    assert cache.get(FACTS) is None
    assert "may write" in cache.problem


def test_nobody_can_foresee_or_read_what_is_half_written(cache, monkeypatch):
    cache.put(FACTS, b"native code")
    names, synced = set(), os.fsync

    def look(handle):
        (partial,) = cache.folder.glob("*.partial*")
        names.add(partial.name)
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        synced(handle)

    monkeypatch.setattr(os, "fsync", look)
    for _ in range(3):
        assert cache.put(FACTS, b"native code")
    assert len(names) == 3
    assert not any(f".{os.getpid()}." in name for name in names)


def test_looking_for_an_engine_makes_no_folder(cache):
    assert cache.get(FACTS) is None
    assert not cache.folder.exists()


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert default_cache().folder == tmp_path
    monkeypatch.setenv(FOLDER_VARIABLE, "off")
    assert default_cache() is None
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache().folder == tmp_path / "xdg" / "face-edge-sdk" / "engines"
