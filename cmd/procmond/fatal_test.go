package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/store"
)

// TestStorageExitCodes: what is found when a store is opened again ends the process
// as it would have at the start.
func TestStorageExitCodes(t *testing.T) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	for reason, want := range map[error]exitCode{
		store.ErrNotStore:        exitNotStore,
		store.ErrNewerFormat:     exitNewerFormat,
		store.ErrLocked:          exitInUse,
		errors.New("disk error"): exitStorage,
	} {
		var got exitCode
		l := &lastWords{database: filepath.Join(t.TempDir(), "db"), log: logrus.NewEntry(logger), stderr: io.Discard, flush: func() {}, exit: func(c exitCode) { got = c }}
		l.storage(fmt.Errorf("reopen store: %w", reason))
		if got != want {
			t.Errorf("%v: exit %d, want %d", reason, got, want)
		}
	}
}

// TestReasonThatIsNone: what stands in the place of the reason holds nobody up.
func TestReasonThatIsNone(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "p.db")
	if err := unix.Mkfifo(database+fatalSuffix, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := readFatal(database); r != nil {
		t.Errorf("a pipe says %+v", r)
	}
	if err := forgetFatal(filepath.Join(dir, strings.Repeat("x", 254))); err != nil {
		t.Errorf("a name too long for a reason: %v", err)
	}
}
