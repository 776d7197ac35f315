package portable

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBootTimeAgreesWithTheKernel(t *testing.T) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var btime int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "btime ") {
			if _, err := fmt.Sscanf(lines.Text(), "btime %d", &btime); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if d := h.BootTime.Sub(time.Unix(btime, 0)); d < -time.Second || d > 2*time.Second {
		t.Errorf("boot time is %v after the kernel's", d)
	}
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err == nil && ns != fmt.Sprintf("pid:[%d]", h.PIDNamespace) {
		t.Errorf("PID namespace %d, want %s", h.PIDNamespace, ns)
	}
}

func TestMachineID(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	absent := filepath.Join(dir, "absent")
	good, empty, early := write("good", "0123456789abcdef0123456789abcdef\n"), write("empty", ""), write("early", "uninitialized\n")
	tests := []struct {
		name  string
		paths []string
		want  string
	}{
		{"first", []string{good, absent}, "0123456789abcdef0123456789abcdef"},
		{"second", []string{absent, good}, "0123456789abcdef0123456789abcdef"},
		{"empty first", []string{empty, good}, "0123456789abcdef0123456789abcdef"},
		{"before first boot", []string{early}, ""},
		{"none", []string{absent}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := machineID(tt.paths...); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := machineID(dir); err == nil {
		t.Error("a directory was taken for an absent machine id, which would change the host's identity")
	}
}
