package portable

import (
	"context"
	"fmt"
	"time"

	"github.com/shirou/gopsutil/v4/host"
	"golang.org/x/sys/unix"
)

// hostDeadline bounds the program that gopsutil runs to learn the machine id.
const hostDeadline = 5 * time.Second

// ReadHost reads the facts about this host. It blocks for a few seconds at most.
func ReadHost() (Host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hostDeadline)
	defer cancel()
	h := Host{TicksPerSecond: millisPerSecond}
	var err error
	if h.BootID, err = unix.Sysctl("kern.bootsessionuuid"); err != nil {
		return Host{}, fmt.Errorf("read boot id: %w", err)
	}
	// Without one, the caller makes an id and keeps it.
	h.MachineID, _ = host.HostIDWithContext(ctx)
	boot, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return Host{}, fmt.Errorf("read boot time: %w", err)
	}
	h.BootTime = time.Unix(boot.Unix())
	return h, nil
}
