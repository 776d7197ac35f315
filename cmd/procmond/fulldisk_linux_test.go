package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	// insideEnv says that this process is the re-run in a mount namespace.
	insideEnv = "PROCMOND_TEST_MOUNT_NAMESPACE"
	// fileSystemSize holds a store with its reserve, and little more.
	fileSystemSize = "size=96m,mode=0700"
)

// inMountNamespace runs the calling test again in a mount namespace of its own,
// so that what it mounts ends with it whatever happens. It reports whether the
// caller is that re-run.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this host gives no mount namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in the mount namespace: %v", err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip("skipped in the mount namespace")
	}
	return false
}

// smallFileSystem mounts a tmpfs and returns its path.
func smallFileSystem(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("this host allows no private mounts: %v", err)
	}
	if err := syscall.Mount("procmond-test", dir, "tmpfs", 0, fileSystemSize); err != nil {
		t.Skipf("this host allows no tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill writes until the file system is full and returns how to make room.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill: %v", err)
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk fills the file system under a running daemon: it must live, say
// so, lose nothing, and go on by itself when there is room.
func TestFullDisk(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := smallFileSystem(t)
	database := filepath.Join(dir, "processes.db")
	d := startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	before := readEvents(t, database)

	free := fill(t, dir)
	startSleeper(t, "full-disk-1") // something to write at the next scan
	waitFor(t, "a health that tells of the full disk", func() bool {
		doc, code := readState(t, database)
		return code == 1 && doc.Health == "degraded" && len(doc.Reasons) == 1 && strings.Contains(doc.Reasons[0], "space")
	})
	select {
	case <-d.done:
		t.Fatalf("the daemon did not survive a full disk:\n%s", d.log)
	default:
	}

	free()
	waitFor(t, "the process that was started while the disk was full", func() bool {
		for _, e := range readEvents(t, database) {
			if (e.Kind == "start" || e.Kind == "exec") && len(e.Args) > 1 && e.Args[1] == "full-disk-1" {
				return true
			}
		}
		return false
	})
	waitFor(t, "health", func() bool {
		doc, _ := readState(t, database)
		return !strings.Contains(strings.Join(doc.Reasons, " "), "space")
	})
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	checkContinues(t, before, readEvents(t, database))
}

// TestFullDiskAtStart starts the daemon without any room.
func TestFullDiskAtStart(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := smallFileSystem(t)
	database := filepath.Join(dir, "processes.db")
	free := fill(t, dir)
	d := startDaemon(t, database, "--interval", "5")
	waitFor(t, "a daemon that says what it lacks", func() bool {
		doc, code := readState(t, database)
		return code == 1 && strings.Contains(strings.Join(doc.Reasons, " "), "space")
	})
	free()
	d.awaitCycle(1)
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
}
