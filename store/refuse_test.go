package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// listing maps every file below dir to its mode and content, or the file itself.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		// A lock file is empty and stays so; asking for the lock changes its time, and
		// reading one of this process would release it.
		if info.Name() == lockFile {
			files[path] = info.Mode().String()
			return nil
		}
		content := ""
		if info.Mode().IsRegular() && info.Name() != ballastFile {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		}
		files[path] = info.Mode().String() + info.ModTime().String() + content
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func compareListing(t *testing.T, before, after map[string]string) {
	t.Helper()
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("something was touched (-before +after):\n%s", d)
	}
}

func TestOpenRefusesAndTouchesNothing(t *testing.T) {
	write := func(t *testing.T, path, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    error
	}{
		{"a file", func(t *testing.T, dir string) { write(t, dir, "hello") }, ErrNotStore},
		{"a foreign directory", func(t *testing.T, dir string) { write(t, dir+"/letter.txt", "hello") }, ErrNotStore},
		{"a foreign identity", func(t *testing.T, dir string) { write(t, dir+"/STORE", "hello") }, ErrNotStore},
		{"another's database", foreignDatabase, ErrNotStore},
		{"a newer format", func(t *testing.T, dir string) {
			write(t, dir+"/STORE", `{"store":"procmond","format":2,"epoch":"00000000000000000000000000000001"}`)
		}, ErrNewerFormat},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "db")
			test.prepare(t, dir)
			before := listing(t, filepath.Dir(dir))
			c := testConfig(t, nil)
			c.Dir = dir
			if _, err := Open(t.Context(), c); !errors.Is(err, test.want) {
				t.Errorf("open: %v, want %v", err, test.want)
			}
			compareListing(t, before, listing(t, filepath.Dir(dir)))
		})
	}
}

func foreignDatabase(t *testing.T, dir string) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{Logger: panicLogger{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesNewerPebble(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir = t.TempDir() + "/db"
	mustClose(t, mustOpen(t, c), true)
	markers, err := filepath.Glob(c.Dir + "/marker.format-version.*")
	if err != nil || len(markers) != 1 {
		t.Fatal(markers, err)
	}
	i := strings.LastIndexByte(markers[0], '.')
	if err := os.Rename(markers[0], markers[0][:i]+".999"); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Dir(c.Dir))
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("open: %v", err)
	}
	compareListing(t, before, listing(t, filepath.Dir(c.Dir)))
}

func TestOpenWithoutPermission(t *testing.T) {
	// As root nothing is forbidden, so the file system says so.
	c := testConfig(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpStat {
			return &fs.PathError{Op: "stat", Path: op.Path, Err: syscall.EACCES}
		}
		return nil
	})))
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrPermission) {
		t.Errorf("open: %v", err)
	}
}

// An I/O error is not corruption: nothing is set aside.
func TestOpenWithIOError(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testConfig(t, mem))
	mustAppend(t, s, testBatch(testTime, 1))
	mustClose(t, s, false)
	for _, suffix := range []string{".log", "MANIFEST", "OPTIONS", "STORE"} {
		var hits int
		c := testConfig(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if strings.Contains(op.Path, suffix) && (op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpFileRead) {
				hits++
				return syscall.EIO
			}
			return nil
		})))
		_, err := Open(t.Context(), c)
		if !errors.Is(err, syscall.EIO) || hits == 0 {
			t.Errorf("%s: open: %v, %d faults", suffix, err, hits)
		}
		if names, _ := mem.List("."); len(names) > 1 {
			t.Fatalf("%s: set aside: %v", suffix, names)
		}
	}
	s = mustOpen(t, testConfig(t, mem))
	defer mustClose(t, s, false)
	if n := len(readAll(t, s)); n != 1 {
		t.Errorf("%d events", n)
	}
}

// latecomer is a disk on which another process makes a store between two questions.
type latecomer struct {
	vfs.FS
	makes func()
}

func (l *latecomer) List(dir string) ([]string, error) {
	if l.makes != nil {
		l.makes()
		l.makes = nil
	}
	return l.FS.List(dir)
}

// Who looks at a store while it is being made finds none, or the store.
func TestStoreIsMadeMeanwhile(t *testing.T) {
	mem := vfs.NewMem()
	c := testConfig(t, mem)
	if err := mem.MkdirAll(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := &latecomer{FS: mem, makes: func() { mustClose(t, mustOpen(t, c), true) }}
	if id, err := readIdentity(disk, c.Dir); err != nil || id.epoch().IsZero() {
		t.Errorf("found %+v: %v", id, err)
	}
}
