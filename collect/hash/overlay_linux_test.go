package hash

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The device number of an overlay is soon that of another one, whose files can have
// been given the same inodes and times: two on file systems in memory show it.
func TestOverlayIsAsSteadyAsItsLayers(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mount := func(target, kind, options string) {
		if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // nothing is in it
			t.Fatal(err)
		}
		if err := unix.Mount("none", target, kind, 0, options); err != nil {
			t.Skipf("mount %s: %v", kind, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	overlay := func(layers, target string) bool {
		for _, name := range []string{"upper", "work", "lower"} {
			if err := os.MkdirAll(filepath.Join(layers, name), 0o755); err != nil { //nolint:gosec // it is removed soon
				t.Fatal(err)
			}
		}
		mount(target, "overlay", "lowerdir="+layers+"/lower,upperdir="+layers+"/upper,workdir="+layers+"/work")
		path := filepath.Join(target, "file")
		if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := statPath(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := openPath(path, f.key)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.steady()
	}
	memory, disk := filepath.Join(base, "memory"), filepath.Join(base, "disk")
	mount(memory, "tmpfs", "size=1m")
	if overlay(memory, filepath.Join(base, "over memory")) {
		t.Error("an overlay on a file system in memory is called steady")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(base, &fs); err != nil || !steadyType(&fs) || uint32(fs.Type) == unix.OVERLAYFS_SUPER_MAGIC {
		t.Skip("the temporary directory is not on a disk")
	}
	if !overlay(disk, filepath.Join(base, "over disk")) {
		t.Error("an overlay on a disk, among our mounts, is not called steady")
	}
}

// An overlay that is not among our mounts belongs to nobody we know.
func TestUpperOf(t *testing.T) {
	t.Parallel()
	const mounts = "25 1 254:0 / / rw - ext4 /dev/vda rw\n" +
		"99 25 0:42 / /merged rw,relatime shared:7 - overlay none rw,lowerdir=/l1:/l2,upperdir=/up,workdir=/work\n" +
		"98 25 0:43 / /relative rw - overlay none rw,lowerdir=l,upperdir=up,workdir=work\n" +
		"97 25 0:44 / /other rw - tmpfs none rw,upperdir=/no\n"
	for minor, want := range map[uint32]string{42: "/up", 43: "", 44: "", 45: ""} {
		if got := upperOf(mounts, unix.Mkdev(0, minor)); got != want {
			t.Errorf("0:%d is written to %q, want %q", minor, got, want)
		}
	}
}
