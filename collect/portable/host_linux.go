package portable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/procfile"
)

// ReadHost reads the facts about this host. It blocks only for some small files.
func ReadHost() (Host, error) {
	h := Host{TicksPerSecond: procfile.TicksPerSecond}
	var err error
	if h.MachineID, err = machineID("/etc/machine-id", "/var/lib/dbus/machine-id"); err != nil {
		return Host{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Host{}, fmt.Errorf("read boot id: %w", err)
	}
	h.BootID = strings.TrimSpace(string(boot))
	var st unix.Stat_t
	err = unix.Stat("/proc/self/ns/pid", &st)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: a kernel without PID namespaces
		return Host{}, fmt.Errorf("read PID namespace: %w", err)
	}
	h.PIDNamespace = st.Ino
	h.BootTime, err = bootTime()
	return h, err
}

// machineID returns what the first of these files holds, "" if none does.
func machineID(paths ...string) (string, error) {
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read machine id: %w", err)
		}
		// systemd writes "uninitialized" into an image that has not booted yet.
		if id := strings.TrimSpace(string(b)); id != "" && id != "uninitialized" {
			return id, nil
		}
	}
	return "", nil
}

// bootTime is when the clock that start times are measured on was zero, on the
// wall clock as it is set now. btime in /proc/stat is the same to the second.
func bootTime() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read clock since boot: %w", err)
	}
	return time.Now().Round(0).Add(-time.Duration(since.Nano())), nil
}
