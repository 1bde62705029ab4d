"""What programs send and what files they leave behind: each runs under strace in a home folder of its own.

    python tests/privacy.py [--seconds 60] [PROGRAM ...]

Reported, and an exit code of 1, are calls that reach beyond this machine (connect, bind, send to any address but its
own: a name that is looked up is one) and files written anywhere but in the SDK's own cache, the temporary folder and
the folder that the program was told to write into. Needs strace (Debian: apt install strace).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CALLS = ("connect", "bind", "sendto", "sendmsg", "sendmmsg", "open", "openat", "creat", "mkdir", "mkdirat",
         "rename", "renameat", "renameat2", "link", "linkat", "symlink")  # fmt: skip

_SERVE = """
import sys, time
import numpy as np
import edge_sdk
end = time.monotonic() + float(sys.argv[1])
model = edge_sdk.load("pad-minifasnet", prefer=("{engine}",), threads=1)
frame = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
while True:
    model(frame, boxes=np.array([[30, 30, 90, 90]], np.float32))
    if time.monotonic() > end:
        break
    time.sleep(0.05)
"""
_BUILD = """
import sys, time
from pathlib import Path
import toys
from edge_sdk.target import SourceModel, find_target
end = time.monotonic() + float(sys.argv[1])
folder = Path(sys.argv[2])
onnx = toys.write_onnx(folder / "toy.onnx")
tflite = toys.write_tflite(folder / "toy.tflite") if "{engine}" == "tflite" else None
toys.compile_by(find_target("{engine}"), SourceModel(toys.SPEC, onnx, tflite), toys.INT8)
time.sleep(max(0.0, end - time.monotonic()))
"""
_DRAW = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
from pathlib import Path
import edge_sdk
from edge_quantize.search import noise_report
from edge_quantize.recipe import read_recipe
noise_report.check(Path(sys.argv[2]) / "report.json", read_recipe("int8-mixed"))
from matplotlib.figure import Figure
figure = Figure()
figure.subplots().set_title("drawn")
figure.savefig(Path(sys.argv[2]) / "drawn.png")
time.sleep(max(0.0, end - time.monotonic()))
"""
_CHECK = """
import sys, time
from pathlib import Path
import toys
from edge_targets.tensorrt import check
end = time.monotonic() + float(sys.argv[1])
step = check._polygraphy(toys.write_onnx(Path(sys.argv[2]) / "toy.onnx").read_bytes())
assert step.status == "passed", step
time.sleep(max(0.0, end - time.monotonic()))
"""
_DOCTOR = """
import sys, time
from edge_sdk.cli import main
end = time.monotonic() + float(sys.argv[1])
sys.argv = ["edge-sdk", "doctor", "--json"]
code = main(sys.argv[1:])
time.sleep(max(0.0, end - time.monotonic()))
"""
_SWEEP = """
import sys, time
import edge_sdk
from edge_benchmarks import sweep
end = time.monotonic() + float(sys.argv[1])
def work(job):
    return {{"record": job, "bundle": None, "runs": None}}
executor = getattr(sweep, "{executor}")(1)
list(executor.run(work, [{{"name": "a", "key": "b"}}]))
time.sleep(max(0.0, end - time.monotonic()))
"""
PROGRAMS = {
    **{engine: _SERVE.format(engine=engine) for engine in ("onnxruntime", "openvino", "tflite")},
    **{f"build-{e}": _BUILD.format(engine=e) for e in ("onnxruntime", "openvino", "tflite", "tensorrt")},
    "matplotlib": _DRAW,
    "polygraphy": _CHECK,
    "doctor": _DOCTOR,
    "ray": _SWEEP.format(executor="Ray"),
    "dask": _SWEEP.format(executor="Dask"),
}
"""Name to Python source; its arguments are the seconds that it shall live and a folder to write into."""
UNASKED = ("ray",)
"""Run only when named: Ray asks whether it is in a cloud, whatever its switches say (docs/SECURITY.md)."""


@dataclass(frozen=True)
class Seen:
    """What a program did.

    Attributes:
        code: its exit code.
        network: calls with an internet address, each once, in words.
        files: written outside the places that are the program's.
        said: the end of what it printed.
    """

    code: int
    network: tuple[str, ...]
    files: tuple[str, ...]
    said: str


