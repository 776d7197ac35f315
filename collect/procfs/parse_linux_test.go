package procfs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// dirents is what getdents64 gives for these names.
func dirents(names ...string) []byte {
	var b []byte
	for _, name := range names {
		size := (direntName + len(name) + 1 + 7) &^ 7
		entry := make([]byte, size)
		binary.NativeEndian.PutUint16(entry[direntLength:], uint16(size))
		copy(entry[direntName:], name)
		b = append(b, entry...)
	}
	return b
}

func TestAppendPIDs(t *testing.T) {
	got, err := appendPIDs(nil, dirents(".", "..", "1", "12a", "4194304", "self", "007", "0", "-1", "99999999999", "2147483647", "42"))
	if want := []int32{1, 4194304, 42}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestListIsThatOfTheHost(t *testing.T) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	var l lister
	pids, err := l.list(fd)
	if err != nil || !slices.Contains(pids, int32(os.Getpid())) || !slices.IsSorted(pids) {
		t.Errorf("got %v, %v", pids, err)
	}
}

// TestListIsWhole: what does not fit one reading of the directory comes with the next.
func TestListIsWhole(t *testing.T) {
	const n = 1_500
	dir := t.TempDir()
	for pid := 1; pid <= n; pid++ {
		if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(pid)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	l := new(lister)
	if n*(direntName+len("1000")+1) < len(l.buf) {
		t.Fatal("they fit one reading")
	}
	pids, err := l.list(fd)
	if err != nil || len(pids) != n || pids[0] != 1 || pids[n-1] != n || !slices.IsSorted(pids) {
		t.Errorf("%d PIDs, %v", len(pids), err)
	}
}

func FuzzAppendPIDs(f *testing.F) {
	f.Add(dirents("1", "self", "42"))
	f.Add(dirents("1")[:20])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		pids, err := appendPIDs(nil, b)
		if err == nil && len(pids) > len(b)/(direntName+1) {
			t.Errorf("%d PIDs from %d bytes", len(pids), len(b))
		}
		for _, pid := range pids {
			if pid <= 0 || pid >= maxPID {
				t.Errorf("PID %d", pid)
			}
		}
	})
}

func FuzzParsePID(f *testing.F) {
	for _, s := range []string{"1", "0", "01", "4194304", "2147483648", "1073741824", "self", "1\x002", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		pid, ok := parsePID(name)
		if !ok {
			return
		}
		text := strconv.Itoa(int(pid))
		if s := string(name); pid <= 0 || s != text && (len(s) <= len(text) || s[:len(text)+1] != text+"\x00") {
			t.Errorf("%q is %d", name, pid)
		}
	})
}
