"""ONNX graphs: one index, import of other tools' exports, pixels as they are, blocks by name."""
