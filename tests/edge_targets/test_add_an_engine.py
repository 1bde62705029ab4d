"""An engine is added by a folder, and by nothing else: it is listed, loads, is diagnosed and examined."""

import pytest
import toys

pytest.importorskip("cv2", reason="OpenCV is not installed")

import edge_sdk as edge
import edge_targets
from edge_sdk.cli import main
from edge_sdk.target import SourceModel, available_targets, find_target, target_names
from edge_targets import conformance, doctor
from edge_targets.probe import probe

PACKAGE = '''
"""An engine in numpy."""

from dataclasses import dataclass

from edge_sdk.adapter import TargetBase, check_recipe, engine_options
from edge_sdk.target import Artifact


@dataclass(frozen=True, slots=True)
class Options:
    """Of this engine."""

    speed: int = 11


class Handmade(TargetBase):
    """Target ``handmade``."""

    name = "handmade"
    distribution = "handmade"
    modules = ("numpy",)
    options = Options

    def compile(self, model, *, recipe, ranges=None):
        from edge_targets.handmade import compile as host

        return host.compile_network(model, recipe)

    def load(self, artifact, spec, *, options):
        from edge_targets.handmade.session import HandmadeSession

        return HandmadeSession(artifact, spec, options, engine_options(self, options))


TARGET = Handmade()
'''
COMPILE = """
from edge_sdk.adapter import check_recipe
from edge_sdk.target import Artifact


def compile_network(model, recipe):
    check_recipe("handmade", recipe, precisions=("fp32",))
    names = (tuple(t.name for t in tensors) for tensors in (model.spec.inputs, model.spec.outputs))
    return Artifact({"network": model.spec.name.encode()}, *names)
"""
SESSION = """
from edge_sdk.adapter import INFER_REMEDY, Ownership, SessionBase, check_session_tensors, refuse_devices
from edge_sdk.errors import InferFailed, LoadFailed, MissingDependency
from edge_sdk.tensors import check_tensors
from edge_targets.conformance.network import DETECTOR
from edge_targets.conformance.several_inputs import CLIP, PAIR

NETWORKS = {n.spec.name: n for n in (DETECTOR, CLIP, PAIR)}


class HandmadeSession(SessionBase):
    def __init__(self, artifact, spec, options, own):
        try:
            import numpy
        except ImportError as error:
            raise MissingDependency("handmade: no numpy", remedy="pip install numpy") from error
        refuse_devices("handmade", options.devices)
        network = NETWORKS.get(artifact.files.get("network", b"").decode())
        if network is None:
            raise LoadFailed("handmade: not a network of this engine", remedy="build the bundle again")
        tensors = (*network.spec.inputs, *network.spec.outputs)
        check_session_tensors(spec, "handmade", {t.name: (t.shape, t.dtype) for t in tensors})
        self.inputs, self.outputs, self.notes = spec.inputs, spec.outputs, (f"speed {own.speed}",)
        self.handle, self.ownership = network, Ownership(self)

    def infer(self, inputs):
        with self.ownership:
            try:
                check_tensors(self.inputs, inputs)
                return self.handle.compute(inputs)
            except Exception as error:
                raise InferFailed(f"handmade: {error}", remedy=INFER_REMEDY) from error

    def close(self):
        if self.ownership.end():
            self.handle = None
"""


@pytest.fixture
def handmade(tmp_path, monkeypatch):
    """The folder, beside those of this SDK's engines; children find it by a file that Python reads at its start."""
    folder = tmp_path / "more" / "handmade"
    folder.mkdir(parents=True)
    for name, text in (("__init__", PACKAGE), ("compile", COMPILE), ("session", SESSION)):
        (folder / f"{name}.py").write_text(text)
    start = tmp_path / "start"
    start.mkdir()
    more = str(tmp_path / "more")
    (start / "sitecustomize.py").write_text(f"import edge_targets; edge_targets.__path__.append({more!r})")
    monkeypatch.setattr(edge_targets, "__path__", [*edge_targets.__path__, more])
    # What importing the floor asks Python for: where the package's modules lie.
    monkeypatch.setattr(edge_targets.__spec__, "submodule_search_locations", edge_targets.__path__)
    monkeypatch.syspath_prepend(start)
    yield folder
    forget("edge_targets.handmade")


def forget(package):
    import sys

    for name in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
        del sys.modules[name]
    vars(edge_targets).pop("handmade", None)


def test_it_is_listed_and_found(handmade):
    assert "handmade" in target_names()
    assert "handmade" in available_targets()
    assert find_target("handmade").name == "handmade"


def test_a_bundle_of_it_loads_and_answers(handmade, tmp_path):
    path = tmp_path / "toy.edge"
    artifact = find_target("handmade").compile(SourceModel(toys.SPEC, path), recipe=toys.FP32)
    toys.bundle(target="handmade", artifact=artifact).write(path)
    with edge.load(path, options=edge.LoadOptions(engine={"speed": 3})) as model:
        assert model(toys.frame()).labels == ("red",)
        assert model.info.notes == ("speed 3",)
    with pytest.raises(edge.InputError, match="target handmade has no option 'pace'") as caught:
        edge.load(path, options=edge.LoadOptions(engine={"pace": 3}))
    assert "its options: speed" in caught.value.remedy


def test_doctor_knows_it_and_its_options(handmade, capsys):
    assert [(o.name, o.type, o.default) for o in doctor.options_of(find_target("handmade"))] == [
        ("speed", "int", "11")
    ]
    found = probe("handmade")
    assert (found.engine, found.works) == ("handmade", None)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "handmade" in shown
    assert "option speed: int, 11 unless asked for" in shown


def test_it_can_be_examined(handmade):
    pytest.importorskip("onnx", reason="host tool not installed")
    outcomes = conformance.examine("handmade", ["fp32"])
    assert [o for o in outcomes if not o.passed] == []
    assert len(outcomes) == len(conformance.CHECKS) + 1
