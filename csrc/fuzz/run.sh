#!/usr/bin/env bash
# libFuzzer on every target in turn: csrc/fuzz/run.sh [SECONDS each, default 10] [TARGET ...]
# It never writes to the committed corpora: a finding stays in build/fuzz with its name printed.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
seconds=${1:-10}
shift || true  # no argument is fine
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(segment quote frame filter flows)
command -v clang >/dev/null || { echo "fuzz: needs clang; on Debian: apt install clang" >&2; exit 1; }

out=build/fuzz
mkdir -p "$out"
pure=(csrc/checksum.c csrc/options.c csrc/segment.c csrc/frame.c csrc/filter.c csrc/flows.c csrc/sieve.c csrc/siphash.c)
for target in "${targets[@]}"; do
  clang -std=c11 -g -O1 -Wall -Wextra -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -o "$out/fuzz_$target" "csrc/fuzz/fuzz_$target.c" "${pure[@]}"
  rm -rf "$out/new_$target"
  mkdir "$out/new_$target"
  echo "fuzz: $target for $seconds s"
  "$out/fuzz_$target" -max_total_time="$seconds" -max_len=512 -print_final_stats=0 -verbosity=0 \
    -artifact_prefix="$out/$target-" "$out/new_$target" "csrc/fuzz/corpus/$target"
  echo "fuzz: $target holds, $(find "$out/new_$target" -type f | wc -l) new inputs of interest"
done
