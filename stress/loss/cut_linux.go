package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// capNetAdmin is the capability to change the network (capabilities(7)).
const capNetAdmin = 12

// errNoNamespace means that the user may not create a network namespace on this machine.
var errNoNamespace = errors.New("cannot create a network namespace: run as root, or allow unprivileged user namespaces")

// inNamespace runs the cut in a child with its own network namespace. The namespace
// has only a loopback device, which is the cable: when it goes down, nothing gets through
// and no side is notified. A proxy that drops everything would not do, because the
// proxy's machine would still answer the server's keepalives.
func (c cut) inNamespace(ctx context.Context) ([]row, error) {
	cmd, err := command(ctx, "cut")
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(input), &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{capNetAdmin}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoNamespace, err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("the process in the network namespace: %w", err)
	}
	var rows []row
	if err := json.Unmarshal(output.Bytes(), &rows); err != nil {
		return nil, err
	}
	return rows, nil
}

// setLoopback brings the loopback device up or down (netdevice(7)).
func setLoopback(up bool) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{}
	copy(request.name[:], "lo")
	if up {
		request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("the loopback device: %w", errno)
	}
	return nil
}
