# guard.sh FOLDER POSTGRES [ARGUMENT...]
# The parent of a throwaway server. It creates FOLDER, runs the commands on its
# standard input, and at the end of that input ends the server and removes FOLDER.
# Only the Go process holds the other end of the pipe, so the input also ends if
# the Go process panics, exits or is killed.
# As the parent it can rely on the PID, which is not reused before this shell has
# waited for it.
unset PGLOCK_GUARD
trap '' HUP INT QUIT TERM PIPE
umask 077
cd / || exit 1
folder=$1
shift
mkdir "$folder" || exit 1
echo ready

server=

running() {
	[ -n "$server" ] || return 1
	jobs >/dev/null 2>&1 # some shells notice only now that a child has ended
	kill -0 "$server" 2>/dev/null && return 0
	server=
	return 1
}

# Kill the server, and on Linux every process in its data folder: the sessions of a
# killed server do not end before they next check for it.
kill_all() {
	running && kill -KILL "$server"
	left=yes
	while [ "$left" ]; do
		left=
		for process in /proc/[0-9]*; do
			if [ "$process/cwd" -ef "$folder/data" ]; then
				left=yes
				kill -KILL "${process#/proc/}" 2>/dev/null
			fi
		done
		running && left=yes
		[ "$left" ] && sleep 0.01
	done
}

while read -r verb word; do
	case $verb in
	start)
		(
			trap - HUP INT QUIT TERM PIPE
			exec "$@"
		) </dev/null >>"$folder/log" 2>&1 &
		server=$!
		echo "$server"
		;;
	running) if running; then echo yes; else echo no; fi ;;
	signal)
		running && kill -s "$word" "$server"
		echo done
		;;
	kill)
		kill_all
		echo done
		;;
	esac
done

# Immediate shutdown. The signal is repeated, because a server that is starting
# ignores it.
tries=0
while running && [ $tries -lt 400 ]; do
	kill -QUIT "$server" 2>/dev/null
	sleep 0.02
	tries=$((tries + 1))
done
kill_all

# A killed server leaves its small segment of System V shared memory: line 7 of its
# PID file is "key id".
if [ -f "$folder/data/postmaster.pid" ]; then
	segment=$(sed -n '7s/.* //p' "$folder/data/postmaster.pid")
	[ -n "$segment" ] && ipcrm -m "$segment" >/dev/null 2>&1
fi

tries=0
while [ -e "$folder" ] && [ $tries -lt 100 ]; do
	rm -rf "$folder" 2>/dev/null || sleep 0.05
	tries=$((tries + 1))
done
