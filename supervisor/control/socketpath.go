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
	"strconv"
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
// path. It makes nothing.
func SocketPath(database string) (string, error) {
	resolved, err := resolve(database)
	if err != nil {
		return "", fmt.Errorf("resolve database path: %w", err)
	}
	if beside := resolved + ".sock"; len(beside) <= maxSocketPath() {
		return beside, nil
	}
	sum := sha256.Sum256([]byte(resolved))
	path := filepath.Join(privateDir(), hex.EncodeToString(sum[:12])+".sock")
	if len(path) > maxSocketPath() {
		return "", fmt.Errorf("control socket path %s has %d bytes, the system allows %d: use a shorter $TMPDIR", path, len(path), maxSocketPath())
	}
	return path, nil
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

// privateDir is where sockets with too long a path go.
func privateDir() string {
	for _, env := range []string{"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		if dir := os.Getenv(env); filepath.IsAbs(dir) {
			return dir
		}
	}
	return filepath.Join(os.TempDir(), "procmond-"+strconv.Itoa(os.Getuid()))
}

// errForeignDir says that a directory for the socket can not be trusted.
var errForeignDir = errors.New("directory of the control socket is not private")

// ensurePrivate makes the socket's directory if needed. A shared directory such
// as the database's own is taken as it is; one under the temporary directory
// must be ours alone, since others can make it first.
func ensurePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory of the control socket: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the directory of the control socket: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: %w: it must be a directory of ours that nobody else can write", dir, errForeignDir)
	}
	return nil
}
