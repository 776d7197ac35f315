package broker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"daemoneye.dev/procmond/bus/rpc"
)

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 1 << 10

// ErrSecretUnsafe says that others could have read or made a secret's file.
var ErrSecretUnsafe = errors.New("can not be trusted")

// readSecret returns the secret of a valid user.
func readSecret(socket, user string) (string, error) {
	path := rpc.SecretPath(socket, user)
	if err := checkSecrets(filepath.Dir(path)); err != nil {
		return "", err
	}
	// Not to follow a link, and not to wait for whoever writes to a FIFO.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("look at secret: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("secret %s: %w: want a file that is closed to others (mode 0600 or 0640)", path, ErrSecretUnsafe)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" || len(data) > maxSecret {
		return "", fmt.Errorf("secret %s: %w: want 1 to %d bytes", path, ErrSecretUnsafe, maxSecret)
	}
	return secret, nil
}

// checkSecrets refuses a directory in which others can put files: other than root,
// the own user, and who owns the directory that it lies in and so has it in hand.
func checkSecrets(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at secrets: %w", err)
	}
	above, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("look at directory of the socket: %w", err)
	}
	owner, _, known := ownerOf(info)
	host, _, _ := ownerOf(above)
	trusted := known && (owner == 0 || owner == os.Geteuid() || owner == host)
	if !info.IsDir() || !trusted || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: %w: want a directory of root or user %d that nobody else can write to", dir, ErrSecretUnsafe, host)
	}
	return nil
}

// ownerOf is the user and group of a file.
func ownerOf(info fs.FileInfo) (uid, gid int, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1, false
	}
	return int(stat.Uid), int(stat.Gid), true
}

// Enrollment says how a secret is made.
type Enrollment struct {
	// Group may read the secret. NoGroup is none.
	Group int
	// Rotate replaces a secret that is there. Connections that are up stay up.
	Rotate bool
}

// Enroll makes the secret of a user, whose name is a collector's id, an
// [rpc.ReaderUser] or [rpc.UserOperator]. It is durable, and valid at once, when
// Enroll returns. One that is there is kept, and the error is an [fs.ErrExist], unless
// it is to be rotated. Made by root, it belongs to the owner of the directory, so that
// an agent without privileges can read it.
func Enroll(socket, user string, how Enrollment) error {
	if permissions(user) == nil {
		return fmt.Errorf("enroll %q: want a collector's id, a reader or the operator", user)
	}
	path := rpc.SecretPath(socket, user)
	if err := makeSecrets(filepath.Dir(path), how.Group); err != nil {
		return fmt.Errorf("enroll %s: %w", user, err)
	}
	if _, err := os.Lstat(path); err == nil && !how.Rotate {
		return fmt.Errorf("enroll %s: %s: %w", user, path, fs.ErrExist)
	}
	if err := writeSecret(path, how); err != nil {
		return fmt.Errorf("enroll %s: %w", user, err)
	}
	return nil
}

// makeSecrets makes the directory of secrets if needed, and lets the group into it.
func makeSecrets(dir string, group int) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make directory of the socket: %w", err)
	}
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make secrets: %w", err)
	}
	made := err == nil
	if made {
		if err := giveDir(dir); err != nil {
			return err
		}
	}
	if err := checkSecrets(dir); err != nil {
		return err
	}
	if group != NoGroup {
		if err := admitGroup(dir, group); err != nil {
			return err
		}
	}
	if !made {
		return nil
	}
	return syncDir(filepath.Dir(dir))
}

// admitGroup lets one group into the directory of secrets. A second one is refused:
// it would take the first one's place.
func admitGroup(dir string, group int) error {
	file, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open secrets: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("look at secrets: %w", err)
	}
	if _, has, _ := ownerOf(info); info.Mode().Perm()&0o050 != 0 && has != group {
		return fmt.Errorf("secrets are open to group %d already: only one group can read its own", has)
	}
	if err := errors.Join(file.Chown(-1, group), file.Chmod(0o750)); err != nil {
		return fmt.Errorf("open secrets to group: %w", err)
	}
	return nil
}

// writeSecret puts a new secret in place, whole and durable.
func writeSecret(path string, how Enrollment) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".new-*") // no user's name has a dot in front
	if err != nil {
		return fmt.Errorf("make secret: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	err = errors.Join(fillSecret(file, dir, how.Group), file.Close())
	if err != nil {
		return err
	}
	place := os.Link // fails if there is one
	if how.Rotate {
		place = os.Rename
	}
	if err := place(file.Name(), path); err != nil {
		return fmt.Errorf("put secret in place: %w", err)
	}
	return syncDir(dir)
}

func fillSecret(file *os.File, dir string, group int) error {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	mode := fs.FileMode(0o600)
	if group != NoGroup {
		mode = 0o640
	}
	if err := giveTo(file, dir, group); err != nil {
		return err
	}
	if err := file.Chmod(mode); err != nil {
		return fmt.Errorf("close secret to others: %w", err)
	}
	if _, err := file.WriteString(hex.EncodeToString(secret[:]) + "\n"); err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync secret: %w", err)
	}
	return nil
}

// giveDir gives the directory of secrets to whoever owns the one it lies in.
func giveDir(dir string) error {
	file, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open secrets: %w", err)
	}
	defer func() { _ = file.Close() }()
	return giveTo(file, filepath.Dir(dir), NoGroup)
}

// giveTo gives a file to a group, and if root asks, to whoever owns the directory. It
// takes no path: the owner of a directory could put something else there meanwhile.
func giveTo(file *os.File, dir string, group int) error {
	owner := -1
	if os.Geteuid() == 0 {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at directory: %w", err)
		}
		owner, _, _ = ownerOf(info)
	}
	if err := file.Chown(owner, group); err != nil {
		return fmt.Errorf("give %s to its owner: %w", file.Name(), err)
	}
	return nil
}

// syncDir makes what was put into a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	err = d.Sync()
	_ = d.Close()
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
