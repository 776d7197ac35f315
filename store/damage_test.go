package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lastLogOf returns the name, number and content of the log a dead store was
// written to last.
func lastLogOf(t *testing.T, dir string) (name string, number uint32, data []byte) {
	t.Helper()
	name, _ = lastLog(names(t, dir))
	n, ok := logNumber(name)
	if !ok {
		t.Fatalf("no log among %v", names(t, dir))
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return name, uint32(n), data
}

// killedStore is a store with this many events that was killed.
func killedStore(t *testing.T, events uint64) string {
	t.Helper()
	c := testConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	for n := range events {
		mustAppend(t, s, testBatch(testTime, n+1))
	}
	dir := copyStore(t, c.Dir)
	mustClose(t, s, false)
	return dir
}

// copyStore copies the files of a store.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "db")
	err := os.Mkdir(to, 0o700)
	for _, name := range names(t, dir) {
		switch {
		case err != nil:
		case name == lockFile: // reading it would release this process's lock
			err = os.WriteFile(filepath.Join(to, name), nil, 0o600)
		case name != ballastFile:
			err = copyFile(filepath.Join(dir, name), filepath.Join(to, name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

func scan(t *testing.T, data []byte, number uint32) int64 {
	t.Helper()
	bad, err := scanLog(bytes.NewReader(data), number)
	if err != nil {
		t.Fatal(err)
	}
	return bad
}

// chunksOf returns which bytes of a sound log belong to chunks, and up to where the
// log says that it was durable.
func chunksOf(data []byte, number uint32) (inChunk []bool, promised int) {
	inChunk = make([]bool, len(data))
	for base := 0; base < len(data); base += logBlock {
		block := data[base:min(base+logBlock, len(data))]
		for at := 0; at < len(block); {
			size, durable, ok := parseChunk(block[at:], number)
			if !ok {
				break
			}
			promised = max(promised, int(durable))
			for i := range size {
				inChunk[base+at+i] = true
			}
			at += size
		}
	}
	return inChunk, promised
}

// TestLogDamage changes the bytes of a log, of one block and of several, one at a
// time. Each is found that the log says was durable.
func TestLogDamage(t *testing.T) {
	for _, events := range []uint64{5, 400} {
		_, number, data := lastLogOf(t, killedStore(t, events))
		if bad := scan(t, data, number); bad >= 0 {
			t.Fatalf("%d events: the sound log is damaged at %d", events, bad)
		}
		inChunk, promised := chunksOf(data, number)
		if promised == 0 || events > 100 && promised < len(data)*9/10 {
			t.Errorf("%d events: only %d of %d bytes are known to be durable", events, promised, len(data))
		}
		for at := 0; at < promised; at += 1 + len(data)/1500 {
			data[at] ^= 0x55
			bad := scan(t, data, number)
			data[at] ^= 0x55
			if inChunk[at] && (bad < 0 || bad > int64(at)) {
				t.Errorf("%d events: damage at %d of %d is found at %d", events, at, len(data), bad)
			}
		}
	}
}

// TestUsedLogsAreSound kills a store again and again that uses its log files again.
func TestUsedLogsAreSound(t *testing.T) {
	c := testConfig(t, nil)
	c.Dir, c.memTable = filepath.Join(t.TempDir(), "db"), 64<<10
	s := mustOpen(t, c)
	defer mustClose(t, s, true)
	for n := range uint64(1000) {
		mustAppend(t, s, testBatch(testTime, n+1))
		if n%50 != 0 {
			continue
		}
		if err := checkFiles(vfs.Default, c.Dir, s.session.ident); err != nil {
			t.Fatalf("after %d events: %v", n+1, err)
		}
	}
}

// TestTornLogIsNotDamaged cuts a log anywhere and puts there what a crash may
// leave: nothing, zeros, noise, or the records of the file's use before.
func TestTornLogIsNotDamaged(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, seed))
	_, number, data := lastLogOf(t, killedStore(t, 400))
	_, other, old := lastLogOf(t, killedStore(t, 500))
	if other != number {
		t.Fatalf("logs %d and %d", number, other)
	}
	for range 500 {
		cut := r.IntN(len(data))
		noise := make([]byte, r.IntN(2*logBlock))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		for what, tail := range map[string][]byte{"nothing": nil, "zeros": make([]byte, 3*logBlock), "noise": noise} {
			if bad := scan(t, append(data[:cut:cut], tail...), number); bad >= 0 {
				t.Fatalf("seed %d: cut at %d, then %s: damaged at %d", seed, cut, what, bad)
			}
		}
		// A log that is used again has a new number; here the old one has it.
		if bad := scan(t, append(data[:cut:cut], old[cut:]...), number+1); bad >= 0 {
			t.Fatalf("seed %d: cut at %d, then old records: damaged at %d", seed, cut, bad)
		}
	}
}

// TestOpenSetsAsideWhatPebblePassesOver damages a store that has most of its events
// in tables and the last ones in the log.
func TestOpenSetsAsideWhatPebblePassesOver(t *testing.T) {
	sound := tabledStore(t, 300, 20)
	log, _, _ := lastLogOf(t, sound)
	table := firstNamed(t, sound, ".sst")
	for name, damage := range map[string]func(dir string) error{
		"name of MANIFEST lost": func(dir string) error { return os.Remove(firstNamed(t, dir, "marker.manifest")) },
		"MANIFEST lost":         func(dir string) error { return os.Remove(firstNamed(t, dir, "MANIFEST-")) },
		"format lost":           func(dir string) error { return os.Remove(firstNamed(t, dir, "marker.format")) },
		"table lost":            func(dir string) error { return os.Remove(filepath.Join(dir, filepath.Base(table))) },
		"table cut":             func(dir string) error { return os.Truncate(filepath.Join(dir, filepath.Base(table)), 100) },
		"log damaged":           func(dir string) error { return flip(filepath.Join(dir, log), 700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyStore(t, sound)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			left := names(t, dir)
			v, err := Verify(t.Context(), dir, nil)
			if err != nil || v.OK() {
				t.Errorf("verify: %+v, %v", v, err)
			}
			in, err := Inspect(t.Context(), dir)
			if err != nil || in.Damage == "" || strings.Contains(in.Damage, "\n") || in.Stats.Epoch.IsZero() {
				t.Errorf("inspect: %+v, %v", in, err)
			}
			c := testConfig(t, nil)
			c.Dir = dir
			s := mustOpen(t, c)
			aside := s.Stats().QuarantinedTo
			mustClose(t, s, true)
			if aside == "" {
				t.Fatal("the damaged store was used")
			}
			if now := names(t, aside); fmt.Sprint(now) != fmt.Sprint(left) {
				t.Errorf("set aside are %v of %v", now, left)
			}
		})
	}
}

// tabledStore is a store that did not end in order, with events in tables and more in
// the log.
func tabledStore(t *testing.T, tabled, logged uint64) string {
	t.Helper()
	c := testConfig(t, nil)
	c.Dir = filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, c)
	var ns []uint64
	for n := range tabled {
		ns = append(ns, n+1)
	}
	for batch := range slices.Chunk(ns, 500) {
		mustAppend(t, s, testBatch(testTime, batch...))
	}
	if err := s.session.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.session.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	for n := range logged {
		mustAppend(t, s, testBatch(testTime, tabled+n+1))
	}
	mustClose(t, s, false)
	return c.Dir
}

// firstNamed returns the path of the last file in dir with this in its name.
func firstNamed(t *testing.T, dir, part string) (path string) {
	t.Helper()
	for _, name := range names(t, dir) {
		if strings.Contains(name, part) {
			path = filepath.Join(dir, name)
		}
	}
	if path == "" {
		t.Fatalf("nothing like %s among %v", part, names(t, dir))
	}
	return path
}

func flip(path string, at int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 0x55
	return os.WriteFile(path, data, 0o600)
}

// TestDirectoryThatHoldsNothingYet is what a daemon leaves that was killed before
// it had made its database: no damage.
func TestDirectoryThatHoldsNothingYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	if err := errors.Join(os.Mkdir(dir, 0o700), newIdentity().write(vfs.Default, dir)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	if in, err := Inspect(t.Context(), dir); err != nil || in.Damage != "" || in.Stats.Head != 0 || in.Stats.Epoch.IsZero() {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	if v, err := Verify(t.Context(), dir, nil); err != nil || !v.OK() || v.Events != 0 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	compareListing(t, before, listing(t, dir))
	c := testConfig(t, nil)
	c.Dir = dir
	s := mustOpen(t, c)
	if s.Stats().QuarantinedTo != "" {
		t.Error("it was set aside")
	}
	mustClose(t, s, true)
}

// TestDamagedIdentityEmptiesNothing changes each bit of the file that says whose
// directory it is. The store is refused, set aside, or used with all its events.
func TestDamagedIdentityEmptiesNothing(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := mustOpen(t, testConfig(t, mem))
	fiveMinutes(t, s)
	mustClose(t, s, true)
	sound, err := readFile(mem, "db/"+identityFile)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(sound) {
		form := bytes.Clone(sound)
		form[bit/8] ^= 1 << (bit % 8)
		damaged := mem.CrashClone(vfs.CrashCloneCfg{})
		if err := writeFile(damaged, "db/"+identityFile, form); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), testConfig(t, damaged))
		if err != nil {
			continue
		}
		if st := s.Stats(); st.Head != 5 && st.QuarantinedTo == "" {
			t.Errorf("bit %d: head %d of 5, with the identity %q", bit, st.Head, form)
		}
		mustClose(t, s, true)
	}
}

// TestUnfinishedStoreIsEmpty reads a store that a power cut left half made.
func TestUnfinishedStoreIsEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	if err := errors.Join(os.Mkdir(dir, 0o700), newIdentity().write(vfs.Default, dir),
		os.WriteFile(filepath.Join(dir, "000002.log"), []byte("torn"), 0o600), os.WriteFile(filepath.Join(dir, "MANIFEST-000001"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if in, err := Inspect(t.Context(), dir); err != nil || in.Damage != "" || in.Stats.Head != 0 {
		t.Errorf("inspect: %+v, %v", in, err)
	}
	if v := mustVerify(t, dir); !v.OK() || v.Events != 0 {
		t.Errorf("verify: %+v", v)
	}
}
