# shellcheck shell=sh
# Finds or makes a Rust toolchain for another architecture. Sourced by qemu/test and
# qemu/build.
#
# If rustup (or a distribution) installed the target, that toolchain is used.
# Otherwise a toolchain is made from Debian 12 packages: the compiler of `rustc-web`,
# the standard library built once from `rust-web-src`, and the C library of the
# architecture's `musl-dev`. The result is an ordinary sysroot with a `rustc` that
# uses it, in target/qemu. `cargo -Zbuild-std` cannot build the standard library with
# the tests, because with `panic = "abort"` in the profile it builds two of each crate,
# and rustc refuses to mix them.
#
# The machine is not changed, except that the packages that the host needs are
# installed for root. For another user their names are printed.

say() { printf '%s\n' "${0##*/}: $*" >&2; }
die() {
    say "$@"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

architectures='armv7, armv6, armv5te, aarch64, x86_64, i686 or riscv64'

# Sets the names of architecture $1 in Rust, QEMU, Debian and GNU (with glibc and with
# musl).
name_architecture() {
    case $1 in
        armv7) names='armv7-unknown-linux-musleabihf qemu-arm armhf arm-linux-gnueabihf arm-linux-musleabihf' ;;
        armv6) names='arm-unknown-linux-musleabi qemu-arm armel arm-linux-gnueabi arm-linux-musleabi' ;;
        armv5te) names='armv5te-unknown-linux-musleabi qemu-arm armel arm-linux-gnueabi arm-linux-musleabi' ;;
        aarch64) names='aarch64-unknown-linux-musl qemu-aarch64 arm64 aarch64-linux-gnu aarch64-linux-musl' ;;
        x86_64) names='x86_64-unknown-linux-musl qemu-x86_64 amd64 x86_64-linux-gnu x86_64-linux-musl' ;;
        i686) names='i686-unknown-linux-musl qemu-i386 i386 i686-linux-gnu i386-linux-musl' ;;
        riscv64) names='riscv64gc-unknown-linux-musl qemu-riscv64 riscv64 riscv64-linux-gnu riscv64-linux-musl' ;;
        *) die "unknown architecture '$1': $architectures" ;;
    esac
    # shellcheck disable=SC2086 # one word each
    set -- $names
    # shellcheck disable=SC2034 # qemu is for qemu/test
    target=$1 qemu=$2 debian=$3 gnu=$4 musl=$5
}

# Makes sure that program or file $1 exists. Otherwise installs the packages after $1.
need() {
    needed=$1
    shift
    if have "$needed" || [ -e "$needed" ]; then return; fi
    have apt-get || die "$needed is missing (on Debian 12 it is in: $*)"
    [ "$(id -u)" -eq 0 ] || die "$needed is missing; as root: apt-get install --no-install-recommends $*"
    say "installing $*"
    # A failed update is ignored, because another source may have the packages.
    apt-get -qq update >&2 || :
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2 ||
        die "could not install $*"
}

# Succeeds if the compiler $1 has the standard library of the target.
has_std() {
    for library in "$("$1" --print target-libdir --target "$target" 2>/dev/null)"/libstd-*.rlib; do
        [ ! -e "$library" ] || return 0
    done
    return 1
}

