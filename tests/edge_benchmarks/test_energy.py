"""Recorded power monitors: what they say, what they cannot, and what a decision costs of it."""

import subprocess

import pytest

from edge_benchmarks import energy, monitor
from edge_benchmarks.monitor import Monitor
from edge_sdk.errors import InputError
from edge_sdk.host_info import Reading

PMIC = """\
    3V7_WL_SW_A current(0)=0.07319584A
    VDD_CORE_A current(7)=2.00000000A
    3V7_WL_SW_V volt(8)=3.70000000V
    VDD_CORE_V volt(15)=0.80000000V
    EXT5V_V volt(24)=5.10000000V
"""


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def jetson(tmp_path):
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    rails = {"1": ("VDD_IN", 5000, 1200), "2": ("VDD_CPU_GPU_CV", 5000, 500)}
    files = {}
    for n, (label, volts, amperes) in rails.items():
        files |= {
            f"{chip}/in{n}_label": label + "\n",
            f"{chip}/in{n}_input": f"{volts}\n",
            f"{chip}/curr{n}_input": f"{amperes}\n",
        }
    return write(
        tmp_path, files | {f"{chip}/in7_label": "sum of shunt voltages\n", f"{chip}/in7_input": "3\n"}
    )


@pytest.fixture
def intel(tmp_path):
    zone = "sys/class/powercap/intel-rapl:0"
    return write(
        tmp_path,
        {
            f"{zone}/energy_uj": "1000000\n",
            f"{zone}/max_energy_range_uj": "4000000\n",
            f"{zone}:0/energy_uj": "7\n",  # a part of the package, not to be counted twice
        },
    )


def test_a_jetsons_input_rail_stands_for_the_board(jetson):
    source = energy.find(jetson).value
    assert (source.name, source.scope) == ("INA3221", "rails VDD_IN")
    assert source.watts() == 6.0
    assert source.joules(10.0) == 0
    assert source.joules(10.5) == 3.0  # trapezoids


def test_without_an_input_rail_all_rails_are_summed(jetson):
    for label in jetson.rglob("in1_label"):
        label.write_text("VDD_GPU_SOC\n")
    source = energy.find(jetson).value
    assert source.watts() == 8.5
    assert "VDD_CPU_GPU_CV + VDD_GPU_SOC" in source.scope


def test_a_counter_that_wraps_around_goes_on_growing(intel):
    source = energy.find(intel).value
    counter = intel / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.write_text("3500000\n")
    assert source.joules(0) == 2.5
    counter.write_text("500000\n")
    assert source.joules(1) == 3.5


def test_a_pi_sums_its_rails():
    assert energy.pmic_watts(PMIC) == pytest.approx(0.07319584 * 3.7 + 2 * 0.8)
    with pytest.raises(OSError, match="no rail"):
        energy.pmic_watts('error=1 error_msg="Command not registered"')


def test_a_pi_that_does_not_answer_is_an_os_error(monkeypatch):
    def fail(*_, **__):
        raise subprocess.CalledProcessError(1, "vcgencmd")

    monkeypatch.setattr(energy.subprocess, "run", fail)
    with pytest.raises(OSError, match="vcgencmd failed"):
        energy.PiPmic("vcgencmd")


def test_a_machine_without_a_source_says_so(tmp_path):
    found = energy.find(tmp_path)
    assert found.value is None
    assert "--meter" in found.reason


def test_a_counter_for_root_only_says_so(intel, monkeypatch):
    def refuse(folders):
        raise PermissionError(13, "no", "energy_uj")

    monkeypatch.setattr(energy, "Rapl", refuse)
    assert energy.find(intel).reason == "energy_uj needs root"


def test_a_meters_log_is_integrated_between_two_moments(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("time,watts\n100,2\n110,4\n1970-01-01T00:02:00Z,4\n")
    meter = energy.read_meter(path)
    assert meter.mean_watts(100, 110) == (3.0, 0)
    assert meter.mean_watts(105, 115) == (pytest.approx(3.75), 1)
    assert meter.mean_watts(90, 110) is None


@pytest.mark.parametrize("line", ["yesterday,3", "2026-01-01T00:00:00,3", "5", "5,much"])
def test_a_meters_log_that_cannot_be_read_names_the_line(tmp_path, line):
    path = tmp_path / "meter.csv"
    path.write_text(f"time,watts\n{line}\n")
    with pytest.raises(InputError, match=r"meter\.csv:2"):
        energy.read_meter(path)


class Steady:
    """Ten watts."""

    name, scope, poll_period_s = "steady", "everything", 0.01

    def __init__(self, fails_after=10**9):
        self.left = fails_after

    def joules(self, seconds):
        self.left -= 1
        if self.left < 0:
            raise OSError("unplugged")
        return 10.0 * seconds


def watch(source, decisions=100, rest=0.05):
    watched = Monitor(source)
    watched.measure_idle(rest)
    watched.start()
    watched.poll(monitor.now_ns())
    return watched.finish(decisions, as_shipped=False)


def test_a_decision_costs_its_share_less_what_idling_takes():
    _, _, found = watch(Reading(Steady()))
    assert found.mean_w > 0
    assert found.idle_w == pytest.approx(10.0, rel=0.2)
    assert found.net_mj == pytest.approx(found.gross_mj * (1 - found.idle_w / found.mean_w))
    assert found.source == "steady"


def test_a_source_that_vanishes_leaves_no_figure_and_a_reason():
    _, _, found = watch(Reading(Steady(fails_after=1)))
    assert (found.gross_mj, found.net_mj) == (None, None)
    assert "unplugged" in found.reason


def test_nothing_is_estimated():
    _, _, unasked = watch(None)
    assert (unasked.gross_mj, unasked.source) == (None, None)
    _, _, none = watch(Reading(None, "no counter here"))
    assert none.reason == "no counter here"
