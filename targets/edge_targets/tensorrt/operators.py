"""The operators that a bundle for TensorRT may use."""

from __future__ import annotations

from collections.abc import Mapping

Version = tuple[int, int]
"""Major and minor number of a TensorRT."""

_SINCE_8_6 = (
    "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant "
    "ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu "
    "Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool "
    "GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity "
    "InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LRN "
    "LpNormalization MatMul Max MaxPool Mean Min Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear "
    "Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid "
    "Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh "
    "ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor"
)
_SINCE_10_15 = "CastLike Gelu Hardmax Mish Reciprocal Shrink"
OPERATORS: Mapping[str, Version] = {
    **dict.fromkeys(_SINCE_8_6.split(), (8, 6)),
    **dict.fromkeys(_SINCE_10_15.split(), (10, 15)),
}
"""Operators that a face network may use, and the version whose public support matrix is known to have them.

Control flow, sequences, strings and recurrent layers are left out on purpose.
"""
