"""Calls another package's ``main()`` as its console script would: for tools that ``python -m`` does not start.

    python -m edge_benchmarks.children.call_main MODULE [ARGUMENT...]

Prints what the tool prints, and ends with its exit code. OpenVINO's ``benchmark_app`` is such a tool: its module has a
``main()`` and does not call it.
"""

from __future__ import annotations

import importlib
import sys


def main(module: str) -> int:
    """Call ``main()`` of a module, with the arguments that follow its name on the command line; return its exit code.

    Args:
        module: import name.
    """
    sys.argv = sys.argv[1:]
    code: int = importlib.import_module(module).main() or 0
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
