"""A float TFLite file written node by node, with the signature that converters write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.tensors import Array


class TfliteFile:
    """A graph to be; needs the package ``ai-edge-litert``.

    Attributes:
        schema: the module of TFLite's own tables, for the options of operators.
    """

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = b"main", [], []
        self._model = schema.ModelT()
        self._model.version, self._model.subgraphs, self._model.operatorCodes = 3, [self._graph], []
        self._model.buffers = [schema.BufferT()]  # the first one is empty by definition

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32") -> int:
        """Index of a new tensor that an operator makes or that is given."""
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = getattr(self.schema.TensorType, dtype.upper())
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: Array) -> int:
        """Index of a new tensor that holds these values."""
        index = self.tensor(name, values.shape, values.dtype.name)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._graph.tensors[index].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        return index

    def operator(self, kind: str, inputs: Sequence[int], output: int, options: Any = None) -> None:
        """Add a node.

        Args:
            kind: as the schema calls it, such as ``"CONV_2D"``.
            inputs: indices of tensors.
            output: index of the tensor that it makes.
            options: of the operator, such as a ``schema.Conv2DOptionsT``.
        """
        number = getattr(self.schema.BuiltinOperator, kind)
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
        node = self.schema.OperatorT()
        node.opcodeIndex, node.inputs = len(self._model.operatorCodes), list(inputs)
        node.outputs = [output]
        if options is not None:
            node.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            node.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        self._model.operatorCodes.append(code)
        self._graph.operators.append(node)

    def pixels(self, name: str, shape: Sequence[int]) -> tuple[int, int]:
        """Indices of a uint8 input and of its cast to float."""
        entry, floats = self.tensor(name, shape, "uint8"), self.tensor(f"{name}_floats", shape)
        cast = self.schema.CastOptionsT()
        cast.inDataType, cast.outDataType = self.schema.TensorType.UINT8, self.schema.TensorType.FLOAT32
        self.operator("CAST", [entry], floats, cast)
        return entry, floats

    def convolution(self, source: int, name: str, kernel: Array, bias: Array, shape: Sequence[int]) -> int:
        """Index of what a convolution makes whose stride is its kernel's size.

        Args:
            source: index of its input.
            name: of its output.
            kernel: (out, height, width, in) float32.
            bias: (out,) float32.
            shape: of its output.
        """
        options = self.schema.Conv2DOptionsT()
        options.padding = self.schema.Padding.VALID
        options.strideH, options.strideW = kernel.shape[1:3]
        made = self.tensor(name, shape)
        inputs = [source, self.constant(f"w_{name}", kernel), self.constant(f"b_{name}", bias)]
        self.operator("CONV_2D", inputs, made, options)
        return made

    def reshape(self, source: int, name: str, shape: Sequence[int]) -> int:
        """Index of the same values in another shape."""
        options = self.schema.ReshapeOptionsT()
        options.newShape = list(shape)
        made = self.tensor(name, shape)
        self.operator(
            "RESHAPE", [source, self.constant(f"s_{name}", np.array(shape, np.int32))], made, options
        )
        return made

    def concatenation(self, sources: Sequence[int], name: str, shape: Sequence[int]) -> int:
        """Index of vectors (1, n) put one after another."""
        options = self.schema.ConcatenationOptionsT()
        options.axis = 1
        made = self.tensor(name, shape)
        self.operator("CONCATENATION", sources, made, options)
        return made

    def dense(self, source: int, name: str, weight: Array, bias: Array) -> int:
        """Index of a vector (1, out) times a weight (out, in) float32, plus a bias (out,)."""
        made = self.tensor(name, (1, len(bias)))
        inputs = [source, self.constant(f"w_{name}", weight), self.constant(f"b_{name}", bias)]
        self.operator("FULLY_CONNECTED", inputs, made, self.schema.FullyConnectedOptionsT())
        return made

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        """Write the file.

        Args:
            path: of it.
            inputs: indices of the tensors that the signature calls args_0, args_1 ...
            outputs: indices of those that it calls output_0, output_1 ...
        """
        import flatbuffers

        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [self._named(f"args_{i}", index) for i, index in enumerate(inputs)]
        signature.outputs = [self._named(f"output_{i}", index) for i, index in enumerate(outputs)]
        self._model.signatureDefs = [signature]
        builder = flatbuffers.Builder()
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path

    def _named(self, name: str, index: int) -> Any:
        made = self.schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), index
        return made
