package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pidFile keeps a second agent from the same socket. It is there while an agent runs,
// locked, and after one that did not stop its collectors.
type pidFile struct {
	file *os.File
	// left says that an earlier agent did not end in order.
	left bool
}

// lockPIDFile makes the file ours. Another agent that has it is an error with its
// pid.
func lockPIDFile(path string) (*pidFile, error) {
	_, statErr := os.Lstat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, storageError(fmt.Errorf("open pid file: %w", err))
	}
	p := &pidFile{file: f, left: !errors.Is(statErr, fs.ErrNotExist)}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = p.taken(err)
		p.release()
		return nil, err
	}
	if err := p.write(); err != nil {
		p.release()
		return nil, storageError(fmt.Errorf("write pid file: %w", err))
	}
	return p, nil
}

// taken says who has the file.
func (p *pidFile) taken(err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return storageError(fmt.Errorf("lock %s: %w", p.file.Name(), err))
	}
	buf := make([]byte, 16)
	n, _ := p.file.Read(buf) // the lock says enough
	who := strings.TrimSpace(string(buf[:n]))
	return &exitError{code: exitInUse, err: fmt.Errorf("an agent runs here already: pid %s has %s", who, p.file.Name())}
}

func (p *pidFile) write() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	return err
}

// forget removes the file: everything was stopped.
func (p *pidFile) forget() error {
	if err := os.Remove(p.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storageError(fmt.Errorf("remove pid file: %w", err))
	}
	return nil
}

// release lets the next agent in.
func (p *pidFile) release() { _ = p.file.Close() } // nothing is lost with it
