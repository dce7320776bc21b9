# shellcheck shell=sh
# Sourced by what checks packages, also inside the trees where they are tried:
# how a check is told.

passed=0
failed=0
export LC_ALL=C TZ=UTC
umask 022

# ok WHAT COMMAND...: does COMMAND, and says whether it succeeded; what it writes
# is shown if it did not.
ok() {
	what=$1
	shift
	if said=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "ok: $what"
	else
		failed=$((failed + 1))
		echo "not ok: $what"
		printf '%s\n' "$said" | sed 's/^/    /'
	fi
}

# same WANTED FOUND: whether two files are equal; shows how they differ.
same() { diff -u "$1" "$2"; }

# lacks FILE...: whether none of them is there.
lacks() {
	for path; do
		if [ -e "$path" ] || [ -L "$path" ]; then
			echo "$path is there"
			return 1
		fi
	done
}

# running: the PIDs of what runs from a file called zigsvc, or did until the file
# was removed.
running() {
	for link in /proc/[0-9]*/exe; do
		case $(readlink "$link" 2>/dev/null) in
		*/zigsvc | */zigsvc\ *) link=${link#/proc/} && echo "${link%/exe}" ;;
		esac
	done
}

# fails CODE COMMAND...: whether COMMAND ends with CODE.
fails() {
	wanted=$1
	shift
	code=0
	"$@" || code=$?
	[ "$code" -eq "$wanted" ] || { echo "exit status $code, not $wanted" && return 1; }
}

# The closing line, and the script's end.
finish() {
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] || exit 1
	exit 0
}
