#!/bin/bash
# Measures how long a changed line of `mm` takes to a verdict, warm: in the emulator and on the host,
# by part, in seconds of the wall clock and of processor time. Changes kernel/mm/src/vmemmap/fold.rs
# for as long as it runs; what was in the file is put back. The table is docs/results.md's.
set -euo pipefail

cd "$(dirname "$0")/.."
file=kernel/mm/src/vmemmap/fold.rs
kept=$(mktemp)
cp -p "$file" "$kept"
trap 'cp -p "$kept" "$file"; rm -f "$kept"' EXIT

# A new assertion in the body of `fold`, each time another one.
change() {
    cp -p "$kept" "$file"
    sed -i "/^    fn fold<M: Machine>(/,/^    }/ s/^    ) -> Result<.*{\$/&\n        debug_assert!(m.cpus() != $((90000 + RANDOM)));/" "$file"
    if cmp -s "$kept" "$file"; then
        echo "loop: $file has no function \`fold\` as this script knows it" >&2
        exit 1
    fi
}

TIMEFORMAT='%R %U %S'
timed() {
    local what=$1 wall user sys
    shift
    local said
    said=$(mktemp)
    if ! read -r wall user sys < <({ time "$@" >"$said" 2>&1; } 2>&1); then :; fi
    # The commands are quiet unless they fail.
    if grep -qE '^error|FAIL|panicked' "$said"; then
        cat "$said" >&2
        rm -f "$said"
        exit 1
    fi
    rm -f "$said"
    awk -v what="$what" -v wall="$wall" -v cpu="$(echo "$user $sys" | awk '{ print $1 + $2 }')" \
        'BEGIN { printf "%-58s %6.1f s  %6.1f s of processor time\n", what, wall, cpu }'
}

emulator=(cargo run --quiet -- test 'hvo*')
host=(cargo test --quiet -p testkit --test history)

# Warm: everything is built, and the files are in the page cache.
"${emulator[@]}" >/dev/null 2>&1
"${host[@]}" --no-run
change
timed "kernel and image, after a line in mm" cargo run --quiet -- image
timed "boot and \`cargo run -- test 'hvo*'\`" "${emulator[@]}"
change
timed "all of it in one: \`cargo run -- test 'hvo*'\`" "${emulator[@]}"
change
timed "one host test, compiled" "${host[@]}" --no-run
timed "one host test, run: \`cargo test -p testkit --test history\`" "${host[@]}"