def watch(source: str, *, seconds: float, cwd: Path | None = None) -> Seen:
    """Run a program under strace and say what it sent and wrote.

    Args:
        source: of the program.
        seconds: that it shall live.
        cwd: folder in which it is started; None makes one.
    """
    with tempfile.TemporaryDirectory(prefix="privacy-") as name:
        base = Path(name).resolve()
        home, scratch, output = base / "home", base / "scratch", base / "output"
        for folder in (home, scratch, output, base / "here"):
            folder.mkdir()
        trace = base / "trace"
        roots = [ROOT / part for part in (".", "quantize", "targets", "benchmarks", "training", "tests")]
        # Without what would hide the fault: engines keep still under continuous integration.
        hidden = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
                  "MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY", "EDGE_SDK_ENGINE_CACHE", "PYTEST_CURRENT_TEST")  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment |= {
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "OMP_NUM_THREADS": "1",
        }
        command = [
            "strace",
            "-f",
            "-qq",
            "-yy",
            "--seccomp-bpf",
            "-s",
            "128",
            "-e",
            f"trace={','.join(CALLS)}",
            "-o",
            str(trace),
        ]
        done = subprocess.run(
            [*command, sys.executable, "-c", source, str(seconds), str(output)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=cwd or base / "here",
            env=environment,
            timeout=seconds + 540,
        )
        network, files = _read(trace.read_text(errors="replace"), cwd or base / "here")
        cache = home / ".cache" / "face-edge-sdk"
        ours = (scratch, output, cache)
        written = sorted(
            {str(f) for f in files if f != cache.parent and not any(f.is_relative_to(o) for o in ours)}
        )
        said = (done.stdout + done.stderr)[-2000:]
        shown = tuple(path.replace(str(base), "") for path in written)
        return Seen(done.returncode, tuple(dict.fromkeys(network)), shown, said)


_OPENED = re.compile(
    r'^(?:\d+ +)?(?:open|openat|creat)\((?:[^,"<]*(?:<([^>]*)>)?, )?"([^"]*)", ([^)]*)\) += \d'
)
_MADE = re.compile(r"^(?:\d+ +)?(mkdir|mkdirat|rename|renameat2?|link|linkat|symlink)\((.*)\) += 0")
_NAMED = re.compile(r'(?:<([^>]*)>, )?"([^"]*)"')
_ADDRESS = re.compile(r"sa_family=AF_INET6?,.*?htons\((\d+)\).*?\"([0-9a-f.:]+)\"")
_CONNECTED = re.compile(r"<(?:TCP|UDP)(?:v6)?:\[[^<]*->\[?([0-9a-f.:]+?)\]?:(\d+)\]>")
_HARMLESS = ("/dev/", "/proc/", "/sys/")


def _read(trace: str, cwd: Path) -> tuple[list[str], list[Path]]:
    """Network calls in words, and files and folders that were made or written."""
    network, files = [], []
    for line in _whole(trace):
        call = re.sub(r"^\d+ +", "", line).partition("(")[0]
        if found := _ADDRESS.search(line):
            if not _is_here(found[2], found[1]):
                network.append(f"{call} to {found[2]} port {found[1]}")
        elif call.startswith("send") and (found := _CONNECTED.search(line)):
            if not _is_here(found[1], found[2]):
                network.append(f"{call} to {found[1]} port {found[2]}{_asked(line)}")
        elif (found := _OPENED.match(line)) and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", found[3]):
            files.append(cwd / (found[1] or "") / found[2])
        elif found := _MADE.match(line):
            folder, name = _NAMED.findall(found[2])[-1]
            files.append(cwd / folder / name)
    return network, [f for f in files if not str(f).startswith(_HARMLESS)]


def _is_here(address: str, port: str) -> bool:
    """Whether an address is this machine's alone; a name server that runs here asks others."""
    return address.removeprefix("::ffff:").startswith(("127.", "::1")) and port != "53"


def _whole(trace: str) -> list[str]:
    """Lines of a trace, with calls joined that another thread's call interrupted."""
    lines, begun = [], {}
    for line in trace.splitlines():
        number = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[number] = line.removesuffix("<unfinished ...>").rstrip()
        elif "resumed>" in line and number in begun:
            lines.append(begun.pop(number) + line.partition("resumed>")[2])
        else:
            lines.append(line)
    return [*lines, *begun.values()]


def _asked(line: str) -> str:
    """What was asked of a name server, whose questions have a length before each part of a name."""
    text = re.sub(r"\\(?:[0-7]{1,3}|[a-z])", " ", line.partition('"')[2].partition('"')[0])
    parts = re.findall(r"[a-z0-9-]{2,}", text)
    return f" ({'.'.join(parts)})" if parts else ""


def main() -> int:
    """Watch the programs named, or all; returns 1 if one sent or left something, or failed."""
    parser = argparse.ArgumentParser(prog="privacy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="that each program lives (default 60)")
    parser.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}; default: all"
    )
    args = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed; Debian, Ubuntu: apt install strace")
        return 2
    code = 0
    for name in args.programs or [name for name in PROGRAMS if name not in UNASKED]:
        seen = watch(PROGRAMS[name], seconds=args.seconds)
        if seen.code and "MissingDependency" in seen.said:
            print(f"{name:<20} skipped: {seen.said.strip().splitlines()[-1]}", flush=True)
            continue
        print(f"{name:<20} {len(seen.network)} network calls, {len(seen.files)} files outside", flush=True)
        for line in (*seen.network, *seen.files):
            print(f"    {line}")
        if seen.code:
            print(f"    it failed ({seen.code}): {seen.said}")
        code = max(code, int(bool(seen.network or seen.files or seen.code)))
    return code


if __name__ == "__main__":
    sys.exit(main())
