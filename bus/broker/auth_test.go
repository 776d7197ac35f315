package broker

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestSecrets(t *testing.T) {
	f := start(t, config(t))
	refuse := func(user, secret, reason string) {
		t.Helper()
		before := f.refused(reason)
		nc, err := dialAs(f.cfg, user, secret)
		if err == nil {
			nc.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) || f.refused(reason) != before+1 {
			t.Errorf("%s: %v, refusals %+v", user, err, f.Refusals())
		}
	}
	refuse("procmond", "x", ReasonNotEnrolled)
	f.enroll(t, "procmond") // while it runs
	f.as(t, "procmond")
	secret := secretOf(t, f.cfg, "procmond")
	refuse("procmond", "wrong", ReasonSecret)
	refuse("procmond", "", ReasonSecret)
	refuse("other", secret, ReasonNotEnrolled)
	for _, user := range []string{"", "../procmond", "procmond/", "a.b", "registration", ".reader", "x\x1b[31m"} {
		refuse(user, secret, ReasonUser)
	}
	refuse(agentUser, f.password, ReasonUser) // from outside it is nobody
	if err := os.Remove(rpc.SecretPath(f.cfg.Socket, "procmond")); err != nil {
		t.Fatal(err)
	}
	refuse("procmond", secret, ReasonNotEnrolled)
	for _, r := range f.Refusals() {
		if strings.Contains(r.Last, "\x1b") || !strings.Contains(r.Last, "(user ") {
			t.Errorf("last: %q", r.Last)
		}
	}
}

func TestUnsafeSecrets(t *testing.T) {
	f := start(t, config(t))
	f.enroll(t, "good")
	good := rpc.SecretPath(f.cfg.Socket, "good")
	secret := secretOf(t, f.cfg, "good")
	path := rpc.SecretPath(f.cfg.Socket, "bad")
	for name, spoil := range map[string]func() error{
		"open":      func() error { return errors.Join(os.WriteFile(path, []byte(secret), 0o600), os.Chmod(path, 0o604)) },
		"writable":  func() error { return errors.Join(os.WriteFile(path, []byte(secret), 0o600), os.Chmod(path, 0o602)) },
		"link":      func() error { return os.Symlink(good, path) },
		"fifo":      func() error { return syscall.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"empty":     func() error { return os.WriteFile(path, []byte(" \n"), 0o600) },
		"huge":      func() error { return os.WriteFile(path, []byte(secret+strings.Repeat(" ", maxSecret)), 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		before := f.refused(ReasonSecretUnsafe)
		_, err := dialAs(f.cfg, "bad", secret)
		if !errors.Is(err, nats.ErrAuthorization) || f.refused(ReasonSecretUnsafe) != before+1 {
			t.Errorf("%s: %v, %+v", name, err, f.Refusals())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(" \n"+secret+"\n\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecret(f.cfg.Socket, "bad"); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecret(f.cfg.Socket, "bad"); !errors.Is(err, ErrSecretUnsafe) {
		t.Errorf("directory that others write to: %v", err)
	}
	if err := Enroll(f.cfg.Socket, "late", Enrollment{Group: NoGroup}); !errors.Is(err, ErrSecretUnsafe) {
		t.Errorf("enroll there: %v", err)
	}
}

func TestEnroll(t *testing.T) {
	cfg := config(t)
	cfg.Socket = filepath.Join(filepath.Dir(cfg.Socket), "d", "s")
	mode := func(path string) fs.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	none := Enrollment{Group: NoGroup}
	if err := Enroll(cfg.Socket, "a", none); err != nil {
		t.Fatal(err)
	}
	path := rpc.SecretPath(cfg.Socket, "a")
	first := secretOf(t, cfg, "a")
	if len(first) != 64 || mode(path) != 0o600 || mode(filepath.Dir(path)) != 0o700 {
		t.Errorf("%q %v %v", first, mode(path), mode(filepath.Dir(path)))
	}
	if err := Enroll(cfg.Socket, "a", none); !errors.Is(err, fs.ErrExist) || secretOf(t, cfg, "a") != first {
		t.Errorf("again: %v", err)
	}
	if err := Enroll(cfg.Socket, "a", Enrollment{Group: NoGroup, Rotate: true}); err != nil || secretOf(t, cfg, "a") == first {
		t.Errorf("rotate: %v", err)
	}
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 4712
	}
	if err := Enroll(cfg.Socket, rpc.ReaderUser("siem"), Enrollment{Group: group}); err != nil {
		t.Fatal(err)
	}
	info, _ := os.Lstat(rpc.SecretPath(cfg.Socket, rpc.ReaderUser("siem")))
	if _, gid, _ := ownerOf(info); gid != group || info.Mode().Perm() != 0o640 || mode(filepath.Dir(path)) != 0o750 || mode(path) != 0o600 {
		t.Errorf("group %d, %v", gid, info.Mode())
	}
	if err := Enroll(cfg.Socket, "b", Enrollment{Group: group + 1}); err == nil {
		t.Error("a second group shut the first one out")
	}
	for _, user := range []string{"", "a/b", "..", "a.b", agentUser} {
		if Enroll(cfg.Socket, user, none) == nil {
			t.Errorf("enrolled %q", user)
		}
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// What root enrolls for an agent without privileges belongs to the agent.
func TestEnrollForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	cfg := config(t)
	if err := os.Chown(filepath.Dir(cfg.Socket), 65534, -1); err != nil {
		t.Fatal(err)
	}
	if err := Enroll(cfg.Socket, "a", Enrollment{Group: NoGroup}); err != nil {
		t.Fatal(err)
	}
	path := rpc.SecretPath(cfg.Socket, "a")
	for _, path := range []string{path, filepath.Dir(path)} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner, _, _ := ownerOf(info); owner != 65534 {
			t.Errorf("%s belongs to %d", path, owner)
		}
	}
	if err := os.Chown(filepath.Dir(path), 65533, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecret(cfg.Socket, "a"); !errors.Is(err, ErrSecretUnsafe) {
		t.Errorf("a third user's directory: %v", err)
	}
}

func TestTCP(t *testing.T) {
	cfg := config(t)
	cfg.Listen = freePort(t)
	f := start(t, cfg)
	reader := rpc.ReaderUser("siem")
	f.enroll(t, reader, "procmond", rpc.UserOperator)
	dial := func(user, secret string) error {
		nc, err := nats.Connect("nats://"+cfg.Listen, nats.UserInfo(user, secret))
		if err == nil {
			defer nc.Close()
			_, err = nc.RTT()
		}
		return err
	}
	await(t, "listening", func() bool {
		conn, err := net.Dial("tcp", cfg.Listen)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	for _, user := range []string{reader, rpc.UserOperator} {
		if err := dial(user, secretOf(t, cfg, user)); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if err := dial(user, "wrong"); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s with a wrong secret: %v", user, err)
		}
	}
	if err := dial("procmond", secretOf(t, cfg, "procmond")); !errors.Is(err, nats.ErrAuthorization) || f.refused(ReasonNotHere) != 1 {
		t.Errorf("collector: %v", err)
	}
	if f.refused(ReasonSecret) != 2 {
		t.Errorf("%+v", f.Refusals())
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
