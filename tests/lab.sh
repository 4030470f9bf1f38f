#!/bin/bash
# The lab's test files, so many at a time: most of their time they wait for something to happen. Each file's tests run one
# after the other in namespaces of their own; what a file printed comes when it has ended. Says at the end what has failed,
# and fails if anything did, or if a file in tests/tests was not run.
#
#   tests/lab.sh LANES
#
# The programs under test are those in $ILB_BIN_DIR, or in target/release without it.
set -euo pipefail
cd "$(dirname "$0")"

lanes=${1:?how many files at a time}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

files=(tests/*.rs)
chosen=()
for file in "${files[@]}"; do
    chosen+=(--test "$(basename "$file" .rs)")
done
# Another crate may have a file of the same name.
cargo test --locked --workspace "${chosen[@]}" --no-run --message-format=json-render-diagnostics >"$work/messages"
jq -r --arg folder "$PWD/tests/" 'select(.executable and .profile.test and (.target.src_path | startswith($folder)))
    | "\(.target.name) \(.executable)"' "$work/messages" >"$work/built"
if [ "$(wc -l <"$work/built")" != "${#files[@]}" ]; then
    echo "tests/lab.sh: ${#files[@]} files in tests/tests, but cargo has built these:" >&2
    cat "$work/built" >&2
    exit 1
fi

# Longest first, so that none of these begins when the others have ended.
for name in disturbance package vrrp units flood takeover sickness checkers weights addresses services; do
    if ! grep "^$name " "$work/built"; then
        echo "tests/lab.sh: there is no test file $name any more" >&2
        exit 1
    fi
done >"$work/longest"
grep -vFxf "$work/longest" "$work/built" >"$work/others"

one() { # directory name executable
    local began=$SECONDS state=ok
    "$3" --test-threads=1 >"$1/$2.log" 2>&1 || state=FAILED
    echo "$state $2" >>"$1/ended"
    (
        flock 9
        printf '\n==== %s: %s, %s s\n' "$2" "$state" $((SECONDS - began))
        cat "$1/$2.log"
    ) 9>"$1/turn"
}
export -f one
cat "$work/longest" "$work/others" | xargs -P "$lanes" -L 1 bash -c 'one "$@"' bash "$work"

echo
echo "lab: $(wc -l <"$work/ended") of $(wc -l <"$work/built") in $SECONDS s, $lanes at a time"
if grep '^FAILED' "$work/ended" >&2 || [ "$(wc -l <"$work/ended")" != "$(wc -l <"$work/built")" ]; then
    exit 1
fi
