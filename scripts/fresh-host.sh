#!/bin/sh
# Tries README's commands on a Debian that has nothing but git: makes such a root with debootstrap,
# clones what is committed here into it, and runs there, word for word, the commands of README's
# "Quick start".
#
#     scripts/fresh-host.sh SUITE [run|test|both] [DIRECTORY]
#
# SUITE: bookworm (Debian 12), trixie (Debian 13). `run` if not given: `make run`, which ends at
# the kernel's verdict. `test`: `make test`. DIRECTORY: where the root goes (target/fresh-SUITE if not
# given); it must not exist yet, and stays for a look. Logs are in it.
#
# Needs debootstrap, util-linux and root. What is mounted and started ends with this script.
set -eu

cd "$(dirname "$0")/.."
die() { echo "fresh-host: $*" >&2; exit 1; }
say() { echo "fresh-host: $*"; }

case ${1:-} in
bookworm | trixie) suite=$1 ;;
*) die "name a Debian: bookworm or trixie" ;;
esac
case ${2:-run} in
run | test) commands=${2:-run} ;;
both) commands="run test" ;;
*) die "what shall run is run, test or both, not $2" ;;
esac
directory=${3:-target/fresh-$suite}
[ ! -e "$directory" ] || die "$directory is there already: remove it, or name another directory"
for tool in debootstrap unshare git; do
    command -v "$tool" >/dev/null || die "there is no $tool; as root: apt-get install debootstrap util-linux git"
done
[ "$(id -u)" = 0 ] || die "not root, which debootstrap needs; as root: $0 $*"
# What README tells such a machine to do first; the line is taken from there, so that it is what is tried.
first=$(sed -n 's/^    \(apt-get install .*make\)\( *#.*\)*$/\1/p' README.md)
[ -n "$first" ] || die "README.md has no line '    apt-get install ... make' before its two commands"

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
root=$directory/root
say "Debian $suite goes into $root"
debootstrap --variant=minbase --include=git,ca-certificates "$suite" "$root" >"$directory/debootstrap.log" 2>&1 ||
    die "debootstrap failed; the end of $directory/debootstrap.log: $(tail -n 3 "$directory/debootstrap.log")"
# What the installer writes; debootstrap leaves out updates.
mirror=$(sed -n 's/^deb \([^ ]*\) .*/\1/p' "$root/etc/apt/sources.list" | head -n 1)
printf 'deb %s %s main\n' "$mirror" "$suite" "$mirror" "$suite-updates" \
    "${mirror%/debian*}/debian-security" "$suite-security" >"$root/etc/apt/sources.list"
# A host behind a proxy that signs for others has that proxy's certificate.
for certificate in /usr/local/share/ca-certificates/*.crt; do
    [ -e "$certificate" ] && cp "$certificate" "$root/usr/local/share/ca-certificates/"
done
git bundle create --quiet "$root/root/tailfold.bundle" HEAD

# Runs a command in the clone, with an environment, mounts and process ids of its own.
inside() {
    # shellcheck disable=SC2016 # $0 and $1 are the inner shell's
    unshare --mount --pid --fork --kill-child sh -c '
        mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && mount --rbind /dev "$0/dev" &&
            exec chroot "$0" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
                PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                sh -c "cd /root && if [ -d tailfold ]; then cd tailfold; fi && $1"' "$root" "$1"
}

inside "update-ca-certificates >/dev/null 2>&1 && git -c advice.detachedHead=false clone -q tailfold.bundle tailfold && apt-get -qq update" ||
    die "the clone could not be made"
inside "test ! -e /usr/bin/make" || die "the root has make already, so this would show nothing"
say "$first"
inside "DEBIAN_FRONTEND=noninteractive $first -y" >"$directory/first.log" 2>&1 ||
    die "'$first' failed: see $directory/first.log"

failed=
for command in $commands; do
    log=$directory/$command.log
    say "make $command; its words are in $log"
    started=$(date +%s)
    status=0
    # Nobody is at a terminal, so `make run` ends at the kernel's verdict.
    inside "make $command" </dev/null >"$log" 2>&1 || status=$?
    took=$(($(date +%s) - started))
    grep -E '^(setup:|Self-tests:|Tailfold: |test result:)|(rustc|QEMU emulator) ' "$log" || true
    if [ $status = 0 ] && { [ $command = test ] || grep -q '^Tailfold: PASS' "$log"; }; then
        say "Debian $suite: make $command passed, $took s"
    else
        say "Debian $suite: make $command FAILED with status $status, $took s; the end of $log:"
        tail -n 5 "$log"
        failed=1
    fi
done
[ -z "$failed" ]
