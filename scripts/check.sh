#!/bin/sh
# Formatting, lints on the host and on bare metal, documentation; all of it with
# warnings as errors.
set -eu

cd "$(dirname "$0")/.."
step() { echo "check: $*" >&2; "$@"; }

# Distributions' compilers bring no compiled `core` for the kernel's target; cargo
# needs to be told, and to be allowed (docs/adr/0001-toolchain.md).
export RUSTC_BOOTSTRAP=1
bare="--target x86_64-unknown-none --package kernel --package access --package mm --package ktest --package params --package qr --package shell --package suites --package lab --package lab-cases"
[ -d "$(rustc --print target-libdir --target x86_64-unknown-none)" ] ||
    bare="$bare -Zbuild-std=core,alloc -Zbuild-std-features=compiler-builtins-mem"
# No toolchain has to bring `core` for the preloader's (boot/src/artifact.rs).
efi="--target x86_64-unknown-uefi --package preloader -Zbuild-std=core -Zbuild-std-features=compiler-builtins-mem"

step cargo fmt --all --check
# The boot loader is compiled here and not under clippy, with its progress shown.
step cargo run --quiet -- image
step cargo clippy --quiet --all-targets --workspace --exclude kernel --exclude preloader -- -D warnings
# shellcheck disable=SC2086 # a list of options
step cargo clippy --quiet $bare -- -D warnings
# And without the experiments, which it must be able to go without.
# shellcheck disable=SC2086
step cargo clippy --quiet $bare --no-default-features -- -D warnings
# shellcheck disable=SC2086
step cargo clippy --quiet $efi -- -D warnings
export RUSTDOCFLAGS="-D warnings"
step cargo doc --quiet --no-deps
# shellcheck disable=SC2086
step cargo doc --quiet --no-deps $bare
# shellcheck disable=SC2086
step cargo doc --quiet --no-deps $efi
