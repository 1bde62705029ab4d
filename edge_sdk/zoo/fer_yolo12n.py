"""fer-yolo12n: fer-yolo11n with area attention; model card in ``fer-yolo12n.md``."""

from dataclasses import replace

from edge_sdk.zoo import fer_yolo11n

SPEC = replace(fer_yolo11n.SPEC, name="fer-yolo12n")
