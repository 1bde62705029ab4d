"""Engines by preference: another one answers while the preferred one is built, and every result says who did."""

import threading
import types

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
import edge_sdk.model
import edge_sdk.selection
from edge_sdk import target
from edge_sdk.errors import ChecksumMismatch, InputError, LoadFailed
from edge_sdk.handover import Successor

PREFER = ("tensorrt", "onnxruntime")


class SlowTarget(toys.FakeTarget):
    """An engine whose load waits for a word, and has onnxruntime for a stand-in."""

    name = "tensorrt"
    distribution = "tensorrt"
    stand_in = "onnxruntime"

    def __init__(self, answer=toys.engine):
        super().__init__(answer)
        self.go, self.fails, self.ready, self.installed = threading.Event(), None, False, True

    @property
    def modules(self):
        return ("numpy",) if self.installed else ("no_such_module",)

    def starts_at_once(self, artifact, spec, *, options):
        return self.ready

    def load(self, artifact, spec, *, options):
        if not self.ready:
            assert self.go.wait(30)
        if self.fails:
            raise self.fails
        session = super().load(artifact, spec, options=options)
        session.device = "GPU"
        return session


@pytest.fixture
def engines(monkeypatch):
    """tensorrt, slow, and onnxruntime, at once."""
    both = types.SimpleNamespace(tensorrt=SlowTarget(), onnxruntime=toys.FakeTarget())

    def find(name):
        return getattr(both, name)

    monkeypatch.setattr(target, "find_target", find)
    monkeypatch.setattr(edge_sdk.model, "find_target", find)
    yield both
    both.tensorrt.go.set()


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "toy.edge"
    toys.bundle(target="tensorrt").write(made)
    return made


def test_the_stand_in_answers_until_the_engine_is_built(engines, path):
    with edge.load(
        path, prefer=PREFER, threads=2, options=edge.LoadOptions(engine={"cuda_graph": True})
    ) as model:
        assert (model.info.target, model.pending) == ("onnxruntime", "tensorrt")
        assert "tensorrt compiles the network" in model.info.notes[-1]
        found = model(toys.frame())
        assert (found.target, found.device, found.labels) == ("onnxruntime-fp32", "CPU", ("red",))
        assert not model.wait(0)
        engines.tensorrt.go.set()
        assert model.wait(30)
        found = model(toys.frame())
        assert (found.target, found.device, found.labels) == ("tensorrt-fp32", "GPU", ("red",))
        assert (model.info.target, model.info.device, model.pending) == ("tensorrt", "GPU", None)
        (old,), (new,) = engines.onnxruntime.sessions, engines.tensorrt.sessions
        assert old.closed
        assert not new.closed
    assert new.closed
    # What is TensorRT's own is asked of TensorRT alone.
    assert (engines.onnxruntime.load_options.engine, engines.onnxruntime.load_options.threads) == ({}, 2)
    assert engines.tensorrt.load_options.engine == {"cuda_graph": True}


def test_a_frame_takes_over_by_itself(engines, path):
    with edge.load(path, prefer=PREFER) as model:
        engines.tensorrt.go.set()
        assert model._successor.wait(30)
        assert model(toys.frame()).target == "tensorrt-fp32"


def test_an_engine_that_is_built_already_answers_at_once(engines, path):
    engines.tensorrt.ready = True
    with edge.load(path, prefer=PREFER) as model:
        assert (model.info.target, model.pending) == ("tensorrt", None)
    assert engines.onnxruntime.loads == 0


def test_a_build_that_fails_is_a_warning_and_a_note_and_the_stand_in_goes_on(engines, path):
    engines.tensorrt.fails = LoadFailed("tensorrt: the build was killed", remedy="add swap")
    with edge.load(path, prefer=PREFER) as model:
        engines.tensorrt.go.set()
        model._successor.wait(30)
        with pytest.warns(RuntimeWarning, match=r"stays on onnxruntime.*was killed; add swap"):
            found = model(toys.frame())
        assert found.target == "onnxruntime-fp32"
        assert model.pending is None
        assert "was killed" in model.info.notes[-1]
        assert model(toys.frame()).labels == ("red",)


def test_an_engine_that_fails_the_golden_vectors_never_takes_over(engines, path):
    engines.tensorrt.answer = lambda pixels: {n: v + 9 for n, v in toys.engine(pixels).items()}
    with edge.load(path, prefer=PREFER) as model:
        engines.tensorrt.go.set()
        with pytest.warns(RuntimeWarning, match="golden vectors fail"):
            assert model.wait(30)
        assert model(toys.frame()).target == "onnxruntime-fp32"
    assert engines.tensorrt.sessions[0].closed


def test_what_comes_after_closing_is_closed_too(engines, path):
    model = edge.load(path, prefer=PREFER)
    successor = model._successor
    model.close()
    engines.tensorrt.go.set()
    assert successor.wait(30)
    assert engines.tensorrt.sessions[0].closed
    assert engines.onnxruntime.sessions[0].closed


def test_without_prefer_nothing_stands_in(engines, path):
    engines.tensorrt.fails = LoadFailed("tensorrt: no", remedy="-")
    engines.tensorrt.go.set()
    with pytest.raises(LoadFailed, match="tensorrt: no"):
        edge.load(path)
    assert engines.onnxruntime.loads == 0


def test_an_engine_that_is_not_installed_leaves_the_stand_in_with_a_note(engines, path):
    engines.tensorrt.installed = False
    with edge.load(path, prefer=PREFER) as model:
        assert (model.info.target, model.pending) == ("onnxruntime", None)
        assert "tensorrt is not installed" in model.info.notes[-1]


@pytest.mark.parametrize(
    ("prefer", "engine"),
    [
        (("onnxruntime",), "onnxruntime"),
        (("onnxruntime", "tensorrt"), "onnxruntime"),
        (("tensorrt",), "tensorrt"),
    ],
)
def test_the_order_is_the_callers(prefer, engine, engines, path):
    engines.tensorrt.ready = True
    with edge.load(path, prefer=prefer) as model:
        assert (model.info.target, model.pending) == (engine, None)


def test_what_cannot_be_preferred_is_an_error(engines, path):
    with pytest.raises(InputError, match="is run by tensorrt or onnxruntime"):
        edge.load(path, prefer=("openvino",))
    with pytest.raises(InputError, match="must run it"):
        edge.load(path, prefer=PREFER, target="tensorrt")


def test_the_stand_in_must_pass_the_golden_vectors_too(engines, path):
    engines.onnxruntime.answer = lambda pixels: {n: v * 0 for n, v in toys.engine(pixels).items()}
    with pytest.raises(ChecksumMismatch):
        edge.load(path, prefer=PREFER)


def test_an_unexpected_failure_in_the_thread_is_heard():
    successor = Successor("x", lambda: 1 // 0)
    with pytest.raises(LoadFailed, match="division") as caught:
        successor.take()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_name_of_the_zoo_takes_the_first_preferred_engine(toy_zoo, toy_engine, monkeypatch):
    monkeypatch.setattr(edge_sdk.selection, "available_targets", lambda: ("onnxruntime", "openvino"))
    for prefer, engine in (
        (("tensorrt", "onnxruntime", "openvino"), "onnxruntime"),
        (("openvino",), "openvino"),
    ):
        toy_engine.name = engine
        with edge.load("toy", prefer=prefer) as model:
            assert (model.info.target, model.info.precision) == (engine, "int8")
