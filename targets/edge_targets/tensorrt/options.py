"""The load options that TensorRT alone has."""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.errors import InputError


@dataclass(frozen=True, slots=True)
class Options:
    """What TensorRT alone has.

    Attributes:
        workspace_bytes: scratch memory that a kernel may take while a plan is built; None follows from the memory that
            is free.
        cuda_graph: the work of a frame is launched as one CUDA graph.
    """

    workspace_bytes: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse what TensorRT cannot do (InputError)."""
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise InputError(
                f"workspace_bytes must be at least 1, got {self.workspace_bytes}",
                remedy="leave it out for automatic",
            )
