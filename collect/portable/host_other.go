//go:build !linux && !darwin

package portable

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/shirou/gopsutil/v4/host"
)

// hostDeadline bounds what gopsutil does to learn the machine id.
const hostDeadline = 5 * time.Second

// ReadHost reads the facts about this host. These platforms have no boot id;
// the second of the boot stands for it, which is as good as the clock is steady.
func ReadHost() (Host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hostDeadline)
	defer cancel()
	h := Host{TicksPerSecond: millisPerSecond}
	boot, err := host.BootTimeWithContext(ctx)
	if err != nil {
		return Host{}, fmt.Errorf("read boot time: %w", err)
	}
	h.BootID = strconv.FormatUint(boot, 10)
	h.BootTime = time.Unix(int64(boot), 0)
	// Without one, the caller makes an id and keeps it.
	h.MachineID, _ = host.HostIDWithContext(ctx)
	return h, nil
}
