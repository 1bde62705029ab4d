"""The zoo's bundles written anew in today's form: the spec and the manifest change, no compiled byte does.

    python -m edge_training.repack [MODEL ...]

For a change of the manifest's form, or of what a spec says around the network (labels, thresholds, provenance). What
was measured and compiled is taken over as it is: artifacts, golden vectors, the gate's figures, the recipe. A bundle
whose spec now wants other tensors cannot be repacked: it must be built again.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk import zoo
from edge_sdk.bundle import MANIFEST, Bundle, DataDigest, GateResult, GoldenCase, GoldenSpec
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.files import write_atomically
from edge_sdk.schema import from_plain
from edge_sdk.spec import ModelSpec, Recipe
from edge_sdk.target import Artifact
from edge_sdk.tensors import Array

_GOLDEN = re.compile(r"golden/(?P<case>[0-9]+)/(?P<kind>input\.|output\.)?(?P<name>[A-Za-z0-9_]+)\.npy")


def repack(path: Path, spec: ModelSpec) -> Bundle:
    """A bundle of this or an older form with today's manifest; not written.

    Args:
        path: the ``.edge`` file; its hashes must hold.
        spec: what the new manifest says of the network.

    Raises:
        InputError: the file is no bundle, or is not of this network.
        ManifestInvalid: what it holds does not fit the spec.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        plain = json.loads(members.pop(MANIFEST))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a bundle: {error}", remedy="name a bundle of the zoo") from error
    if plain["spec"]["name"] != spec.name:
        raise InputError(
            f"{path} is of {plain['spec']['name']}, not of {spec.name}", remedy="name a bundle of this model"
        )
    golden = from_plain(GoldenSpec, plain["golden"], "manifest.golden")
    files = {n.removeprefix("artifact/"): d for n, d in members.items() if n.startswith("artifact/")}
    calibration = plain["calibration"]
    return Bundle.create(
        producer=plain["producer"],
        spec=spec,
        recipe=from_plain(Recipe, plain["recipe"], "manifest.recipe"),
        target=plain["target"],
        artifact=Artifact(
            files=files,
            # Before inputs had names there was one.
            inputs=tuple(plain.get("inputs", [t.name for t in spec.inputs])),
            outputs=tuple(plain["outputs"]),
            fingerprint=plain["fingerprint"],
        ),
        calibration=None
        if calibration is None
        else from_plain(DataDigest, calibration, "manifest.calibration"),
        gate=from_plain(GateResult, plain["gate"], "manifest.gate"),
        golden=tuple(_case(members, spec, index) for index in range(golden.cases)),
        min_snr_db=golden.min_snr_db,
    )


def _case(members: Mapping[str, bytes], spec: ModelSpec, index: int) -> GoldenCase:
    frame, inputs, outputs = None, dict[str, Array](), dict[str, Array]()
    names = {t.name for t in spec.outputs}
    for member, data in members.items():
        found = _GOLDEN.fullmatch(member)
        if found is None or int(found["case"]) != index:
            continue
        array: Any = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if found["kind"] == "input.":
            inputs[found["name"]] = array
        elif found["name"] in names:
            outputs[found["name"]] = array
        else:
            frame = array
    return GoldenCase(outputs, frame, inputs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit codes are those of ``edge-sdk``."""
    parser = argparse.ArgumentParser(prog="edge_training.repack", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(zoo.NAMES), metavar="MODEL", help="default: all")
    args = parser.parse_args(argv)
    try:
        index = json.loads(zoo.INDEX.read_text())
        # All of them first: nothing is written unless everything can be.
        made = {
            row["file"]: repack(zoo.BUNDLES / row["file"], zoo.spec(row["model"]))
            for row in index["bundles"]
            if row["model"] in args.models
        }
        for row in index["bundles"]:
            if (bundle := made.get(row["file"])) is not None:
                bundle.write(zoo.BUNDLES / row["file"])
                row["sha256"] = bundle.sha256
                hashes = [
                    e.sha256[:12] for n, e in bundle.manifest.files.items() if n.startswith("artifact/")
                ]
                print(f"{row['file']}: artifact {' '.join(hashes)}, bundle {bundle.sha256[:12]}")
        write_atomically(zoo.INDEX, json.dumps(index, indent=2) + "\n")
    except EdgeError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
