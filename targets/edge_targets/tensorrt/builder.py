"""From ONNX to a TensorRT plan, in a process of its own.

A build takes minutes and more memory than anything else a board does. In a child, an out-of-memory kill or a crash of
the compiler is an error of this process and not its end, and the build can be waited for beside other work. The
network goes in through a pipe and the plan comes back through one: nothing needs the disk.

The same code builds with ``tensorrt`` 8.6, 10.x and 11.x and with ``tensorrt_rtx``: what differs is looked up by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from edge_sdk.child import start_python
from edge_sdk.errors import LoadFailed
from edge_sdk.target import Progress

Module = Literal["tensorrt", "tensorrt_rtx"]

BUILD_TIMEOUT_S = 3600.0
"""The slowest board takes some minutes; after an hour a build hangs."""
MIN_WORKSPACE, MAX_WORKSPACE = 64 * 2**20, 2 * 2**30
_PR_SET_PDEATHSIG = 1
_HALF_SAFE = ("fp16", "int8", "int8-mixed")
_MEMORY_REMEDY = (
    "end other programs, add swap, or build ahead of time with nothing else running: edge-sdk install BUNDLE"
)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the build of a plan may differ in.

    Attributes:
        precision: of the recipe.
        workspace_bytes: scratch memory that a kernel may take.
        module: which of NVIDIA's two compilers.
        compute_capability: name in ``tensorrt_rtx.ComputeCapability`` to compile for; None: the GPU that is here.
    """

    precision: str
    workspace_bytes: int
    module: Module = "tensorrt"
    compute_capability: str | None = None


