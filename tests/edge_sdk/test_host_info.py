"""Recorded boards: what /proc and /sys of real machines look like, as far as their makers document it."""

import pytest

from edge_sdk import host_info
from edge_sdk.host_info import Reading, Throttle, throttled_between


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def pi(tmp_path):
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:        8245344 kB\nMemFree: 1 kB\n",
            "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2400000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "61250\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
            "sys/class/video4linux/video0/name": "unicam\n",
        },
    )


@pytest.fixture
def jetson(tmp_path):
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
            "proc/cpuinfo": "processor : 0\nCPU part : 0xd42\n",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 1, BOARD: generic, EABI: aarch64\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "",  # asleep
            "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device0/cur_state": "3\n",
            "sys/class/thermal/cooling_device1/type": "cpu-throttle-alert\n",
            "sys/class/thermal/cooling_device1/cur_state": "0\n",
            "sys/class/hwmon/hwmon2/oc3_event_cnt": "7\n",
        },
    )


@pytest.fixture
def intel(tmp_path):
    return write(
        tmp_path,
        {
            "sys/class/dmi/id/sys_vendor": "Intel(R) Client Systems\n",
            "sys/class/dmi/id/product_name": "NUC12WSKi5\n",
            "proc/cpuinfo": "processor : 0\nvendor_id : GenuineIntel\nmodel name : Intel(R) Core(TM) i5-1240P\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "12\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "12\n",
            "sys/class/hwmon/hwmon3/name": "coretemp\n",
            "sys/class/hwmon/hwmon3/temp1_input": "55000\n",
            "sys/class/hwmon/hwmon3/temp2_input": "58000\n",
        },
    )


def test_a_raspberry_pi_is_known_by_its_device_tree(pi):
    board = host_info.board(pi).value
    assert (board.model, board.family) == ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi")
    assert board.cpu == "Cortex-A76"
    assert board.l4t is None
    clocks = host_info.clocks(pi).value
    assert (clocks.governor, clocks.mhz, clocks.max_mhz) == ("ondemand", (1500.0, 2400.0), 2400.0)
    assert host_info.temperatures(pi).value == {"cpu-thermal": 61.25}
    assert host_info.memory_mb(pi).value == pytest.approx(8443.2, abs=0.1)
    assert host_info.system(pi).value == "Debian GNU/Linux 12 (bookworm)"
    assert host_info.cameras(pi).value == {"/dev/video0": "unicam"}


def test_a_raspberry_pi_tells_its_flags_apart(pi):
    flags = host_info.throttle(pi).value
    assert flags.now is True
    assert flags.since_boot is True
    assert flags.causes == (
        "under-voltage now",
        "throttled now",
        "under-voltage since boot",
        "throttled since boot",
    )
    (pi / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("80000")
    flags = host_info.throttle(pi).value
    assert (flags.now, flags.since_boot, flags.causes) == (
        False,
        True,
        ("soft temperature limit since boot",),
    )
    (pi / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("?")
    assert host_info.throttle(pi) == Reading(
        None, "/sys/devices/platform/soc/soc:firmware/get_throttled said '?'"
    )


def test_the_firmwares_command_is_asked_where_the_kernel_has_no_file(tmp_path, monkeypatch):
    live = host_info._pi_throttle
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "vcgencmd is not installed" in live(host_info.ROOT).reason
    command = tmp_path / "vcgencmd"
    command.write_text("#!/bin/sh\necho throttled=0x20002\n")
    command.chmod(0o755)
    flags = live(host_info.ROOT).value
    assert flags.causes == ("clock capped now", "clock capped since boot")
    command.write_text("#!/bin/sh\nexit 255\n")
    assert "group video" in live(host_info.ROOT).reason


def test_a_jetson_counts_its_over_currents(jetson):
    board = host_info.board(jetson).value
    assert (board.family, board.l4t, board.cpu) == ("jetson", "36.3.0", "Cortex-A78AE")
    flags = host_info.throttle(jetson).value
    assert (flags.now, flags.since_boot, flags.counters) == (False, True, {"oc3": 7})
    assert host_info.temperatures(jetson).value == {"cpu-thermal": 48.5}
    (jetson / "sys/class/thermal/cooling_device1/cur_state").write_text("1")
    assert host_info.throttle(jetson).value.causes[0] == "cpu-throttle-alert now"


def test_an_intel_pc_is_known_by_dmi_and_counts_its_throttling(intel):
    board = host_info.board(intel).value
    assert (board.model, board.family) == ("Intel(R) Client Systems NUC12WSKi5", "intel")
    flags = host_info.throttle(intel).value
    assert (flags.now, flags.since_boot) == (None, True)
    assert flags.causes == ("package throttled 12 times since boot",)
    assert host_info.temperatures(intel).value == {"coretemp": 58.0}


def test_an_empty_root_says_why_nothing_is_known(tmp_path):
    for read in (
        host_info.board,
        host_info.clocks,
        host_info.temperatures,
        host_info.throttle,
        host_info.cameras,
        host_info.memory_mb,
        host_info.system,
    ):
        reading = read(tmp_path)
        assert reading.value is None
        assert reading.reason


def test_this_machine_answers_or_says_why_not():
    for read in (
        host_info.board,
        host_info.clocks,
        host_info.temperatures,
        host_info.throttle,
        host_info.cameras,
    ):
        reading = read()
        assert (reading.value is None) == bool(reading.reason)


def flags(now=None, since_boot=None, **counters):
    return Reading(Throttle(now, since_boot, (), counters))


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        (flags(None, True, package=12), flags(None, True, package=12), False),
        (flags(None, True, package=12), flags(None, True, package=13), True),
        (flags(None, False, package=0), flags(None, True, package=1), True),
        (flags(False, False), flags(False, False), False),
        (flags(False, False), flags(False, True), True),
        (flags(False, True), flags(False, True), None),
        (flags(False, True), flags(True, True), True),
        (flags(False, None), flags(False, None), None),
        (Reading(None, "why"), flags(False, False), None),
        (flags(False, False), Reading(None, "why"), None),
    ],
)
def test_two_readings_tell_whether_it_throttled_between_them(before, after, answer):
    assert throttled_between(before, after) is answer


def test_memory_that_is_free_and_swapping_are_counted(tmp_path):
    write(
        tmp_path,
        {"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable:    1000 kB\n", "proc/vmstat": "pswpin 12\n"},
    )
    assert host_info.available_mb(tmp_path).value == 1.024
    assert host_info.swapped_in(tmp_path).value == 12
    assert host_info.swapped_in(tmp_path / "nothing").value is None


def test_a_jetsons_power_mode_has_the_name_of_its_configuration(jetson):
    assert host_info.power_mode(jetson).value is None
    write(
        jetson,
        {
            "var/lib/nvpmodel/status": "pmode:0001\nfmode:quiet\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n",
        },
    )
    assert host_info.power_mode(jetson).value == "1 25W"
