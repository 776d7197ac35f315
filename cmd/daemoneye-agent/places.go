package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	socketName    = "broker.sock"
	systemRuntime = "/run/daemoneye"
	systemState   = "/var/lib/daemoneye"
)

// runtimeDirs are the directories for the socket, best first. The last one is under
// the temporary directory, where others can make it first: see ensurePrivate.
func (p invocation) runtimeDirs() []string {
	var dirs []string
	if dir, _, _ := strings.Cut(p.getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	if p.uid == 0 {
		return append(dirs, systemRuntime)
	}
	if dir := p.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "daemoneye"))
	}
	return append(dirs, p.privateDir())
}

func (p invocation) privateDir() string {
	temporary := p.getenv("TMPDIR")
	if !filepath.IsAbs(temporary) {
		temporary = "/tmp"
	}
	return filepath.Join(temporary, "daemoneye-"+strconv.Itoa(p.uid))
}

// agentSocket is where the agent listens.
func (p invocation) agentSocket(o *options) (string, error) {
	if o.socket != "" {
		return filepath.Abs(o.socket)
	}
	for _, dir := range p.runtimeDirs() {
		if writable(dir) {
			return filepath.Join(dir, socketName), nil
		}
	}
	return "", &exitError{
		code: exitPermission, err: fmt.Errorf("none of the default places for the socket can be written: %s", strings.Join(p.runtimeDirs(), ", ")),
		hint: "Give one with --socket.",
	}
}

// clientSockets are the places where a client looks for an agent: what it is told, else
// the default ones of this user, then the system's.
func (p invocation) clientSockets(flag *string) ([]string, error) {
	named := p.getenv(envPrefix + "SOCKET")
	if flag != nil {
		named = *flag
	}
	if named != "" {
		path, err := filepath.Abs(named)
		return []string{path}, err
	}
	var sockets []string
	for _, dir := range append(p.runtimeDirs(), systemRuntime) {
		if dir == p.privateDir() && checkPrivate(dir, p.uid) != nil {
			continue // not ours: who made it would learn what we ask
		}
		if socket := filepath.Join(dir, socketName); !slices.Contains(sockets, socket) {
			sockets = append(sockets, socket)
		}
	}
	return sockets, nil
}

// agentStore is where the agent keeps its stream.
func (p invocation) agentStore(o *options) (string, error) {
	if o.store != "" {
		return filepath.Abs(o.store)
	}
	var dirs []string
	if dir, _, _ := strings.Cut(p.getenv("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	dirs = append(dirs, systemState)
	if dir := p.getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "daemoneye"))
	}
	if home := p.getenv("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".local", "state", "daemoneye"))
	}
	for _, dir := range dirs {
		if writable(dir) {
			return filepath.Join(dir, "broker"), nil
		}
	}
	return "", &exitError{
		code: exitPermission, err: fmt.Errorf("none of the default places for the stream can be written: %s", strings.Join(dirs, ", ")),
		hint: "Give one with --store.",
	}
}

// writable reports whether files can be made in dir, or dir itself can be made.
func writable(dir string) bool {
	for {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		if err == nil {
			return true
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return false
	}
}

// makeDir makes a directory with its parents. One that is there is left as it is, but
// the one of this user in the temporary directory must be private.
func (p invocation) makeDir(dir string, mode fs.FileMode) error {
	if dir == p.privateDir() {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return storageError(fmt.Errorf("make directory: %w", err))
		}
		return checkPrivate(dir, p.uid)
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return storageError(fmt.Errorf("make directory: %w", err))
	}
	return nil
}

// storageError gives an error of the file system its code.
func storageError(err error) error {
	if exitCodeOf(err) == exitPermission {
		return &exitError{code: exitPermission, err: err, hint: "Run as a user who may, or name other places with --socket and --store."}
	}
	return &exitError{code: exitStorage, err: err}
}

// checkPrivate returns nil if dir is a directory, no link, of that user alone.
func checkPrivate(dir string, uid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the directory of the socket: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != uid || info.Mode().Perm()&0o077 != 0 {
		return &exitError{
			code: exitPermission, err: fmt.Errorf("%s is not a private directory of user %d", dir, uid),
			hint: "Remove it, if it is yours, or give another place with --socket.",
		}
	}
	return nil
}
