# shellcheck shell=sh
# Runs checks and prints their results. Sourced by the scripts that check packages,
# also inside the trees where they are tried.

passed=0
failed=0
export LC_ALL=C TZ=UTC
umask 022

# ok WHAT COMMAND...: runs COMMAND, and prints whether it succeeded. If not, it also
# prints the output of COMMAND.
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

# same WANTED FOUND: succeeds if two files are equal; prints how they differ.
same() { diff -u "$1" "$2"; }

# lacks FILE...: succeeds if none of them exists.
lacks() {
	for path; do
		if [ -e "$path" ] || [ -L "$path" ]; then
			echo "$path is there"
			return 1
		fi
	done
}

# running: prints the PIDs of the processes whose program is a file called zigsvc, or
# was one until the file was removed.
running() {
	for link in /proc/[0-9]*/exe; do
		case $(readlink "$link" 2>/dev/null) in
		*/zigsvc | */zigsvc\ *) link=${link#/proc/} && echo "${link%/exe}" ;;
		esac
	done
}

# fails CODE COMMAND...: succeeds if COMMAND ends with CODE.
fails() {
	wanted=$1
	shift
	code=0
	"$@" || code=$?
	[ "$code" -eq "$wanted" ] || { echo "exit status $code, not $wanted" && return 1; }
}

# finish: prints the last line, and ends the script.
finish() {
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] || exit 1
	exit 0
}
