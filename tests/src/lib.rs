//! Nothing: this package is its tests. `tests/qemu` boots the kernel in QEMU on
//! many machines; each in-kernel case is a line of `cargo test`.
