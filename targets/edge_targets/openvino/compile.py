"""What a host does for the OpenVINO target: convert to IR; quantize with NNCF, which calibrates while it quantizes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_quantize.graph.blocks import in_float, of_onnx
from edge_quantize.graph.check_graph import read_model
from edge_sdk.adapter import check_recipe, content_of, vendor_errors
from edge_sdk.errors import CompileFailed, MissingDependency
from edge_sdk.reporting import unreported
from edge_sdk.spec import Recipe
from edge_sdk.target import Artifact, Ranges, SourceModel, Target
from edge_sdk.tensors import Tensors
from edge_targets.openvino.session import BIN, XML, check_file, import_openvino

_GENERATED = re.compile(r"\b([A-Z][A-Za-z]+)_[0-9]+\b")


def check(target: Target, recipe: Recipe) -> None:
    """Raise UnsupportedRecipe for what OpenVINO and NNCF cannot do."""
    check_recipe(
        target.name,
        recipe,
        precisions=("fp32", "fp16", "int8", "int8-wonly", "int8-mixed"),
        methods=("minmax", "mse", "percentile"),
        symmetric=(None, False, True),
        keep_float=recipe.calibrated,
    )


def compile_network(target: Target, model: SourceModel, recipe: Recipe, ranges: Ranges | None) -> Artifact:
    """Float: the graph as IR. Int8: NNCF with the MIXED preset (symmetric weights, asymmetric activations).

    fp16: weights stored in half precision; a processor computes with them in float, a GPU or NPU in half. What the
    recipe's ``keep_float`` names is NNCF's ignored scope: OpenVINO keeps the ONNX names of operators.
    """
    check(target, recipe)
    frames = content_of(target, ranges) if recipe.calibrated else ()
    ov = import_openvino()
    read_model(model.onnx)  # the converter would follow a name to another file
    with vendor_errors("openvino", CompileFailed, "conversion failed", "check the graph with onnx.checker"):
        network = ov.convert_model(str(model.onnx))
        if recipe.calibrated:
            network = _quantize(network, model, recipe, frames)
        elif recipe.precision == "int8-wonly":
            nncf = _import_nncf()
            network = nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_SYM)
        _name_by_order(network)
        with tempfile.TemporaryDirectory() as folder:
            ov.save_model(network, str(Path(folder) / XML), compress_to_fp16=recipe.precision == "fp16")
            files = {name: (Path(folder) / name).read_bytes() for name in (BIN, XML)}
    artifact = Artifact(
        files=files,
        inputs=tuple(t.name for t in model.spec.inputs),
        outputs=tuple(t.name for t in model.spec.outputs),
        fingerprint={"openvino": str(ov.__version__).split("-")[0]},
    )
    # What a device would refuse is never written.
    check_file(artifact, CompileFailed)
    return artifact


def _name_by_order(network: Any) -> None:
    """Rename generated nodes by their order in the graph.

    Their names count all nodes that this process ever made, so that the second of two equal builds would differ.
    """
    numbers: dict[str, int] = {}
    for node in network.get_ordered_ops():
        name = _GENERATED.sub(
            lambda found: f"{found[1]}_{numbers.setdefault(found[0], len(numbers))}", node.get_friendly_name()
        )
        node.set_friendly_name(name)


def _import_nncf() -> Any:
    try:
        with unreported():
            import nncf
    except ImportError as error:
        raise MissingDependency(
            f"nncf cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    return nncf


def _quantize(network: Any, model: SourceModel, recipe: Recipe, frames: Sequence[Tensors]) -> Any:
    nncf = _import_nncf()
    # Also for minmax: by itself the tool averages the pictures' extremes, which cuts off what they differ in.
    estimators = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    ranges = {
        "minmax": estimators.MINMAX,
        "mse": estimators.HISTOGRAM,
        "percentile": estimators.MEAN_QUANTILE,
    }
    advanced = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges[recipe.method])
    items = [dict(frame) for frame in frames]
    quantized = nncf.quantize(
        network,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.PERFORMANCE if recipe.symmetric else nncf.QuantizationPreset.MIXED,
        subset_size=len(items),
        advanced_parameters=advanced,
        # Not validated: a constant of an ignored operator is no node to NNCF.
        ignored_scope=nncf.IgnoredScope(names=_ignored(network, model, recipe), validate=False),
    )
    for entry in quantized.get_parameters():
        if entry.get_element_type().get_type_name() == "u8":
            _let_pixels_in(entry)
    return quantized


def _let_pixels_in(entry: Any) -> None:
    """Give the quantization of pixels the steps that they have, 0 to 255: the engine then leaves it out.

    Args:
        entry: the network's parameter that holds the pixels.
    """
    from openvino import opset13

    node, scale = entry, 1.0
    while True:
        users = [user.get_node() for user in node.output(0).get_target_inputs()]
        if len(users) != 1:
            return
        node = users[0]
        kind = node.get_type_name()
        if kind == "Multiply":
            factors = [
                v.get_node() for v in node.input_values() if v.get_node().get_type_name() == "Constant"
            ]
            values = factors[0].get_data().reshape(-1) if factors else np.zeros(0)
            if len(values) != 1 or not values[0] > 0:
                return
            scale *= float(values[0])
        elif kind == "FakeQuantize":
            break
        elif kind not in ("Convert", "Transpose", "Reshape"):
            return
    if node.get_attributes()["levels"] != 256:
        return
    for index, limit in ((1, 0.0), (2, 255.0), (3, 0.0), (4, 255.0)):
        constant = opset13.constant(np.float32(limit * scale))
        constant.set_friendly_name(node.input_value(index).get_node().get_friendly_name())
        node.input(index).replace_source_output(constant.output(0))


def _ignored(network: Any, model: SourceModel, recipe: Recipe) -> list[str]:
    """Names of the operators that stay in float; a convolution is two here, with and without its bias."""
    chosen = (
        {op.name for op in in_float(of_onnx(model.onnx), recipe.keep_float)} if recipe.keep_float else set()
    )
    names = [str(op.get_friendly_name()) for op in network.get_ordered_ops()]
    return [name for name in names if name in chosen or name.rpartition("/")[0] in chosen]
