"""Protocol of a peer's process: one JSON object per line on stdin, one answer per line on stdout.

Runs in the peer's own interpreter: standard library and numpy only. The first line it prints says that the first frame
is answered, ``{"load_ns", "first_ns", "faces"}``. Then it answers requests until stdin ends:

    {"do": "run", "seconds": 2.0, "discard": 5}   ->  {"end_to_end_ns": [...], "engine_ns": [...] or null, "faces": N,
                                                       "cpu_ns": N}
    {"do": "run", "frames": 50, "discard": 0}     ->  the same, over that number of frames
    {"do": "memory"}                              ->  {"peak": bytes}
    {"do": "expressions", "rows": FILE.npy}       ->  {"answers": [class index, -1 for no face ...]}, or null
"""

import json
import os
import sys
import time

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CONFIDENCE = 0.15
"""Every detector that runs our network reports faces from this score on, so that all have the same faces to suppress."""


def serve(make):
    """Answer until stdin ends.

    Args:
        make: takes the settings (``network``, ``target``, ``side``) and returns a peer: an object that has
            ``native(rgb)``, a frame in the peer's own channel order, not timed; ``__call__(frame)``, which returns the
            number of faces; ``engine_ns``, what the engine took of that call, or None; and, if it names expressions,
            ``expression(grey)``, the class index of a (48, 48) uint8 face, or -1.
    """
    settings = json.loads(sys.argv[1])
    # What libraries print goes to stderr: stdout is the protocol's.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    began = time.perf_counter_ns()
    peer = make(settings)
    loaded = time.perf_counter_ns()
    import numpy as np

    frames = np.load(settings["frames"], mmap_mode="r")
    frame = peer.native(np.array(frames[0]))
    first = time.perf_counter_ns()
    faces = peer(frame)
    say({"load_ns": loaded - began, "first_ns": time.perf_counter_ns() - first, "faces": faces})
    natives, position = None, 0
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "run":
            if natives is None:
                natives = [peer.native(np.array(frame)) for frame in frames]
            answer, position = _run(peer, natives, position, request)
            say(answer)
        elif request["do"] == "memory":
            say({"peak": _peak()})
        elif request["do"] == "expressions":
            named = getattr(peer, "expression", None)
            rows = np.load(request["rows"])
            say({"answers": None if named is None else [int(named(row)) for row in rows]})


def _run(peer, natives, position, request):
    clock = time.perf_counter_ns
    end_to_end, engine, faces = [], [], 0
    limit = request.get("frames")
    end = None if limit else clock() + int(request["seconds"] * 1e9)
    cpu = time.process_time_ns()
    turn = -request["discard"]
    while turn < limit if limit else (turn < 1 or clock() < end):
        frame = natives[position % len(natives)]
        position += 1
        before = clock()
        found = peer(frame)
        taken = clock() - before
        if turn >= 0:
            end_to_end.append(taken)
            engine.append(peer.engine_ns)
            faces += found
        turn += 1
    cpu = time.process_time_ns() - cpu
    known = None if None in engine else engine
    return {"end_to_end_ns": end_to_end, "engine_ns": known, "faces": faces, "cpu_ns": cpu}, position


def _peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


class Timed:
    """A vendor's object whose named method adds what it took to ``ns``."""

    def __init__(self, inner, method):
        self._inner, self._method, self.ns = inner, method, 0

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name != self._method:
            return found

        def timed(*args, **kwargs):
            before = time.perf_counter_ns()
            result = found(*args, **kwargs)
            self.ns += time.perf_counter_ns() - before
            return result

        return timed

    def __call__(self, *args, **kwargs):
        before = time.perf_counter_ns()
        result = self._inner(*args, **kwargs)
        self.ns += time.perf_counter_ns() - before
        return result

    def taken(self):
        """Nanoseconds since the last time somebody asked."""
        ns, self.ns = self.ns, 0
        return ns


def on_canvas(grey, side):
    """A (48, 48) face at twice its size in the middle of the network's grey canvas, (side, side, 3) uint8.

    The product's own letterbox shows a small face so, and the network was taught on it. A peer that enlarges a crop to
    the whole canvas would be judged by its letterbox, not by its network.
    """
    import cv2
    import numpy as np

    large = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((side, side, 3), 114, np.uint8)
    top = (side - large.shape[0]) // 2
    canvas[top : top + large.shape[0], top : top + large.shape[1]] = large[:, :, None]
    return canvas
