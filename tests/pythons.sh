#!/usr/bin/env bash
# The runtime's tests on every Python a board may have, with nothing but numpy, OpenCV and one engine installed.
# Uses pyenv's interpreters, or pythonX.Y from the PATH; a missing one is a failure, not a skip.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for version in ${PYTHONS:-3.10 3.12 3.13}; do
  python=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python 2>/dev/null | tail -n 1 || true)
  python=${python:-$(command -v "python$version" || true)}
  if [ -z "$python" ]; then
    echo "Python $version: not found; install it with pyenv"
    status=1
    continue
  fi
  echo "Python $version"
  "$python" -m venv "$work/$version"
  "$work/$version/bin/python" -m pip -q --disable-pip-version-check install '.[onnxruntime]' pytest hypothesis
  "$work/$version/bin/python" -m pytest -q tests/edge_sdk tests/security tests/test_thin.py tests/test_public_api.py || status=1
done
exit $status
