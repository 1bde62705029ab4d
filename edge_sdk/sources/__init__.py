"""Where frames come from."""

from edge_sdk.sources.files import Frame, Source, open_source

__all__ = ["Frame", "Source", "open_source"]
