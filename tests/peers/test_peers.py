"""Peers: their table, their processes and what is made of their figures; no peer is installed here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import InferFailed, InputError
from peers import catalogue, measure, table
from peers.processes import PeerProcess

ECHO = str(Path(__file__).parent / "echo_worker.py")


def peer(name, ours=False):
    return catalogue.Peer(name, name, "environment", "worker.py", "", ours=ours)


def test_the_table_of_peers_is_whole():
    known = catalogue.read()
    assert {"plain", "ultralytics-onnxruntime", "mediapipe"} <= {p.name for p in known.peers}
    assert table.BASELINE in {p.name for p in known.peers}
    assert table.INT8 in {p.name for p in known.peers}


def test_an_unknown_peer_is_named():
    with pytest.raises(InputError, match="'nobody'"):
        catalogue.read().chosen(["nobody"])


def test_a_table_with_an_unknown_environment_is_refused(tmp_path):
    path = tmp_path / "peers.toml"
    path.write_text(
        '[environments]\n[[peers]]\nname="a"\ntitle="a"\nenvironment="x"\nworker="ours.py"\nnetwork=""\n'
    )
    with pytest.raises(InputError, match="environment 'x'"):
        catalogue.read(path)


def test_a_peer_that_dies_says_why():
    with (
        PeerProcess([sys.executable, ECHO]) as process,
        pytest.raises(InferFailed, match="out of memory"),
    ):
        process.ask({"do": "die"})


def test_a_peer_that_hangs_is_stopped():
    with (
        PeerProcess([sys.executable, ECHO]) as process,
        pytest.raises(InferFailed, match=r"within 0\.2 s"),
    ):
        process.ask({"do": "hang"}, limit_s=0.2)


def test_a_process_that_says_nothing_is_no_peer():
    with pytest.raises(InferFailed, match="ended"):
        PeerProcess([sys.executable, "-c", ""])


def test_one_peer_that_fails_costs_the_others_nothing(tmp_path):
    peers = [peer("good"), peer("bad")]
    measured = {p.name: measure.Measurements() for p in peers}

    def command(p, frames):
        return [sys.executable, *([ECHO] if p.name == "good" else ["-c", "raise SystemExit('no engine')"])]

    quiet = {"progress": lambda stage, done, total: None}
    measure.cold(peers, measured, command, tmp_path, rounds=2, **quiet)
    measure.latency(peers, measured, command, tmp_path, rounds=2, seconds=1, rows=tmp_path, **quiet)
    assert measured["good"].peak == [5_000_000, 5_000_000]
    assert measured["good"].frames == 6
    assert measured["good"].answers.tolist() == [0, -1, 2]
    assert measured["bad"].failure == "the process ended: no engine"


def row(name, p50_ms, engine_ms, first_s, peak_mb, *, ours=False):
    mine = measure.Measurements(
        cold_ns=[int(first_s * 1e9)],
        peak=[int(peak_mb * 1e6)],
        end_to_end_ns=[np.full(700, int(p50_ms * 1e6))] * 3,
        engine_ns=[np.full(700, int(engine_ms * 1e6))] * 3,
        background=0.0,
        answers=np.array([0, 1, -1, 3]),
    )
    return table.summary([peer(name, ours)], {name: mine}, {name: 12.0}, np.array([0, 1, 2, 0]))[0]


def report(*rows):
    return {
        "verdict": "VALID", "reasons": [], "rounds": 3, "seconds": 1.0, "starts": 1, "started": "now",
        "frames": {"distinct": 64, "sha256": "0" * 64}, "faces": {"set": "test", "rows": 4},
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11"},
        "peers": list(rows), "goals": table.goals(rows),
    }  # fmt: skip


def test_goals_are_held_against_ours_only():
    rows = [
        row("ours", 4.0, 3.7, 0.3, 90, ours=True),
        row(table.BASELINE, 12.0, 10.0, 3.0, 800),
        row(table.INT8, 3.9, 3.0, 3.0, 800),
    ]
    goals = table.goals(rows)
    assert {g["peer"] for g in goals} == {"ours"}
    assert [g["met"] for g in goals] == [True, False, True, True, True]
    assert goals[0]["value"] == pytest.approx(3.0)
    assert goals[2]["value"] == pytest.approx(0.3 / 2.0)


def test_a_missing_baseline_is_no_met_goal():
    assert [g["met"] for g in table.goals([row("ours", 4.0, 3.7, 0.3, 90, ours=True)])][:4] == [None] * 4


def test_a_face_that_was_not_found_is_a_wrong_answer():
    figures = row("any", 4.0, 3.7, 0.3, 90)
    assert figures["accuracy"] == 0.5
    assert figures["found"] == 0.75


def test_few_samples_make_no_p99():
    mine = measure.Measurements(end_to_end_ns=[np.arange(100) + 1])
    figures = table.summary([peer("a")], {"a": mine}, {}, None)[0]
    assert figures["end_to_end_ms"]["p99"] is None
    assert figures["end_to_end_ms"]["p50"] == pytest.approx(50 / 1e6)


def test_a_loud_machine_is_a_reason():
    quiet, loud = row("a", 1, 1, 1, 1), {**row("b", 1, 1, 1, 1), "background_share": 0.4}
    assert table.reasons([quiet]) == []
    assert "40%" in table.reasons([quiet, loud])[0]


def test_table_and_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures are the training extra's")
    rows = [row("ours", 4.0, 3.7, 0.3, 90, ours=True), {**row("broken", 1, 1, 1, 1), "failure": "it ended"}]
    text = table.markdown(report(*rows))
    assert "- broken: it ended" in text
    assert "90 MB met" in text
    table.picture(report(*rows), tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(report(*rows), allow_nan=False)
