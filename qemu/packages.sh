# shellcheck shell=sh
# Makes and boots boards. Sourced by qemu/board and qemu/powercut, after toolchain.sh.
# The kernel and BusyBox are Debian's for armhf, fetched by `unpack_foreign`, so that
# the machine's own packages stay as they are.

# shellcheck disable=SC2154 # debian, target, target_dir are from toolchain.sh; work, patience from the caller

# Fetches kernel and BusyBox, once, into $1. Sets `kernel` (a file), `modules` (the
# folder of the modules), `busybox`, and `device_trees`.
fetch_board() {
    if [ ! -e "$1/complete" ]; then
        say "fetching a kernel and BusyBox for $debian"
        rm -rf "$1"
        unpack_foreign "$1" busybox-static linux-image-armmp
        # This package only depends on another one, whose name has a number in it.
        image=$(dpkg-deb -f "$1"/packages/linux-image-armmp_*.deb Depends | sed 's/[ ,(].*//')
        rm -f "$1"/packages/*.deb
        unpack_foreign "$1" "$image"
        rm -rf "$1/packages" "$1/cache" "$1/lists"
        : >"$1/complete"
    fi
    kernel=$(echo "$1"/root/boot/vmlinuz-*)
    modules=$(echo "$1"/root/lib/modules/*)
    # shellcheck disable=SC2034 # for qemu/board
    device_trees=$(echo "$1"/root/usr/lib/linux-image-*)
    busybox=$1/root/bin/busybox
    for part in "$kernel" "$modules" "$busybox"; do
        [ -e "$part" ] || die "$part is missing; remove $1 and try again"
    done
}

# Prints the names of the files of the modules that module $1 depends on, and then that
# of module $1, one on each line. The package comes without modules.dep.
module_files() {
    module_name=$(echo "$1" | sed 's/[-_]/[-_]/g')
    module_file=$(find "$modules" -name "$module_name.ko")
    if [ -z "$module_file" ]; then
        grep -q "/$module_name\\.ko\$" "$modules/modules.builtin" || die "this kernel has no module $1"
        return 0
    fi
    for needed_module in $(tr '\0' '\n' <"$module_file" | sed -n 's/^depends=//p' | tr ',' ' '); do
        module_files "$needed_module"
    done
    # $module_file cannot be used, because the calls in between have changed it.
    find "$modules" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko"
}

# Copies the modules after $1, and those that they depend on, to lib/modules in the
# folder $1, and lists them there in the order of loading.
install_modules() {
    module_root=$1/lib/modules
    shift
    mkdir -p "$module_root"
    for module; do module_files "$module"; done | awk '!seen[$0]++' | while read -r module; do
        cp "$module" "$module_root/"
        echo "${module##*/}"
    done >"$module_root/order"
}

# Begins a root file system in $1: BusyBox, with a link for each of its commands, the
# folders that the kernel and init expect, and zigsvc with its init script as
# Buildroot would install it.
make_root() {
    rm -rf "$1"
    for folder in bin sbin usr/bin usr/sbin etc/init.d etc/default dev proc sys run tmp data mnt root var/log; do
        mkdir -p "$1/$folder"
    done
    cp "$busybox" "$1/bin/busybox"
    cp "$target_dir/$target/release/zigsvc" "$1/usr/sbin/zigsvc"
    install -m 755 init.d/zigsvc "$1/etc/init.d/S50zigsvc"
    ln -s S50zigsvc "$1/etc/init.d/zigsvc"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
}

# Packs the folder $1 as an initramfs into the file $2.
pack_root() {
    need cpio cpio
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -9 >"$2"
}

# Makes an ext4 file system of $2 MiB in the file $1.
make_ext4() {
    mkfs=/usr/sbin/mkfs.ext4
    have mkfs.ext4 && mkfs=mkfs.ext4
    need "$mkfs" e2fsprogs
    rm -f "$1"
    "$mkfs" -q -F -O ^metadata_csum_seed -m 0 "$1" "${2}M"
}

# Makes $work/$1.initramfs for the test list $1, with the modules after $1.
make_board() {
    name=$1 tree=$work/$1.root
    shift
    make_root "$tree"
    cp qemu/guest/init "$tree/init"
    chmod 755 "$tree/init"
    cp qemu/guest/inittab "$tree/etc/"
    install -m 755 qemu/guest/rcS qemu/guest/rcK "$tree/etc/init.d/"
    cp -r qemu/guest "$tree/board"
    cp "qemu/guest/$name.conf" "$tree/etc/zigsvc.conf"
    install_modules "$tree" "$@"
    # The reset has to come within 5 s.
    sed -i 's/^imx2_wdt.ko/& timeout=5/' "$tree/lib/modules/order"
    initramfs=$work/$name.initramfs
    pack_root "$tree" "$initramfs"
}

# boot NAME COMMAND...: runs QEMU with its console in NAME.log until the board has
# printed three lines that begin with `BOARD: `. The first two describe the board; the
# third is the sum, or that it boots again. The run also ends when QEMU ends, or when
# it takes too long.
boot() {
    console=$work/$1.log
    began=$(date +%s)
    shift
    : >"$console"
    "$@" -display none -monitor none -nic none </dev/null >"$console" 2>&1 &
    emulator=$!
    trap 'kill -9 "$emulator" 2>/dev/null || :' EXIT
    while kill -0 "$emulator" 2>/dev/null && [ "$(grep -c '^BOARD: ' "$console")" -lt 3 ]; do
        sleep 0.5
        if [ $(($(date +%s) - began)) -gt "$patience" ]; then
            say "$console: nothing more after $patience s"
            break
        fi
    done
    sleep 0.5
    kill -9 "$emulator" 2>/dev/null || :
    wait "$emulator" 2>/dev/null || :
    trap - EXIT
    tr -d '\r' <"$console" >"$console.new"
    mv "$console.new" "$console"
    say "$console: $(($(date +%s) - began)) s"
}
