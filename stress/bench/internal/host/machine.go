package host

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// A Machine describes the machine that ran the measurements. Fields that the system
// does not report are empty.
type Machine struct {
	CPU    string
	Cores  int
	Memory string
	System string
	Go     string
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	m.CPU = field("/proc/cpuinfo", "model name")
	if kb, _, ok := strings.Cut(field("/proc/meminfo", "MemTotal"), " "); ok {
		if n, err := strconv.Atoi(kb); err == nil {
			m.Memory = strconv.Itoa((n+1<<19)>>20) + " GiB"
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += ", Linux " + strings.TrimSpace(string(release))
	}
	return m
}

// Busy returns the load average of the last minute, or "" if the system does not
// report it.
func Busy() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}

// Memory returns the private and the shared memory of a process, in bytes.
func Memory(pid int) (own, shared int64, ok bool) {
	file := "/proc/" + strconv.Itoa(pid) + "/status"
	own, ok1 := kilobytes(field(file, "RssAnon"))
	shared, ok2 := kilobytes(field(file, "RssShmem"))
	return own, shared, ok1 && ok2
}

func kilobytes(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSuffix(s, " kB"), 10, 64)
	return n << 10, err == nil
}

// field returns the value of the first line "name: value" of a file.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
