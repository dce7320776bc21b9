# shellcheck shell=sh
# The version, the date and the binary, for the scripts beside this file. They set
# `root`, the project's folder, stay in it, and source this file.

# shellcheck source=packaging/tap.sh disable=SC2154
. "$root/packaging/tap.sh"

# shellcheck disable=SC2034 # for those scripts
package=${CARGO_TARGET_DIR:-$root/target}/package
# shellcheck disable=SC2034
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

# shellcheck disable=SC2034
binary_dir=${CARGO_TARGET_DIR:-$root/target}/release

# Files in a package have the time of the last commit.
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# listed DIR: prints the files below DIR, sorted, with their modes.
listed() { (cd "$1" && find . ! -type d -printf '%m %P\n' | sort -k 2); }

# Builds the binary for architecture $1, or else this machine, and sets `binary`.
build() {
	if [ -z "$1" ]; then
		(cd "$root" && cargo build --release --locked --quiet) || die "cannot build"
		binary=$binary_dir/zigsvc
	else
		binary=$("$root/qemu/build" "$1" --locked | sed -n 's/: [0-9]* bytes$//p')
		[ -x "$binary" ] || die "cannot build for $1"
	fi
}
