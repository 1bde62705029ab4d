"""Export trained weights to the float files that bundles are built from: opset-17 ONNX and TFLite.

python -m edge_training.export fer-yolo11n runs/fer-yolo11n/detector.best.safetensors --output training/weights
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx
import onnxslim
import torch
from torch import Tensor, nn

from edge_sdk import zoo
from edge_sdk.errors import EdgeError
from edge_sdk.files import replacing
from edge_sdk.spec import ModelSpec, only_picture
from edge_training import checkpoint
from edge_training.networks import of_model

OPSET = 17
"""Understood by every TensorRT from 8.6 on, and by all other targets."""


class DeployedGraph(nn.Module):
    """A network as it is deployed: (1, H, W, 3) uint8 RGB pixels in, and out a detector's NHWC box and class logits per
    stride, or the first of a classifier's outputs. Outputs that only training needs are left out.

    Normalisation and axis order are part of the graph, so that the device only resizes. In NHWC maps the numbers of one
    grid cell lie side by side, which makes it cheap for the decoder to read only the cells above the confidence.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        answer = self.network(pixels.permute(0, 3, 1, 2).float() * (1 / 255))
        if isinstance(answer[0], Tensor):
            return (answer[0],)
        return tuple(m.permute(0, 2, 3, 1) for pair in zip(*answer, strict=True) for m in pair)


def fuse(network: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place. The network is in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = nn.utils.fuse_conv_bn_eval(conv, norm)
                module[1] = nn.Identity()
    return network


def round_to_half(network: nn.Module) -> nn.Module:
    """Round weight matrices and kernels to values that float16 can hold; changes ``network`` in place.

    They stay float32 tensors. So the float16 bundles and the float16 checkpoint have the very weights of the float
    reference that gates compare with, and git compresses the file to about half.
    """
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.half().float())
    return network


def write_onnx(graph: nn.Module, spec: ModelSpec, file: Path) -> None:
    """Write a deployed graph as opset-17 ONNX.

    Args:
        graph: in evaluation mode, from (1, H, W, 3) uint8 pixels to the spec's outputs.
        spec: names and shapes of the tensors.
        file: to write.
    """
    # The TorchScript exporter: the other one silently stays at opset 18.
    torch.onnx.export(
        graph,
        (torch.zeros(only_picture(spec).shape, dtype=torch.uint8),),
        str(file),
        dynamo=False,
        opset_version=OPSET,
        input_names=[only_picture(spec).name],
        output_names=[t.name for t in spec.outputs],
    )
    model = onnxslim.slim(onnx.load(str(file)))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


def export(network: nn.Module, spec: ModelSpec, output: Path) -> tuple[Path, Path]:
    """Write ``NAME.onnx`` and ``NAME.tflite``, each whole or not at all.

    Args:
        network: trained, in any mode; it is fused and rounded in place.
        spec: names and shapes of the tensors.
        output: folder, made if missing.

    Returns:
        The two files.
    """
    output.mkdir(parents=True, exist_ok=True)
    graph = DeployedGraph(round_to_half(fuse(network.eval()))).eval()
    onnx_file, tflite_file = output / f"{spec.name}.onnx", output / f"{spec.name}.tflite"
    with replacing(onnx_file) as partial:
        write_onnx(graph, spec, partial)
    import litert_torch

    with replacing(tflite_file) as partial:
        example = torch.zeros(only_picture(spec).shape, dtype=torch.uint8)
        litert_torch.convert(graph, (example,)).export(str(partial))
    return onnx_file, tflite_file


def float_source(model: str, work: Path) -> Path:
    """The float ONNX file of a zoo model: the repository's, or one exported from its weights where it has no ONNX.

    Args:
        model: zoo name.
        work: folder whose ``float/`` takes the exported files.

    Raises:
        InputError: there is neither an ONNX file nor weights.
    """
    weights = zoo.SOURCES / f"{model}.safetensors"
    if (zoo.SOURCES / f"{model}.onnx").is_file() or not weights.is_file():
        return zoo.float_source(model)
    made = work / "float" / f"{model}.onnx"
    if not made.exists() or made.stat().st_mtime < weights.stat().st_mtime:
        network = of_model(model)
        network.load_state_dict(checkpoint.load(weights)[0])
        export(network, zoo.spec(model), made.parent)
    return made


def main(argv: list[str] | None = None) -> int:
    """Command line; exit codes as everywhere."""
    parser = argparse.ArgumentParser(prog="edge_training.export", description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=zoo.NAMES)
    parser.add_argument("weights", type=Path, help="checkpoint of a training")
    parser.add_argument("--output", type=Path, default=Path("training/weights"))
    args = parser.parse_args(argv)
    try:
        spec = zoo.spec(args.model)
        network = of_model(spec.name)
        tensors, _ = checkpoint.load(args.weights)
        network.load_state_dict(tensors)
        # Half precision: the weights' own file is for fine-tuning, and half the repository's growth.
        half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        files = export(network, spec, args.output)
        checkpoint.save(args.output / f"{spec.name}.safetensors", half, {"model": spec.name})
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    for file in files:
        print(f"{file} {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
