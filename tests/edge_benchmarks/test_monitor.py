"""What disturbs a run on recorded machines: a Pi, a Jetson, a PC, and one that cannot tell."""

import pytest

from edge_benchmarks import environment, monitor
from edge_benchmarks.monitor import Monitor


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PI_FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
VMSTAT = "nr_free_pages 10\npswpin {}\npswpout 4\n"


@pytest.fixture
def pi(tmp_path):
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
            "proc/cpuinfo": "processor : 0\nCPU part : 0xd0b\n",
            "proc/vmstat": VMSTAT.format(7),
            PI_FLAGS: "0\n",
            CLOCK: "2400000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "61250\n",
        },
    )


@pytest.fixture
def jetson(tmp_path):
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768\0nvidia,tegra234\0",
            "sys/class/hwmon/hwmon2/oc3_event_cnt": "7\n",
            "sys/class/thermal/cooling_device1/type": "cpu-throttle-alert\n",
            "sys/class/thermal/cooling_device1/cur_state": "0\n",
        },
    )


@pytest.fixture
def intel(tmp_path):
    return write(
        tmp_path,
        {
            "sys/class/dmi/id/sys_vendor": "Intel\n",
            "proc/cpuinfo": "processor : 0\nvendor_id : GenuineIntel\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "12\n",
        },
    )


def watched(root, *changes, as_shipped=False):
    """Health and series of a run during which files change: one change before each look."""
    watch = Monitor(root=root)
    watch.start()
    now = monitor.now_ns()
    for files in changes:
        write(root, files)
        now += int(monitor.SAMPLE_PERIOD_S * 1e9) + 1
        watch.poll(now)
    return watch.finish(10, as_shipped=as_shipped)[:2]


def test_a_quiet_pi_is_fine(pi):
    health, series = watched(pi, *[{}] * 6)
    assert health.throttled is False
    assert health.clock_cv == 0
    assert health.swapped_in == 0
    assert series.temperature_c == (61.25,) * 6
    assert series.clock_mhz == (2400.0,) * 6


def test_a_flag_that_was_up_for_a_moment_is_seen(pi):
    health, _ = watched(pi, {PI_FLAGS: "5\n"}, {PI_FLAGS: "50000\n"})
    assert health.throttled is True
    assert "under-voltage now" in health.throttle


def test_a_flag_from_before_the_run_does_not_say_what_happened_in_it(pi):
    write(pi, {PI_FLAGS: "50000\n"})
    health, _ = watched(pi, {}, {})
    assert health.throttled is None
    assert "earlier" in health.throttle


def test_a_moving_clock_and_swapping_are_seen(pi):
    clocks = [{CLOCK: f"{mhz}000\n"} for mhz in (2400, 1500, 2400, 1500, 2400, 1500)]
    health, series = watched(pi, *clocks, {"proc/vmstat": VMSTAT.format(9)})
    assert health.clock_cv > 0.2
    assert health.swapped_in == 2
    assert series.clock_mhz[:2] == (2400.0, 1500.0)


def test_a_jetsons_event_counter_tells(jetson):
    assert watched(jetson, {})[0].throttled is False
    health, _ = watched(jetson, {"sys/class/hwmon/hwmon2/oc3_event_cnt": "8\n"})
    assert health.throttled is True


def test_an_intel_counter_tells(intel):
    assert watched(intel, {})[0].throttled is False
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    assert watched(intel, {counter: "13\n"})[0].throttled is True


def test_a_machine_that_cannot_tell_is_unknown_and_not_fine(tmp_path):
    health, series = watched(tmp_path, {}, {})
    assert (health.throttled, health.clock_cv, health.swapped_in) == (None, None, None)
    assert health.throttle
    assert health.clock
    assert series.clock_mhz == (None, None)


def test_a_look_is_due_once_a_second_and_not_between(pi):
    watch = Monitor(root=pi)
    watch.start()
    start = monitor.now_ns()
    for step in range(300):
        watch.poll(start + step * 10_000_000)
    assert len(watch.finish(1, as_shipped=False)[1].at_s) in (3, 4)


def test_the_busiest_other_processes_are_named(tmp_path):
    def stat(name, seconds):
        return f"1 ({name}) S " + " ".join(
            ["0"] * 10 + [str(seconds * 100), "0"] + ["0"] * 5 + ["1", "0", "0"]
        )

    root = write(
        tmp_path,
        {
            "proc/uptime": "100.0 10.0\n",
            "proc/7/stat": stat("train (big) one", 80),
            "proc/8/stat": stat("idle", 1),
        },
    )
    assert environment.busiest(root) == ("train (big) one 80%",)


def test_a_description_of_a_machine_that_says_nothing_is_full_of_none(tmp_path):
    before = environment.snapshot(tmp_path)
    found = environment.describe(
        modules=("nothing",), device_used="CPU", threads=2, before=before, root=tmp_path
    )
    assert (found.board, found.governor, found.engine, found.memory_mb, found.os) == (None,) * 5
    assert before.clock_mhz == ()
