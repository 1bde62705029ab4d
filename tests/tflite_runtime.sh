#!/usr/bin/env bash
# The older TFLite engine in an environment of its own: tflite-runtime is built for numpy 1, which no other engine here wants.
# Needs Python 3.10 or 3.11, for which it has wheels; says so and passes elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))'; then
  echo "skipped: $("$python" --version) has no wheel of tflite-runtime"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip -q --disable-pip-version-check install '.[tflite-runtime]' pytest hypothesis
cp -r tests pyproject.toml "$work" # away from the checkout: what is installed is tested
cd "$work"
"$work/venv/bin/python" -c 'import importlib.util, numpy; assert numpy.__version__ < "2" and not importlib.util.find_spec("ai_edge_litert")'
"$work/venv/bin/edge-sdk" doctor
for bundle in "$(venv/bin/python -c 'from edge_sdk import zoo; print(zoo.BUNDLES)')"/*.tflite-*.edge; do
  "$work/venv/bin/edge-sdk" verify "$bundle"
done
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider -o pythonpath=tests tests/edge_sdk/test_model.py tests/edge_targets/test_contract.py tests/edge_targets/test_tflite.py
