#!/usr/bin/env bash
# The native tests under AddressSanitizer and UBSan: csrc/asan.sh PYTHON [pytest arguments]
# It builds into build/asan and leaves the extension beside the package alone.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
python=${1:?usage: csrc/asan.sh PYTHON [pytest arguments]}
shift
stage=$PWD/build/asan
rm -rf "$stage"
mkdir -p "$stage"
# a copy of the sources, so that the sanitized extension shadows no other one
cp -r build_ext.py pyproject.toml csrc punchd tests "$stage/"
find "$stage" -name '*.so' -delete
(cd "$stage" && PUNCHD_SANITIZE=${PUNCHD_SANITIZE:-address,undefined} "$python" build_ext.py >build.log 2>&1) ||
  { cat "$stage/build.log" >&2; exit 1; }
# without PYTHONMALLOC=malloc an overrun of a bytes object stays inside Python's own arena, unseen
# capture=sys: pytest would swallow the report of a sanitizer, which dies at once
cd "$stage"
exec env LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH="$stage" \
  "$python" -m pytest -p no:cacheprovider --capture=sys tests/edge/test_native.py "$@"
