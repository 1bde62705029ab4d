"""``edge-sdk bench BUNDLE -o RUN.json`` on a fake engine; prints "measuring" when the measurement begins."""

import sys

import toys

from edge_benchmarks import loops, scenarios
from edge_sdk import model
from edge_sdk.cli import main

engine = toys.FakeTarget()
model.find_target = scenarios.find_target = lambda name: engine
loop = loops.LOOPS["single-stream"]


def announced(*given):
    print("measuring", flush=True)
    loop(*given)


loops.LOOPS["single-stream"] = announced
sys.exit(main(["bench", sys.argv[1], "--duration", "6", "-o", sys.argv[2], "--html", sys.argv[2] + ".html"]))
