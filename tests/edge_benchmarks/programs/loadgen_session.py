"""LoadGen's two scenarios on a session that sleeps: prints, as JSON, its milliseconds and our median of each."""

import json
import time
from pathlib import Path

from edge_benchmarks import crosscheck


class Session:
    def infer(self, inputs):
        time.sleep(0.005)


subject = crosscheck.SessionUnderTest(Session(), [None], Path("."), 1)
results = [tool.measure(subject, 0.3, 5.0) for tool in crosscheck.TOOLS[:2]]
print(json.dumps([(ms, ours.median_ms) for ms, ours in results]))
