package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxSocketPath is what fits into sockaddr_un with its final zero byte: 108
// bytes on Linux (unix(7)), 104 on the BSDs and macOS.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

// SocketPath is the control socket of a database: beside it, or where that path
// is too long, in a private directory, named by a hash of the resolved database
// path. The daemon's environment names that directory, and a client has another
// environment: a socket that is already there, in a directory that the database's
// owner keeps private, is found without. SocketPath makes nothing.
func SocketPath(database string) (string, error) {
	resolved, err := resolve(database)
	if err != nil {
		return "", fmt.Errorf("resolve database path: %w", err)
	}
	if beside := resolved + ".sock"; len(beside) <= maxSocketPath() {
		return beside, nil
	}
	sum := sha256.Sum256([]byte(resolved))
	name := hex.EncodeToString(sum[:12]) + ".sock"
	return pickSocket(name, privateDirs(os.Geteuid()), foreignDirs(ownerOf(resolved)))
}

// pickSocket returns where the socket of that name is: in one of our directories,
// the first of which is where it would be made, or in a foreign one.
func pickSocket(name string, own, foreign []string) (string, error) {
	tooLong := func(dir string) bool { return len(filepath.Join(dir, name)) > maxSocketPath() }
	own, foreign = slices.DeleteFunc(own, tooLong), slices.DeleteFunc(foreign, tooLong)
	if len(own) == 0 {
		return "", fmt.Errorf("path of the control socket is longer than the %d bytes that the system allows: use a shorter $TMPDIR", maxSocketPath())
	}
	for i, dir := range slices.Concat(own, foreign) {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if i < len(own) { // who else could have put it there is not to be talked to
			return path, checkPrivate(dir, os.Geteuid())
		}
		return path, nil
	}
	return filepath.Join(own[0], name), nil
}

// resolve makes a path absolute and follows symbolic links as far as it exists.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if followed, err := filepath.EvalSymlinks(abs); err == nil {
		return followed, nil
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(parent, filepath.Base(abs)), nil
	}
	return abs, nil // it will be made as it is named
}

// privateDirs are the directories for sockets with too long a path, best first.
func privateDirs(uid int) []string {
	var dirs []string
	for _, env := range []string{"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		first, _, _ := strings.Cut(os.Getenv(env), ":") // systemd lists all that a unit has
		if filepath.IsAbs(first) {
			dirs = append(dirs, filepath.Join(first, "procmond"))
		}
	}
	return append(dirs, temporaryDir(uid))
}

// foreignDirs are the directories where the daemon of another environment may
// have put its socket: that of the unit that `procmond service print` prints, and
// those of the database's owner. One that can not be trusted is left out.
func foreignDirs(owner int) []string {
	dirs := []string{"/run/daemoneye/procmond", "/run/user/" + strconv.Itoa(owner) + "/procmond", temporaryDir(owner)}
	return slices.DeleteFunc(dirs, func(dir string) bool { return checkPrivate(dir, owner) != nil })
}

func temporaryDir(uid int) string {
	return filepath.Join(os.TempDir(), "procmond-"+strconv.Itoa(uid))
}

// ownerOf is the user whom a database belongs to; -1 if there is none.
func ownerOf(database string) int {
	info, err := os.Stat(database)
	if err != nil {
		return -1
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// errForeignDir says that a directory for the socket can not be trusted.
var errForeignDir = errors.New("directory of the control socket is not private")

// ensurePrivate makes a directory for sockets if needed, and refuses one that is
// not ours alone: under the temporary directory, others can make it first.
func ensurePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory of the control socket: %w", err)
	}
	return checkPrivate(dir, os.Geteuid())
}

// checkPrivate returns nil if dir is a directory, no link, of that user alone.
func checkPrivate(dir string, uid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the directory of the control socket: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != uid || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: %w: it must be a directory of user %d with mode 0700", dir, errForeignDir, uid)
	}
	return nil
}
