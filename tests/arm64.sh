#!/usr/bin/env bash
# The runtime on a Raspberry Pi's userland: Debian 12 for arm64 under qemu, with the real aarch64 wheels.
#
#   tests/arm64.sh [WORK]          # WORK keeps the root and the wheelhouses for the next run (default: a cache folder)
#
# Every engine is installed from a wheelhouse that `edge-sdk wheelhouse` collected: offline, by hash. Then the runtime's tests
# run, and every zoo bundle's golden vectors are compared. What is emulated is right or wrong; how fast it is means nothing.
#
# Needs root, qemu-user-static and mmdebstrap; says so and passes where they are missing (exit code 0; 77 with STRICT=1).
# Takes packages from where this machine's apt and pip take theirs. PYTHON: an interpreter with face-edge-sdk and pip.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
PYTHON=${PYTHON:-python3}
WORK=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/face-edge-sdk/arm64}")
PROFILE=raspberry-pi-5
VERSION=3.11 # Debian 12's
LIMIT_S=600  # of one command in the root
START=$(date +%s)

skip() {
  echo "skipped: $1"
  [ -z "${STRICT:-}" ] || exit 77
  exit 0
}
step() { echo "[$(($(date +%s) - START)) s] $*"; }

[ "$(id -u)" = 0 ] || skip "not root, which making and entering another root takes"
for tool in mmdebstrap qemu-aarch64-static; do
  command -v $tool >/dev/null || skip "$tool is not installed: apt install mmdebstrap qemu-user-static"
done
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/status ] || mount -t binfmt_misc binfmt_misc $binfmt 2>/dev/null || skip "no binfmt_misc in this kernel"
[ -e $binfmt/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register 2>/dev/null ||
  skip "this kernel does not let us register qemu"

mkdir -p "$WORK"
root=$WORK/root
if [ ! -e "$root/done" ]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
    awk '$2 == "bookworm" { print $1; exit }')
  rm -rf "$root"
  # Only extracted: no package's scripts run under emulation.
  mmdebstrap --quiet --architectures=arm64 --variant=extract --mode=root \
    --include=python3,dash,ca-certificates,libstdc++6,libgomp1 --aptopt='Acquire::Check-Valid-Until "false"' \
    bookworm "$root" "deb ${mirror:-http://deb.debian.org/debian} bookworm main"
  touch "$root/done"
fi
step "Debian 12 for arm64, $(du -sh "$root" | cut -f1)"

# What the kernel of a board says of its processor: the engines choose their kernels by it, and the machine's own would
# lead them astray. A Raspberry Pi 4 (Cortex-A72) has no int8 dot product, a Raspberry Pi 5 (Cortex-A76) has.
processor() { # NAME FEATURES PART VARIANT REVISION MIDR
  local folder=$root/processors/$1
  rm -rf "$folder"
  mkdir -p "$folder"
  for core in 0 1; do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: %s\nCPU implementer\t: 0x41\n' $core "$2"
    printf 'CPU architecture: 8\nCPU variant\t: %s\nCPU part\t: %s\nCPU revision\t: %s\n\n' "$4" "$3" "$5"
  done >"$folder/cpuinfo"
  cp -r /sys/devices/system/cpu "$folder/cpu" 2>/dev/null || true # not every file can be read
  for core in "$folder"/cpu/cpu[0-9]*; do
    mkdir -p "$core/regs/identification"
    echo "$6" >"$core/regs/identification/midr_el1"
  done
}
processor cortex-a72 "fp asimd evtstrm crc32 cpuid" 0xd08 0x0 3 0x00000000410fd083
processor cortex-a76 "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" \
  0xd0b 0x4 1 0x00000000414fd0b1

