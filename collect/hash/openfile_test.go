package hash

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOpenPathNeverWaits has things in the place of a file that make others wait.
func TestOpenPathNeverWaits(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/zero", "/dev/tty", t.TempDir()} {
		began := time.Now()
		_, err := openPath(path, key{})
		if s := skipOf(err); s.reason != reasonSpecial && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want %s", path, err, reasonSpecial)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: it took %v", path, took)
		}
		// Also if it came there between looking and opening.
		fd, err := unix.Open(path, openFlags, 0)
		if err != nil {
			continue
		}
		if _, err := checked(fd, key{}); skipOf(err).reason != reasonSpecial {
			t.Errorf("%s, opened: %v, want %s", path, err, reasonSpecial)
		}
	}
}

// TestOpenPath takes the file that it was told of, and no other.
func TestOpenPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
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
	h, err := New(Config{Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	res := result{key: f.key}
	h.digest(t.Context(), c, &res)
	if res.failure != nil || res.digest != sha256.Sum256([]byte("text")) {
		t.Errorf("result is %+v", res)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("texts"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPath(path, f.key); skipOf(err).reason != reasonReplaced {
		t.Errorf("a changed file: %v, want %s", err, reasonReplaced)
	}
	if _, err := openPath(path+"s", f.key); skipOf(err).reason != reasonGone {
		t.Errorf("no file: %v, want %s", err, reasonGone)
	}
}
