"""Name the faces on one picture: `python examples/one_picture.py photo.jpg`."""

import sys

import edge_sdk as edge

if __name__ == "__main__":
    with edge.load("fer-yolo11n") as model:
        for face in model(edge.read_image(sys.argv[1])):
            x1, y1, x2, y2 = face.box.round()
            print(f"{face.label} {face.score:.2f} at {x1:.0f},{y1:.0f},{x2:.0f},{y2:.0f}")
