#!/bin/sh
# Puts the QEMU of another Debian into a directory of its own, beside the one that is
# installed, and a program that starts it:
#
#     scripts/newer-qemu.sh DIRECTORY [SUITE]      # SUITE: trixie if not given, Debian 13 with QEMU 10
#     cargo run -- test --qemu DIRECTORY/qemu      # or TAILFOLD_QEMU=DIRECTORY/qemu, for every command
#
# Needs debootstrap and root, and half a gigabyte. Nothing is installed on the host and nothing
# stays mounted: to be rid of it, remove the directory.
set -eu

die() { echo "newer-qemu: $*" >&2; exit 1; }

[ $# = 1 ] || [ $# = 2 ] || die "give a directory that does not exist yet, and perhaps the name of a Debian (trixie)"
suite=${2:-trixie}
[ ! -e "$1" ] || die "$1 is there already: remove it, or name another directory"
command -v debootstrap >/dev/null || die "there is no debootstrap; as root: apt-get install debootstrap"
[ "$(id -u)" = 0 ] || die "not root, which debootstrap needs; as root: $0 $*"

mkdir -p "$1"
directory=$(cd "$1" && pwd)
root=$directory/root
echo "newer-qemu: Debian $suite goes into $root; messages in $directory/debootstrap.log"
debootstrap --variant=minbase --include=qemu-system-x86 "$suite" "$root" >"$directory/debootstrap.log" 2>&1 ||
    die "debootstrap failed; the end of $directory/debootstrap.log: $(tail -n 3 "$directory/debootstrap.log")"

# Not by chroot: images, sockets and pictures lie outside, and whoever runs it need not be root.
# The loader and libraries are those of the same Debian, since the host's C library may be older.
cat >"$directory/qemu" <<'EOF'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --argv0 qemu-system-x86_64 \
    "$root/usr/bin/qemu-system-x86_64" \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
EOF
chmod +x "$directory/qemu"
version=$("$directory/qemu" --version | head -n 1)
case $version in
"QEMU emulator version "*) echo "newer-qemu: $directory/qemu is $version" ;;
*) die "$directory/qemu does not start" ;;
esac
