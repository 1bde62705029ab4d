"""Quantization-aware training: fake quantization in a network, and the network as explicit QDQ.

    python -m edge_training.qat fer-gmenet runs/fer-gmenet-qat/qat.best.safetensors --output runs/fer-gmenet-qat

torchao (PT2E) provides observers and fake quantizers and puts them into the graph; this module says where, through its
``Quantizer`` interface. The deployed graph is quantized (batch norms folded, uint8 pixels in, raw maps out), so that
what is trained is what runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import (
    FakeQuantize,
    HistogramObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.fake_quantize import disable_observer, enable_observer
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from edge_sdk import zoo
from edge_sdk.errors import EdgeError
from edge_sdk.files import replacing
from edge_sdk.spec import ModelSpec, only_picture
from edge_training import checkpoint
from edge_training.export import DeployedGraph, fuse, write_onnx
from edge_training.networks import of_model

_aten = torch.ops.aten
_WEIGHTED = (_aten.conv2d.default, _aten.linear.default)
_TWO_INPUTS = (_aten.add.Tensor, _aten.mul.Tensor, _aten.matmul.default)
_OTHERS = (
    _aten.amax.default,
    _aten.avg_pool2d.default,
    _aten.cat.default,
    _aten.max_pool2d.default,
    _aten.mean.dim,
    _aten.sigmoid.default,
    _aten.split.Tensor,
    _aten.upsample_nearest2d.vec,
)


def _symmetric(observer: type[nn.Module], scheme: torch.qscheme, axis: int | None = None) -> QuantizationSpec:
    # ONNX has no -127..127: the step is half a hundredth smaller than TensorRT's own, and -128 is hardly used.
    return QuantizationSpec(
        torch.int8, FakeQuantize.with_args(observer=observer), -128, 127, scheme, ch_axis=axis
    )


# By least squares: 3.4 dB more than the largest values' averages, before any training.
_ACTIVATION = _symmetric(HistogramObserver, torch.per_tensor_symmetric)
_WEIGHT = _symmetric(MovingAveragePerChannelMinMaxObserver, torch.per_channel_symmetric, 0)


class Placement(Quantizer):  # type: ignore[misc]  # untyped base
    """Where QDQ pairs stand, for TensorRT and onnxruntime in one graph: symmetric int8, with one scale per activation
    tensor and one per output channel of a weight.

    Every operator that computes reads 8 bits, except activation functions, which fuse with the operator before them.
    Biases and outputs of the network stay float (``edge_targets.tensorrt.linter.RULES``). TensorRT would do with fewer
    pairs; onnxruntime computes an operator in 8 bits only if its output is quantized too.
    """

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            if node.target in _WEIGHTED:
                wanted = {node.args[0]: _ACTIVATION, node.args[1]: _WEIGHT}
            elif _reads_int8(node):
                wanted = dict.fromkeys(node.all_input_nodes, _ACTIVATION)
            else:
                continue
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map=wanted, _annotated=True
            )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Accept every graph, as the interface asks for this method."""


def _reads_int8(node: fx.Node) -> bool:
    """Whether the inputs of an operator without weights are quantized."""
    inputs = node.all_input_nodes
    if node.target in _TWO_INPUTS:
        return len(inputs) == 2
    fused = node.target is _aten.sigmoid.default and inputs[0].target in _WEIGHTED
    return node.target in _OTHERS and not fused


class FakeQuantized(nn.Module):
    """A deployed network with fake quantization, which has gradients: (B, H, W, 3) uint8 RGB pixels to its outputs.

    Args:
        network: trained, any mode; its batch norms are folded in place.
        spec: names and shapes of the deployed tensors; batches may have any size.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        two = torch.zeros((2, *only_picture(spec).shape[1:]), dtype=torch.uint8)
        any_number = ({0: torch.export.Dim.DYNAMIC},)
        deployed = DeployedGraph(fuse(network.eval())).eval()
        for module in deployed.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                # Folding made biases that do not learn.
                module.bias.requires_grad_(module.weight.requires_grad)
        captured = torch.export.export(deployed, (two,), dynamic_shapes=any_number).module()
        self.graph = prepare_qat_pt2e(captured, Placement())

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.graph(pixels)
        return outputs

    def train(self, mode: bool = True) -> FakeQuantized:
        """Do nothing: norms are folded, dropout is gone, and captured graphs have no mode."""
        return self

    def observe(self, on: bool) -> None:
        """Let the ranges of activations follow the batches (True), or freeze them (False)."""
        self.apply(enable_observer if on else disable_observer)


def export(network: FakeQuantized, spec: ModelSpec, output: Path) -> Path:
    """Write ``NAME.qat.onnx``: explicit QDQ, weights in float before their pairs; whole or not at all.

    Args:
        network: fine-tuned.
        spec: names and shapes of the tensors.
        output: folder, made if missing.

    Returns:
        The file.
    """
    output.mkdir(parents=True, exist_ok=True)
    network.observe(False)
    file = output / f"{spec.name}.qat.onnx"
    with replacing(file) as partial:
        write_onnx(network, spec, partial)
        model = onnx.load(str(partial))
        for tensor in _scales(model):
            # torch writes a scalar as a list of one, which onnxruntime's kernels refuse.
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(()), tensor.name))
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(partial))
    return file


def _scales(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Scales and zero-points that are stored as a list of one value."""
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    names = {name for node in pairs for name in node.input[1:]}
    return [t for t in model.graph.initializer if t.name in names and list(t.dims) == [1]]


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.qat", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("weights", type=Path, help="checkpoint of a qat stage")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        spec = zoo.spec(args.model)
        tensors, _ = checkpoint.load(args.weights)
        network = FakeQuantized(of_model(spec.name), spec)
        network.load_state_dict(tensors)
        file = export(network, spec, args.output)
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    print(f"{file} {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