# Unpacks packages of the architecture below $1, with lists and a cache of their own.
# `dpkg --add-architecture` would change those of the machine, and needs root.
unpack_foreign() {
    state=$1
    shift
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages"
    cat >"$state/apt.conf" <<EOF
APT::Architecture "$debian";
APT::Architectures { "$debian"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State::Lists "$state/lists";
Dir::Cache "$state/cache";
EOF
    # Debian 12 has no riscv64. The packages of Debian 13 serve as well, because the C library
    # is linked into the test programs. They come from the archives that the machine uses.
    if [ "$debian" = riscv64 ]; then
        mkdir -p "$state/sources.d"
        for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
            grep -qw bookworm "$list" 2>/dev/null || continue
            sed 's/bookworm/trixie/g' "$list" >"$state/sources.d/${list##*/}"
        done
        cat >>"$state/apt.conf" <<EOF
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$state/sources.d";
EOF
    fi
    export APT_CONFIG="$state/apt.conf"
    apt-get -qq update >"$state/log" 2>&1 || :
    if ! (cd "$state/packages" && apt-get -qq download "$@") >>"$state/log" 2>&1; then
        cat "$state/log" >&2
        die "could not download $* for $debian"
    fi
    unset APT_CONFIG
    for package in "$state/packages"/*.deb; do
        dpkg-deb -x "$package" "$state/root"
    done
}

# Builds the standard library for the target into the sysroot $1. $2 is the folder of
# its sources, $3 a folder to work in. The sources include their dependencies, so
# nothing is downloaded.
build_std() {
    mkdir -p "$3"
    cat >"$3/Cargo.toml" <<EOF
[package]
name = "carrier"
edition = "2024"

[lib]
path = "lib.rs"

# As in the standard library's own workspace: a file for each function, so that
# a program links only what it calls.
[profile.release.package.compiler_builtins]
codegen-units = 10000
debug-assertions = false
overflow-checks = false

# This package does not belong to the workspace of a folder above.
[workspace]
EOF
    echo '#![no_std]' >"$3/lib.rs"
    # Bitcode is needed, because the release profile has link-time optimisation.
    (cd "$3" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR=out \
        cargo -q build --release --offline --target "$target" -Zbuild-std=std,panic_unwind,panic_abort,test \
        --config 'source.crates-io.replace-with="vendored"' \
        --config "source.vendored.directory='$2/vendor'" >&2) || die "could not build the standard library"
    rm "$3/out/$target"/release/deps/libcarrier-*
    cp "$3/out/$target"/release/deps/*.rlib "$1/lib/rustlib/$target/lib/"
}

# Puts the C library's part of the target into $1, from the packages unpacked in $2.
copy_libc() {
    mkdir -p "$1"
    cp "$2/usr/lib/$musl"/*.[ao] "$2/usr/lib/gcc/$gnu"/*/crt[be]*.o "$1/"
    unwind=-lllvmunwind
    if ! cp "$2"/usr/lib/llvm-*/lib/libunwind.a "$1/libllvmunwind.a" 2>/dev/null; then
        unwind='-lgcc_eh -lgcc'
        cp "$2/usr/lib/gcc/$gnu"/*/libgcc.a "$2/usr/lib/gcc/$gnu"/*/libgcc_eh.a "$1/"
    fi
    # libunwind was compiled for glibc with checks. They concern only its last message
    # before abort. A linker accepts this text as a library.
    echo "INPUT($unwind) __fprintf_chk = abort;" >"$1/libunwind.a"
}

# Makes the toolchain in $1, unless it exists and was made from the same compiler by the
# same recipe.
make_toolchain() {
    need /usr/bin/rustc rustc-web
    sources=/usr/lib/rustlib/src/rust/library
    need "$sources/Cargo.lock" rust-web-src
    need cargo cargo-web
    version=$(/usr/bin/rustc -vV)
    host=$(printf '%s\n' "$version" | sed -n 's/^host: //p')
    made_from="$version $(cksum <"${root:?}/qemu/toolchain.sh")"
    if [ "$(cat "$1/made-from" 2>/dev/null)" = "$made_from" ]; then return; fi

    say "making a toolchain for $target, once (two minutes or so)"
    # Cargo would not notice that its output was compiled for another toolchain.
    rm -rf "$1" "${target_dir:?}/${target:?}"
    mkdir -p "$1/bin" "$1/lib/rustlib/$host/bin" "$1/lib/rustlib/$target/lib"
    ln -s "/usr/lib/rustlib/$host/lib" "$1/lib/rustlib/$host/lib"
    lld=$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld
    if [ ! -x "$lld" ]; then
        # rustc-web has a link to its linker, which is in another package.
        lld=/usr/bin/rust-lld
        need "$lld" "$(readlink "$lld")"
    fi
    ln -s "$lld" "$1/lib/rustlib/$host/bin/rust-lld"

    case $debian in
        riscv64) versions='libgcc-14-dev libunwind-19-dev' ;;
        # This has no libunwind, and uses that of GCC.
        armel) versions='libgcc-12-dev' ;;
        *) versions='libgcc-12-dev libunwind-14-dev' ;;
    esac
    # shellcheck disable=SC2086 # one or two names
    unpack_foreign "$1/foreign" musl-dev $versions
    copy_libc "$1/lib/rustlib/$target/lib/self-contained" "$1/foreign/root"
    build_std "$1" "$sources" "$1/std"
    rm -rf "$1/foreign" "$1/std"
    cat >"$1/bin/rustc" <<'EOF'
#!/bin/sh
exec /usr/bin/rustc --sysroot "$(dirname "$0")/.." "$@"
EOF
    chmod +x "$1/bin/rustc"
    printf '%s\n' "$made_from" >"$1/made-from"
}

# Finds or makes the toolchain for architecture $1. Sets the names of
# `name_architecture`, and `target_dir`, Cargo's folder. Exports RUSTC if it made one.
# Needs `root`, the project's folder, as the current folder.
toolchain() {
    name_architecture "$1"
    target_dir=${CARGO_TARGET_DIR:-$root/target}
    mkdir -p "$target_dir/qemu/$1"
    target_dir=$(cd "$target_dir" && pwd)
    if have rustc && has_std rustc; then
        say "$(rustc -V), with $target installed"
    else
        made=$target_dir/qemu/$1/toolchain
        make_toolchain "$made"
        export RUSTC="$made/bin/rustc"
        say "$("$RUSTC" -V), with $target of our own"
    fi
}
