package supervise

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A job is a job object: a set of processes and all that they start, which none can
// leave. The system ends them when the job's last handle closes, and only this program
// has one.
type job struct {
	mu     sync.Mutex     // guards handle, since the value of a closed handle may be reused
	handle windows.Handle // 0 when closed
}

func newJob() (*job, error) {
	handle, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("making a job object: %w", err)
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		windows.CloseHandle(handle)
		return nil, fmt.Errorf("setting up a job object: %w", err)
	}
	return &job{handle: handle}, nil
}

// adopt puts a suspended process into the job and resumes it, so that all processes that
// it starts are in the job too.
func (j *job) adopt(pid int) error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return fmt.Errorf("opening the command: %w", err)
	}
	defer windows.CloseHandle(process)
	if err := windows.AssignProcessToJobObject(j.handle, process); err != nil {
		return fmt.Errorf("putting the command into a job object: %w", err)
	}
	if err := resume(uint32(pid)); err != nil {
		return fmt.Errorf("resuming the command: %w", err)
	}
	return nil
}

// resume resumes a suspended process, which has one thread.
func resume(pid uint32) error {
	threads, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(threads)
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(threads, &entry); err == nil; err = windows.Thread32Next(threads, &entry) {
		if entry.OwnerProcessID != pid {
			continue
		}
		thread, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, entry.ThreadID)
		if err != nil {
			return err
		}
		defer windows.CloseHandle(thread)
		_, err = windows.ResumeThread(thread)
		return err
	}
	if errors.Is(err, windows.ERROR_NO_MORE_FILES) {
		return errors.New("it has no thread")
	}
	return err
}

// accounting is JOBOBJECT_BASIC_ACCOUNTING_INFORMATION.
type accounting struct {
	_      [4]int64 // times
	_      [2]uint32
	active uint32 // processes
	_      uint32
}

// active returns the number of processes in the job.
func (j *job) active() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.handle == 0 {
		return 0
	}
	var a accounting
	if err := windows.QueryInformationJobObject(j.handle, windows.JobObjectBasicAccountingInformation,
		uintptr(unsafe.Pointer(&a)), uint32(unsafe.Sizeof(a)), nil); err != nil {
		return 0
	}
	return int(a.active)
}

// empty waits until the job is empty, or returns false after this time.
func (j *job) empty(within time.Duration) bool {
	for deadline := time.Now().Add(within); j.active() > 0; time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// kill kills all processes in the job.
func (j *job) kill() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.handle != 0 {
		_ = windows.TerminateJobObject(j.handle, killed)
	}
}

// close closes the job, which also ends the processes in it.
func (j *job) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	windows.CloseHandle(j.handle)
	j.handle = 0
}
