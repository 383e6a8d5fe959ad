#!/bin/sh
# Makes this machine able to build, run and test Tailfold: installs what is
# missing, says what and why, and does nothing when all is there.
#
# Two ways to a compiler (docs/adr/0001-toolchain.md): the release pinned in
# rust-toolchain.toml, if rustup is there and may download; else Debian's own
# packages rustc-web and friends. RUSTUP_AUTO_INSTALL=0 forbids rustup to download.
set -eu

cd "$(dirname "$0")/.."
root=$(pwd)
debian_rust="rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web rust-web-llvm"
linked=debian-web # what rustup calls the compiler in /usr

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The newest compiler that boot loader 0.11.15 builds with, and the oldest that
# the kernel does.
check_version() { # $1: "rustc 1.96.0 (...)"
    minor=$(echo "$1" | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ -n "$minor" ] || return 1
    [ "$minor" -lt 98 ] || die "this is $1, and the boot loader (0.11.15) needs a compiler older than 1.98: use the release pinned in rust-toolchain.toml through rustup (https://rustup.rs)."
    [ "$minor" -ge 95 ]
}

# Whether cargo and its compiler, as called in this checkout, have all that is
# needed. Never downloads. Why not is in $lacks.
toolchain_is_complete() {
    lacks="a Rust compiler"
    version=$(RUSTUP_AUTO_INSTALL=0 rustc --version 2>/dev/null) || return 1
    check_version "$version" || { lacks="a compiler of 1.95 to 1.97 (there is $version)"; return 1; }
    sysroot=$(RUSTUP_AUTO_INSTALL=0 rustc --print sysroot)
    lacks="the library's sources"
    [ -e "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ] || return 1
    tools=$sysroot/lib/rustlib/x86_64-unknown-linux-gnu/bin
    lacks="llvm-objcopy and llvm-objdump beside the compiler"
    [ -x "$tools/llvm-objcopy" ] && [ -x "$tools/llvm-objdump" ] || return 1
    lacks="rust-lld"
    [ -x "$tools/rust-lld" ] || { have rust-lld && rust-lld -flavor gnu --version >/dev/null 2>&1; } || return 1
    for tool in cargo cargo-clippy rustfmt; do
        lacks=$tool
        RUSTUP_AUTO_INSTALL=0 "$tool" --version >/dev/null 2>&1 || return 1
    done
    lacks=
}

# Prints those of the packages that are not installed.
missing() {
    for package; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "not root, and there is no sudo; as root: $*"
    fi
}

updated=
install() { # $1: why; the rest: packages
    why=$1
    shift
    # shellcheck disable=SC2046 # a list of names
    set -- $(missing "$@")
    [ $# -gt 0 ] || return 0
    say "installing $* ($why)"
    if [ -z "$updated" ]; then
        as_root apt-get -qq update
        updated=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" >/dev/null ||
        die "apt-get could not install $*; its messages are above."
}

# Emulators, firmware, lsblk, and a C compiler with its library to link with.
system_is_complete() {
    have qemu-system-x86_64 && have bochs && have Xvfb && have lsblk && have cc || return 1
    [ -e /usr/share/vgabios/vgabios.bin ] || return 1
    case $(cc -print-file-name=crt1.o) in /*) ;; *) return 1 ;; esac
    for code in /usr/share/OVMF/OVMF_CODE_4M.fd /usr/share/OVMF/OVMF_CODE.fd \
        /usr/share/edk2/ovmf/OVMF_CODE.fd /usr/share/edk2/x64/OVMF_CODE.4m.fd; do
        [ -e "$code" ] && return 0
    done
    return 1
}

is_debian() { [ -e /etc/debian_version ] && have apt-get; }

use_rustup() {
    have rustup && [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ] || return 1
    say "rustup installs the compiler pinned in rust-toolchain.toml, with library sources, llvm-tools and the bare-metal target"
    # Without a name: the one of rust-toolchain.toml.
    env -u RUSTUP_TOOLCHAIN rustup toolchain install && return 0
    say "rustup could not download"
    return 1
}

use_debian() {
    version=$(apt-cache show --no-all-versions rustc-web 2>/dev/null | sed -n 's/^Version: //p')
    if [ -z "$version" ]; then
        as_root apt-get -qq update
        updated=1
        version=$(apt-cache show --no-all-versions rustc-web 2>/dev/null | sed -n 's/^Version: //p')
    fi
    [ -n "$version" ] || die "this Debian has no package rustc-web: install rustup (https://rustup.rs) and run this again."
    check_version "rustc ${version%%+*}" || die "this Debian's rustc-web is $version, and 1.95 or newer is needed: install rustup (https://rustup.rs) and run this again."
    # shellcheck disable=SC2086 # a list of names
    install "Rust, because rustup is not there or may not download" $debian_rust
    # rust-web-llvm brings the link rust-lld, but not what it points to.
    llvm=$(readlink /usr/bin/rust-lld | sed -n 's/^.*lld-//p')
    [ -n "$llvm" ] || die "/usr/bin/rust-lld is no link to lld-NN: this rust-web-llvm is packaged in a way that is not known here."
    install "linker of the kernel, tools of the boot loader" "lld-$llvm" "llvm-$llvm"
    tools=/usr/lib/rustlib/x86_64-unknown-linux-gnu/bin
    for tool in llvm-objcopy llvm-objdump; do
        if [ ! -x "$tools/$tool" ]; then
            say "linking $tools/$tool (the boot loader's build looks for it there)"
            as_root ln -sf "/usr/bin/$tool-$llvm" "$tools/$tool"
        fi
    done
    if have rustup; then
        say "this checkout uses the compiler in /usr (rustup override, toolchain $linked)"
        rustup -q toolchain link "$linked" /usr
        rustup -q override set "$linked" --path "$root" 2>/dev/null
    elif [ "$(command -v cargo)" != /usr/bin/cargo ]; then
        die "$(command -v cargo) comes before /usr/bin/cargo in PATH and is not rustup's: take it out of PATH."
    fi
}

[ "$(uname -m)" = x86_64 ] && [ "$(uname -s)" = Linux ] ||
    die "this needs Linux on x86_64, QEMU for x86_64 with OVMF, a C compiler, and the Rust release of rust-toolchain.toml."

if toolchain_is_complete && system_is_complete; then
    exit 0
fi
is_debian || die "this installs on Debian only; install qemu-system-x86_64, OVMF (UEFI firmware for QEMU), Bochs with its X11 display and BIOS, vgabios, Xvfb, util-linux, a C compiler and rustup (https://rustup.rs), and run this again."

system_is_complete || install "two emulators, their firmware, a screen for Bochs, lsblk, linker of host programs" \
    qemu-system-x86 ovmf bochs bochs-x bochsbios vgabios xvfb util-linux gcc libc6-dev
toolchain_is_complete || use_rustup || use_debian
toolchain_is_complete || die "$lacks is still missing after the installation; the messages above tell more."
say "all is there: $(rustc --version)"
