#!/bin/sh
# Installs zigsvc from this folder, with the file for the init system that it
# finds, and prints each file. It starts nothing. It runs in BusyBox's shell.
#
#   ./install.sh [--init NAME]      NAME: openrc, systemd, procd, buildroot, sysv, none
#   ./install.sh --uninstall        stops the services and removes all but data
#
# DESTDIR=DIR installs below DIR, for an image; PREFIX=DIR puts the program into
# DIR/sbin instead of /usr/sbin. An edited configuration is never touched: a
# sample that differs is put beside it as .new. Documents are installed only where
# the system has a folder for them, such as PREFIX/share/doc or PREFIX/share/man.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
dest=${DESTDIR-}
prefix=${PREFIX:-/usr}
program=$prefix/sbin/zigsvc
services="supervisor jobs hub opener collector"

die() {
	echo "install.sh: $*" >&2
	exit 1
}

usage() {
	echo "Usage: [DESTDIR=DIR] [PREFIX=DIR] $0 [--init NAME | --uninstall]"
	echo "NAME is openrc, systemd, procd, buildroot, sysv or none; without it install.sh looks for one."
	echo "DESTDIR=DIR installs below DIR; PREFIX=DIR puts the program into DIR/sbin. Nothing is started."
}

misuse() {
	usage >&2
	exit 2
}

# detect: prints the init system of the tree that is installed into. Of several it
# is the one that runs, or else the one that can only be there on purpose.
detect() {
	if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
		echo systemd
	elif [ -e "$dest/sbin/procd" ] || [ -e "$dest/etc/rc.common" ]; then
		echo procd
	elif [ -x "$dest/sbin/openrc-run" ] || [ -x "$dest/usr/sbin/openrc-run" ]; then
		echo openrc
	elif [ -x "$dest/lib/systemd/systemd" ] || [ -x "$dest/usr/lib/systemd/systemd" ]; then
		echo systemd
	elif [ -e "$dest/etc/init.d/rcS" ] && ! [ -d "$dest/etc/rc2.d" ]; then
		echo buildroot
	elif [ -d "$dest/etc/init.d" ]; then
		echo sysv
	else
		echo none
	fi
}

