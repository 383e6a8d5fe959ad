# Names only: what they do is in boot/ (see `cargo run -- --help`) and scripts/.
.PHONY: run test image bench soak usb check setup

run: setup
	@cargo run --quiet -- run $(ARGS)

# Packages for bare metal, and one that compiles the boot loader: cargo run builds them.
NOT_HERE = --exclude imager --exclude kernel --exclude preloader

# Kernels that are compiled once and run for long are compiled for speed (docs/adr/0022-loop.md).
test: export CARGO_PROFILE_KERNEL_CHECKED_INCREMENTAL = false
test: export CARGO_PROFILE_KERNEL_CHECKED_CODEGEN_UNITS = 16
test: export CARGO_PROFILE_KERNEL_CHECKED_LTO = false

# The QEMU matrix last: its totals end the log.
test: setup check
	cargo test --no-fail-fast --workspace $(NOT_HERE) --exclude tests
	cargo test -p tests --test compare
	cargo test -p tests --test qemu

image: setup
	@cargo run --quiet -- image $(ARGS)

bench: setup
	@cargo run --quiet -- bench $(ARGS)

soak: setup
	@cargo run --quiet -- soak $(ARGS)

usb: setup
	@cargo run --quiet -- usb $(DEV) $(ARGS)

check: setup
	@scripts/check.sh

setup:
	@scripts/setup.sh
