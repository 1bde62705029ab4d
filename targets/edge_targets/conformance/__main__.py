"""The checks of one precision in this process: ``python -m edge_targets.conformance NAME PRECISION CHECK,CHECK``."""

from __future__ import annotations

import sys

from edge_targets.conformance.suite import run

if __name__ == "__main__":
    run(*sys.argv[1:])
