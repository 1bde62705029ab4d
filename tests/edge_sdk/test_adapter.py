"""What adapters of engines are built from: threads, options, devices."""

from dataclasses import dataclass

import pytest

from edge_sdk.adapter import (
    BUDGET_VARIABLE,
    SessionBase,
    TargetBase,
    content_of,
    cores,
    engine_options,
    refuse_devices,
    thread_count,
)
from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.target import LoadOptions, Ranges


@dataclass(frozen=True, slots=True)
class Options:
    """Of an engine."""

    speed: int = 1
    quiet: bool = False

    def __post_init__(self):
        if self.speed < 1:
            raise InputError(f"speed is {self.speed}", remedy="at least 1")


class Engine(TargetBase):
    name = "engine"
    distribution = "engine"
    modules = ("engine",)
    options = Options


def test_options_become_an_instance_of_the_engines_own_dataclass():
    assert engine_options(Engine(), LoadOptions()) == Options()
    assert engine_options(Engine(), LoadOptions(engine={"speed": 3})) == Options(speed=3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pace": 3}, "no option 'pace', 3 was asked for"),
        ({"speed": "fast"}, "speed"),
        ({"quiet": 1}, "quiet"),
    ],
)
def test_an_option_or_value_that_the_engine_does_not_have_lists_those_that_it_has(given, said):
    with pytest.raises(InputError, match=said) as caught:
        engine_options(Engine(), LoadOptions(engine=given))
    assert "its options: speed, quiet" in caught.value.remedy


def test_the_engine_itself_refuses_values_that_mean_nothing():
    with pytest.raises(InputError, match="speed is 0"):
        engine_options(Engine(), LoadOptions(engine={"speed": 0}))


def test_ranges_of_another_target_are_refused():
    assert content_of(Engine(), Ranges("engine", 5)) == 5
    for ranges, said in ((None, "none came"), (Ranges("other", 5), "those of other came")):
        with pytest.raises(InputError, match=said):
            content_of(Engine(), ranges)


def test_the_frames_are_the_ranges_of_an_engine_that_calibrates_while_it_compiles():
    assert Engine().calibrate(None, recipe=None, frames=[{}, {}]) == Ranges("engine", ({}, {}))


def test_an_engine_with_one_device_refuses_others():
    refuse_devices("engine", ("CPU",))
    with pytest.raises(LoadFailed, match="GPU was required"):
        refuse_devices("engine", ("CPU", "GPU"))


def test_a_session_without_a_vendors_call_says_so():
    with pytest.raises(InputError, match="SessionBase offers no call"):
        SessionBase().vendor_call({})


def test_threads_stay_within_the_budget_of_the_process(monkeypatch):
    monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
    assert 1 <= thread_count(LoadOptions()) <= 4
    assert thread_count(LoadOptions(threads=9)) == 9
    monkeypatch.setenv(BUDGET_VARIABLE, "1")
    assert thread_count(LoadOptions()) == 1
    with pytest.raises(InputError, match=f"threads=2 was asked for, {BUDGET_VARIABLE}=1"):
        thread_count(LoadOptions(threads=2))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_budget_that_is_no_number_is_an_error(monkeypatch, text):
    monkeypatch.setenv(BUDGET_VARIABLE, text)
    with pytest.raises(InputError, match=BUDGET_VARIABLE):
        thread_count(LoadOptions())


def test_a_container_with_less_than_a_core_gets_one_thread(tmp_path):
    everything = cores(tmp_path)
    for text, expected in (
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("max 100000", everything),
        ("nonsense", everything),
        (f"{(everything + 3) * 100000} 100000", everything),
    ):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert cores(tmp_path) == expected, text
