"""``python -m edge_sdk`` is ``edge-sdk``."""

from edge_sdk.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
