package control

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestSocketPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", "/tmp")
	if err := os.Mkdir(dir+"/real", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	direct, err := SocketPath(dir + "/real/db")
	if err != nil {
		t.Fatal(err)
	}
	linked, err := SocketPath(dir + "/link/db")
	if err != nil || linked != direct {
		t.Errorf("two ways to one database have two sockets: %s and %s, %v", direct, linked, err)
	}
	long, err := SocketPath(dir + "/" + strings.Repeat("d", 120) + "/db")
	if err != nil || len(long) > maxSocketPath() || !strings.HasPrefix(long, "/tmp/procmond-") {
		t.Errorf("long path: %q (%d bytes), %v", long, len(long), err)
	}
	other, _ := SocketPath(dir + "/" + strings.Repeat("d", 120) + "/db2")
	if other == long {
		t.Error("two databases share a socket")
	}
}

func TestPrivateDirectoryIsChecked(t *testing.T) {
	dir := t.TempDir()
	if err := ensurePrivate(dir + "/new"); err != nil {
		t.Errorf("a new one: %v", err)
	}
	if err := os.Mkdir(dir+"/open", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/new", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "link"} {
		if err := ensurePrivate(dir + "/" + name); err == nil {
			t.Errorf("%s is trusted", name)
		}
	}
}

// farDatabase is a database whose path leaves no room for a socket, in an
// environment with nothing but a short temporary directory, which it returns.
func farDatabase(t *testing.T) (database, temporary string) {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	short, err := os.MkdirTemp("/tmp", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	t.Setenv("TMPDIR", short)
	database = filepath.Join(short, strings.Repeat("d", 120), "db")
	if err := os.MkdirAll(database, 0o700); err != nil {
		t.Fatal(err)
	}
	return database, short
}

func TestEnvironmentNamesTheDirectory(t *testing.T) {
	database, short := farDatabase(t)
	for _, c := range []struct{ runtime, xdg, want string }{
		{"/r/one:/r/two", "/x", "/r/one/procmond"},
		{"", "/x", "/x/procmond"},
		{"relative", "", short + "/procmond-" + strconv.Itoa(os.Geteuid())},
		{"/" + strings.Repeat("long", 30), "/x", "/x/procmond"},
	} {
		t.Setenv("RUNTIME_DIRECTORY", c.runtime)
		t.Setenv("XDG_RUNTIME_DIR", c.xdg)
		if got, err := SocketPath(database); err != nil || filepath.Dir(got) != c.want {
			t.Errorf("with %q and %q: %s, %v; want a socket in %s", c.runtime, c.xdg, got, err, c.want)
		}
	}
}

// TestSocketIsFoundInAnotherEnvironment: a daemon without a runtime directory is
// found by a client that has one.
func TestSocketIsFoundInAnotherEnvironment(t *testing.T) {
	database, short := farDatabase(t)
	made, err := SocketPath(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("XDG_RUNTIME_DIR", short)
	if found, err := SocketPath(database); err != nil || found != made {
		t.Errorf("found %s, %v; want %s", found, err, made)
	}
	if err := os.Chmod(filepath.Dir(made), 0o777); err != nil {
		t.Fatal(err)
	}
	if found, err := SocketPath(database); !errors.Is(err, errForeignDir) {
		t.Errorf("a socket that anybody could have made: %s, %v", found, err)
	}
}
