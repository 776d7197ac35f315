package procfs

import (
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadOfNobody: a process that ends between opening and reading a file of its own
// has nothing in it.
func TestReadOfNobody(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Skipf("no sleep(1): %v", err)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/statm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	_, _ = cmd.Process.Kill(), cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	var buf [64]byte
	if n, err := read(fd, buf[:]); n != 0 || !isGone(err) {
		t.Errorf("read %d, %v, want 0 and that it is gone", n, err)
	}
}