# inside PROCESSOR ENGINE COMMAND...: in the root, with an engine's packages, without a network.
inside() {
  local processor=$1 engine=$2
  shift 2
  # shellcheck disable=SC2016  # expanded inside
  unshare --mount --net --propagation private bash -euc '
    root=$1 repository=$2 processor=$3 engine=$4 limit=$5; shift 5
    mkdir -p $root/{proc,sys,dev,tmp,repository}
    mount -t proc proc $root/proc
    mount --bind $root/processors/$processor/cpuinfo $root/proc/cpuinfo
    mount --rbind -o ro /sys $root/sys # OpenVINO looks there
    mount --bind $root/processors/$processor/cpu $root/sys/devices/system/cpu
    mount --bind /dev $root/dev
    mount --bind -o ro $repository $root/repository
    exec timeout $limit env -i QEMU_CPU=$processor HOME=/tmp LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/bin EDGE_SDK_ENGINE_CACHE=off \
      PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/engines/$engine:/engines/tests chroot $root "$@"
  ' inside "$root" "$ROOT" "$processor" "$engine" "$LIMIT_S" "$@"
}

# pip for another machine; it also complains that the packages there do not fit those here, which is shown if it fails.
pip_quietly() {
  "$PYTHON" -m pip --disable-pip-version-check -q install --root-user-action=ignore --no-compile "$@" 2>"$WORK/pip.log" || {
    cat "$WORK/pip.log"
    return 1
  }
}

# Anew if the wheelhouse is another one: its requirements name every byte.
install() {
  local engine=$1 house=$WORK/wheels/$1 into=$root/engines/$1
  if [ ! -e "$house" ]; then
    mkdir -p "$WORK/wheels"
    "$PYTHON" -m edge_sdk wheelhouse --profile $PROFILE --extra "$engine" --python $VERSION -o "$house" >/dev/null
  elif [ -z "${OFFLINE:-}" ]; then
    rm -rf "$house"
    install "$engine"
    return
  fi
  cmp -s "$house/requirements-$VERSION.txt" "$into/requirements.txt" && return
  rm -rf "$into"
  # shellcheck disable=SC2046  # options
  pip_quietly --no-index --target "$into" \
    $("$PYTHON" -c "
from edge_sdk.profile import read_profile
from edge_targets.wheelhouse import platform_arguments
print(*platform_arguments(read_profile('$PROFILE'), '$VERSION'))") \
    --find-links "$house" --require-hashes -r "$house/requirements-$VERSION.txt"
  cp "$house/requirements-$VERSION.txt" "$into/requirements.txt"
}

if [ ! -e "$root/engines/tests/pytest" ]; then # pure Python; ours, not the device's
  pip_quietly --only-binary=:all: --platform any --implementation py --abi none --python-version $VERSION \
    --target "$root/engines/tests" pytest hypothesis
fi

failed=0
verify() { # PROCESSOR ENGINE: every zoo bundle of the engine, by its golden vectors
  local bundle
  for bundle in edge_sdk/zoo/bundles/*."${2%-runtime}"-*.edge; do
    # A process within the process would double the start, which takes seconds here.
    if inside "$1" "$2" python3 -m edge_sdk verify --no-isolation "/repository/$bundle"; then
      step "$2 on $1: $(basename "$bundle")"
    else
      step "FAILED: $2 on $1: $bundle"
      failed=1
    fi
  done
}
for engine in tflite tflite-runtime onnxruntime openvino; do
  install $engine
  step "$engine installed offline by hash: $(grep -c sha256 "$root/engines/$engine/requirements.txt") wheels"
  verify cortex-a76 $engine
done
# OpenVINO cannot compile an int8 network for a processor without the dot product ("object is not initialized").
for engine in tflite tflite-runtime onnxruntime; do
  verify cortex-a72 $engine
done

# Without those that count seconds or start many processes, which take minutes here.
slow="start_at_once or leaves_early or bench_measures or survives_its_bytes or way_back or fits_on_the_canvas"
slow="$slow or test_isolation or twenty_processes or that_hangs or no_words_reach or importing_any_module or very_large_crop"
if inside cortex-a76 tflite python3 -m pytest -q -p no:cacheprovider -c /repository/pyproject.toml --rootdir /repository \
  --hypothesis-profile=ci -k "not ($slow)" /repository/tests/edge_sdk /repository/tests/test_public_api.py; then
  step "the runtime's tests"
else
  step "FAILED: the runtime's tests"
  failed=1
fi
exit $failed
