#!/usr/bin/env bash
# Our C, the benches' too, under the strictest warnings and gcc's analyzer, each a failure.
# It builds nothing that is kept; what cffi generates is not judged.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
flags=(-std=c11 -O2 -Wall -Wextra -Wconversion -Wshadow -Werror -fanalyzer)
for file in ./*.c ../bench/*.c; do
  "${CC:-gcc}" "${flags[@]}" -c "$file" -o "$scratch/$(basename "$file").o"
done