def workspace_limit(free_bytes: int) -> int:
    """Scratch memory for a build: half of what is free, between 64 MiB and 2 GiB.

    TensorRT allocates only what a tactic that it tries asks for; the other half is for weights and the builder itself.
    """
    return max(MIN_WORKSPACE, min(MAX_WORKSPACE, free_bytes // 2))


def build(
    onnx: bytes,
    options: BuildOptions,
    *,
    progress: Progress | None = None,
    timeout_s: float = BUILD_TIMEOUT_S,
) -> bytes:
    """Compile a network in a child process.

    Args:
        onnx: the graph, opset 17.
        options: how.
        progress: called as the builder goes on, where its version tells.
        timeout_s: the child is ended after that.

    Returns:
        The serialized plan.

    Raises:
        LoadFailed: the network was refused, the child was killed, or it took too long.
    """
    receive, send = os.pipe()
    reader = Connection(receive, writable=False)
    # Less memory; where somebody chose otherwise, that holds.
    lazy = {} if "CUDA_MODULE_LOADING" in os.environ else {"CUDA_MODULE_LOADING": "LAZY"}
    try:
        child = start_python(
            ("-m", __name__, str(send)), stdin=subprocess.PIPE, changes=lazy, pass_fds=(send,)
        )
    finally:
        os.close(send)
    try:
        with child:
            try:
                return _converse(child, reader, onnx, options, progress, timeout_s)
            finally:
                if child.poll() is None:
                    child.kill()
    finally:
        reader.close()


def _converse(
    child: subprocess.Popen[bytes],
    reader: Connection,
    onnx: bytes,
    options: BuildOptions,
    progress: Progress | None,
    timeout_s: float,
) -> bytes:
    assert child.stdin is not None
    # A child that died before it read everything says so below.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(asdict(options)).encode() + b"\n" + onnx)
        child.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    end = time.monotonic() + timeout_s
    try:
        while reader.poll(max(0.0, end - time.monotonic())):
            kind, _, content = reader.recv_bytes().partition(b"\0")
            if kind == b"plan":
                return content
            if kind == b"error":
                raise LoadFailed(f"{options.module}: {content.decode()}", remedy=_remedy(content.decode()))
            if progress is not None:
                progress(*json.loads(content))
    except EOFError:
        raise _death(child.wait(), options) from None
    raise LoadFailed(
        f"{options.module}: the build did not end within {timeout_s:g} s",
        remedy="see whether the GPU is in use",
    )


def _death(code: int, options: BuildOptions) -> LoadFailed:
    """What a child's end without an answer means."""
    if code == -signal.SIGKILL:
        return LoadFailed(
            f"{options.module}: the build was killed, as the system does when memory runs out "
            f"(workspace limit {options.workspace_bytes / 2**20:.0f} MiB)",
            remedy=_MEMORY_REMEDY,
        )
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return LoadFailed(
        f"{options.module}: the build ended by {how} and without an answer",
        remedy="run 'edge-sdk doctor': the installed TensorRT, CUDA and driver may not fit each other",
    )


def _remedy(said: str) -> str:
    if "memory" in said.lower():
        return _MEMORY_REMEDY
    return (
        "run 'edge-sdk check BUNDLE --target jetson-orin-nano', which names nodes, and build the bundle again"
    )


def compile_plan(trt: Any, onnx: bytes, options: BuildOptions, progress: Progress | None = None) -> bytes:
    """Compile a network in this process.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        onnx: the graph.
        options: how.
        progress: as for :func:`build`.

    Raises:
        RuntimeError: the parser or the builder refused; every error that it told, with the node's name.
    """
    log = make_log(trt)
    builder = trt.Builder(log)
    typed = is_strongly_typed(trt, options.precision)
    network = builder.create_network(network_flags(trt, typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise RuntimeError("the parser refused the network: " + "; ".join(map(_describe, errors)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    # Else float layers silently compute with 10 bits of mantissa: not what was gated.
    config.clear_flag(trt.BuilderFlag.TF32)
    if not typed and options.precision in _HALF_SAFE:
        config.set_flag(trt.BuilderFlag.FP16)
        if options.precision != "fp16":
            config.set_flag(trt.BuilderFlag.INT8)
    if options.compute_capability is not None:  # of tensorrt_rtx alone
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, options.compute_capability), 0)
    if progress is not None:
        _watch(trt, config, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("the builder refused the network: " + ("; ".join(log.errors) or "no reason given"))
    return bytes(memoryview(plan))


def is_strongly_typed(trt: Any, precision: str) -> bool:
    """Whether the types in the graph decide, which makes the plan compute what was gated.

    Required from TensorRT 11 on, impossible in 8.6. In between, an int8 graph is better typed weakly: opset 17 has no
    float16 pairs, so its remaining float layers would run in float32.
    """
    if not hasattr(trt.BuilderFlag, "INT8"):
        return True
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") and not precision.startswith("int8")


def network_flags(trt: Any, typed: bool) -> int:
    """Flags of a network: explicit batch where that is still a choice, and strong types."""
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if typed:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def make_log(trt: Any) -> Any:
    """A logger that keeps errors for the message and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the vendor's base has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text.strip())
                del self.errors[:-20]

    return Log()


def _describe(error: Any) -> str:
    """A parser's error with its node: by name where the version knows it, else by index."""
    node = f"node {error.node()}"
    if hasattr(error, "node_name") and error.node_name():
        node = f"{error.node_operator()} {error.node_name()}"
    return f"{node}: {' '.join(error.desc().split())[:400]}"


def _watch(trt: Any, config: Any, progress: Progress) -> None:
    """Report the builder's outermost phases, step by step; 8.6 cannot tell."""
    if hasattr(trt, "IProgressMonitor"):

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the vendor's base has no types
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)
                self._steps: dict[str, int] = {}

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                if parent_phase is None:
                    self._steps[phase_name] = num_steps
                    progress(phase_name, 0, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                if phase_name in self._steps:
                    progress(phase_name, step + 1, self._steps[phase_name])
                return True  # go on

            def phase_finish(self, phase_name: str) -> None:
                if (steps := self._steps.pop(phase_name, None)) is not None:
                    progress(phase_name, steps, steps)

        config.progress_monitor = Monitor()


def main() -> int:
    """The child: read options and network, answer with a plan or an error."""
    writer = Connection(int(sys.argv[1]), readable=False)

    def tell(kind: bytes, content: bytes) -> None:
        writer.send_bytes(kind + b"\0" + content)

    def show(phase: str, done: int, total: int) -> None:
        tell(b"progress", json.dumps((phase, done, total)).encode())

    # If memory runs out, the build is what the system shall end; and nobody builds for a parent that is gone.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    head = sys.stdin.buffer.readline()
    onnx = sys.stdin.buffer.read()
    try:
        options = BuildOptions(**json.loads(head))
        trt = importlib.import_module(options.module)
        plan = compile_plan(trt, onnx, options, show)
    except Exception as error:  # whatever it is, the parent reports it
        tell(b"error", f"{error or type(error).__name__}".encode())
        return 1
    tell(b"plan", plan)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
