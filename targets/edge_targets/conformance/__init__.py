"""The contract suite: what the runtime relies on in a target, as checks that anybody can run."""

from __future__ import annotations

from edge_targets.conformance.suite import CHECKS, PRECISIONS, Check, Kit, NotConforming, Outcome, examine

__all__ = ["CHECKS", "PRECISIONS", "Check", "Kit", "NotConforming", "Outcome", "examine"]
