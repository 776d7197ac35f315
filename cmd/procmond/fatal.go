package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/store"
)

// fatalSuffix is added to the database path for the side file that says why the
// daemon ended itself.
const fatalSuffix = ".fatal"

// fatalRecord is the content of the side file: one JSON object. It is there from
// a fatal end to the next ordered one.
type fatalRecord struct {
	Time   time.Time `json:"time"`
	PID    int       `json:"pid"`
	Code   exitCode  `json:"exit_code"`
	Reason string    `json:"reason"`
}

// lastWords ends the process when it can not go on. Both ends are safe to call
// from any goroutine, and neither waits for a disk or a terminal that hangs.
type lastWords struct {
	database string
	log      *logrus.Entry
	stderr   io.Writer
	flush    func() // writes what the log holds back; bounded in time
	exit     func(exitCode)
}

// grace is how long the last words may take.
const grace = 5 * time.Second

// storage ends the process because the store can not go on.
func (l *lastWords) storage(reason error) {
	code := exitStorage
	if errors.Is(reason, store.ErrLocked) || errors.Is(reason, store.ErrNotStore) || errors.Is(reason, store.ErrNewerFormat) {
		code = storeCode(reason) // found when it was opened again
	}
	l.end(code, reason.Error(), nil)
}

// watchdog ends the process because a service hangs: every goroutine goes into
// the log, for whoever must find out where.
func (l *lastWords) watchdog(reason string) {
	l.end(exitWatchdog, reason, goroutines())
}

func (l *lastWords) end(code exitCode, reason string, stacks []byte) {
	timer := time.AfterFunc(grace, func() { l.exit(code) })
	defer timer.Stop() // only a test returns from exit
	recordErr := writeFatal(l.database, fatalRecord{Time: time.Now().UTC(), PID: os.Getpid(), Code: code, Reason: reason})
	entry := l.log.WithField("exit_code", int(code))
	if recordErr != nil {
		entry = entry.WithError(recordErr)
	}
	entry.Error("Ends itself: " + reason)
	l.flush()
	if len(stacks) > 0 {
		_, _ = l.stderr.Write(stacks) // nowhere else to say it
	}
	l.exit(code)
}

// goroutines are the stacks of all, up to a size that a log can take.
func goroutines() []byte {
	const most = 16 << 20
	for size := 256 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size >= most {
			return append(buf[:n], '\n')
		}
	}
}

func writeFatal(database string, r fatalRecord) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode reason: %w", err)
	}
	if err := os.WriteFile(database+fatalSuffix, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write reason: %w", err)
	}
	return nil
}

// readFatal returns nil if the last run did not end that way, or nothing can be
// read of it.
func readFatal(database string) *fatalRecord {
	// What stands there may be a pipe, which must not hold anybody up.
	f, err := os.OpenFile(database+fatalSuffix, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	var r fatalRecord
	if json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&r) != nil {
		return nil
	}
	return &r
}

// forgetFatal removes the side file after an ordered end.
func forgetFatal(database string) error {
	err := os.Remove(database + fatalSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENAMETOOLONG) { // then there never was one
		return fmt.Errorf("remove reason of an earlier end: %w", err)
	}
	return nil
}
