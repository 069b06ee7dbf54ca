package supervise

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const szomb = 5 // SZOMB of <sys/proc.h>

// processes returns all processes.
func processes() ([]process, error) {
	infos, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	all := make([]process, len(infos))
	for i := range infos {
		p := &infos[i]
		all[i] = process{
			pid:     int(p.Proc.P_pid),
			parent:  int(p.Eproc.Ppid),
			group:   int(p.Eproc.Pgid),
			zombie:  p.Proc.P_stat == szomb,
			name:    unix.ByteSliceToString(p.Proc.P_comm[:]),
			started: fmt.Sprintf("%d.%06d", p.Proc.P_starttime.Sec, p.Proc.P_starttime.Usec),
		}
	}
	return all, nil
}