# put MODE FILE PATH: installs FILE as PATH, whole or not at all. Where FILE names
# /usr/sbin/zigsvc, PATH names the installed program.
put() {
	mkdir -p "$dest${3%/*}"
	case $2 in
	init.d/*) sed "s|/usr/sbin/zigsvc|$program|g" "$here/$2" >"$dest$3.tmp" ;;
	*) cp "$here/$2" "$dest$3.tmp" ;;
	esac
	chmod "$1" "$dest$3.tmp"
	mv "$dest$3.tmp" "$dest$3"
	echo "installed $dest$3"
}

# put_config FILE PATH: installs FILE as PATH if there is none.
put_config() {
	sample=$dest$2.sample
	put 644 "$1" "$2.sample" >/dev/null
	if ! [ -e "$dest$2" ]; then
		mv "$sample" "$dest$2"
		echo "installed $dest$2"
	elif cmp -s "$sample" "$dest$2"; then
		rm -f "$sample"
		echo "kept      $dest$2 (not edited)"
	else
		mv "$sample" "$dest$2.new"
		echo "kept      $dest$2 (edited); the sample is $dest$2.new"
	fi
}

# drop PATH...: removes each of these that exists.
drop() {
	for path; do
		if [ -e "$dest$path" ] || [ -L "$dest$path" ]; then
			rm -f "$dest$path"
			echo "removed   $dest$path"
		fi
	done
}

# drop_config FILE PATH: removes PATH if it is as it was installed.
drop_config() {
	drop "$2.new"
	[ -e "$dest$2" ] || return 0
	if sed "s|/usr/sbin/zigsvc|$program|g" "$here/$1" | cmp -s - "$dest$2"; then
		drop "$2"
	else
		echo "kept      $dest$2 (edited)"
	fi
}

# documents: prints the documents of this folder, whose links lead to one another.
documents() {
	(cd "$here" && printf '%s\n' README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE-APACHE LICENSE-MIT docs/*.md docs/*.svg)
}

install_all() {
	put 755 zigsvc "$program"
	put_config init.d/zigsvc.conf /etc/zigsvc.conf
	start=
	case $init in
	systemd)
		put 644 init.d/zigsvc.service /etc/systemd/system/zigsvc.service
		start="systemctl daemon-reload && systemctl enable --now zigsvc"
		;;
	procd)
		put 755 init.d/zigsvc.procd /etc/init.d/zigsvc
		start="/etc/init.d/zigsvc enable && /etc/init.d/zigsvc start"
		;;
	openrc)
		put 755 init.d/zigsvc.openrc /etc/init.d/zigsvc
		start="rc-update add zigsvc default && rc-service zigsvc start"
		;;
	buildroot)
		put 755 init.d/zigsvc /etc/init.d/S50zigsvc
		put_config init.d/zigsvc.default /etc/default/zigsvc
		start="/etc/init.d/S50zigsvc start"
		;;
	sysv)
		put 755 init.d/zigsvc /etc/init.d/zigsvc
		put_config init.d/zigsvc.default /etc/default/zigsvc
		start="/etc/init.d/zigsvc start"
		[ ! -e "$dest/usr/sbin/update-rc.d" ] || start="update-rc.d zigsvc defaults && $start"
		;;
	none) start="::respawn:$program run jobs    (a line for /etc/inittab)" ;;
	*) misuse ;;
	esac
	share=$prefix/share
	[ ! -d "$dest$share/man" ] || put 644 docs/zigsvc.8 "$share/man/man8/zigsvc.8"
	[ ! -d "$dest$share/bash-completion" ] || put 644 docs/zigsvc.bash "$share/bash-completion/completions/zigsvc"
	if [ -d "$dest$share/doc" ]; then
		documents | while read -r file; do
			put 644 "$file" "$share/doc/zigsvc/$file"
		done
	fi
	# A program for this machine can check the configuration.
	if [ -z "$dest" ]; then
		"$program" check >/dev/null || die "the configuration is wrong: nothing was started"
	fi
	echo "init system: $init; to start it:"
	echo "    $start"
}

remove_all() {
	if [ -z "$dest" ] && [ -x "$program" ]; then
		if command -v systemctl >/dev/null 2>&1 && [ -e /etc/systemd/system/zigsvc.service ]; then
			systemctl disable --now zigsvc || :
		elif [ -e /etc/rc.common ] && [ -e /etc/init.d/zigsvc ]; then
			/etc/init.d/zigsvc disable || :
			/etc/init.d/zigsvc stop || :
		elif command -v rc-update >/dev/null 2>&1; then
			rc-service zigsvc stop || :
			rc-update delete zigsvc || :
		elif command -v update-rc.d >/dev/null 2>&1; then
			update-rc.d zigsvc remove || :
		fi
		# The supervisor is the first, because it would start the others again. A
		# service that this version lacks is not a failure.
		for service in $services; do
			"$program" stop "$service" >/dev/null 2>&1 || [ $? -eq 2 ] || die "cannot stop $service"
		done
		# The marks of these stops would keep a later supervisor from starting them.
		rm -f /run/zigsvc.down /run/zigsvc-*.down
	fi
	share=$prefix/share
	drop /etc/systemd/system/zigsvc.service /etc/init.d/S50zigsvc /etc/init.d/zigsvc
	drop "$share/man/man8/zigsvc.8" "$share/bash-completion/completions/zigsvc"
	documents | while read -r file; do
		drop "$share/doc/zigsvc/$file"
	done
	# Where 0.1.0 put this page.
	drop "$share/doc/zigsvc/control.md"
	rmdir "$dest$share/doc/zigsvc/docs" "$dest$share/doc/zigsvc" 2>/dev/null || :
	drop_config init.d/zigsvc.default /etc/default/zigsvc
	drop_config init.d/zigsvc.conf /etc/zigsvc.conf
	drop "$program"
	echo "data stays, where it is not configured elsewhere: $dest/var/spool/zigsvc, $dest/var/log/zigsvc*.log*"
}

init=
case ${1-} in
-h | --help) usage ;;
--uninstall)
	[ $# -eq 1 ] || misuse
	remove_all
	;;
--init)
	[ $# -eq 2 ] || misuse
	init=$2
	case $init in
	openrc | systemd | procd | buildroot | sysv | none) install_all ;;
	*) misuse ;;
	esac
	;;
'')
	init=$(detect)
	install_all
	;;
*) misuse ;;
esac
