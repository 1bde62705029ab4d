"""A peer without a network: answers every request with the same figures; "die" and "hang" do what they say."""

import json
import sys
import time


def say(answer):
    print(json.dumps(answer), flush=True)


say({"load_ns": 1, "first_ns": 2, "faces": 0})
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "die":
        print("out of memory", file=sys.stderr)
        sys.exit(9)
    if asked["do"] == "hang":
        time.sleep(60)
    if asked["do"] == "memory":
        say({"peak": 5_000_000})
    elif asked["do"] == "expressions":
        say({"answers": [0, -1, 2]})
    else:
        say({"end_to_end_ns": [30, 10, 20], "engine_ns": [7, 8, 9], "faces": 3, "cpu_ns": 0})
