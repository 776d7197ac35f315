package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

func mustVerify(t *testing.T, dir string) *Verification {
	t.Helper()
	v, err := Verify(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVerifyFindsDamageInEveryFile damages each file of a store that has most of its
// events in tables. Each time it is found, or all is still there; only a log that
// lost its end leaves less, and what it leaves is sound.
func TestVerifyFindsDamageInEveryFile(t *testing.T) {
	const seed = 5
	r := rand.New(rand.NewPCG(seed, seed))
	dir := tabledStore(t, 300, 20)
	want := mustVerify(t, dir)
	if !want.OK() || want.Events != 320 || want.Processes != 320 {
		t.Fatalf("the sound store: %+v", want)
	}
	for _, name := range names(t, dir) {
		if name == lockFile {
			continue
		}
		path := filepath.Join(dir, name)
		sound, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		forms := damagedForms(r, sound)
		for what, form := range forms {
			err := os.RemoveAll(path)
			if form != nil && err == nil {
				err = os.WriteFile(path, form, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			v, err := Verify(t.Context(), dir, nil)
			if err != nil || !v.OK() {
				found++
				continue
			}
			least := uint64(300)
			if strings.HasPrefix(what, "changed") {
				least = 317 // nothing but the last records: of them no later one says that they are durable
			}
			torn := filepath.Ext(name) == ".log" && v.Events >= least && v.Events == v.LastSeq && v.Processes == v.Events
			if (v.Events != 320 || v.Processes != 320) && !torn {
				t.Errorf("seed %d: %s, %s, is not found: %+v", seed, name, what, v)
			}
		}
		t.Logf("%s: %d of %d damages found", name, found, len(forms))
		if err := os.WriteFile(path, sound, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := mustVerify(t, dir)
	got.Stats.Bytes = want.Stats.Bytes // what was allocated in advance was not written back
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("at the end (-want +got):\n%s", d)
	}
	if left := names(t, filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// damagedForms are damaged forms of a file; nil is a file that is gone.
func damagedForms(r *rand.Rand, sound []byte) map[string][]byte {
	forms := map[string][]byte{"gone": nil}
	if len(sound) == 0 {
		return forms
	}
	forms["empty"] = []byte{}
	for range 3 {
		n := r.IntN(len(sound))
		forms[fmt.Sprintf("cut to %d of %d", n, len(sound))] = sound[:n:n]
	}
	for i := range 40 {
		at := len(sound) - 1 - i // the end of tables and logs is intricate
		if i >= 15 || at < 0 {
			at = r.IntN(len(sound))
		}
		form := append([]byte(nil), sound...)
		form[at] ^= 1 << r.IntN(8)
		forms[fmt.Sprintf("changed at %d of %d", at, len(sound))] = form
	}
	return forms
}

// TestVerifyReadsOnBehindDamage damages one block of events in the middle.
func TestVerifyReadsOnBehindDamage(t *testing.T) {
	const events = 2000
	dir := tabledStore(t, events, 1)
	table := biggest(t, dir, ".sst")
	data, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	if err := flip(table, len(data)/4); err != nil {
		t.Fatal(err)
	}
	var told [2]uint64
	v, err := Verify(t.Context(), dir, func(done, total uint64) { told = [2]uint64{done, total} })
	if err != nil {
		t.Fatal(err)
	}
	if v.OK() || !v.Readable || v.FirstSeq != 1 || v.LastSeq != events+1 || v.Events < events*9/10 || v.Events > events {
		t.Errorf("%+v", v)
	}
	var from, to uint64
	for _, p := range v.Problems {
		if n, _ := fmt.Sscanf(p.Where, "events %d to %d", &from, &to); n == 2 {
			break
		}
	}
	if to == 0 || to-from+1 != events+1-v.Events {
		t.Errorf("%d events were read, and the problems are %v", v.Events, v.Problems)
	}
	if told != [2]uint64{v.Events, events + 1} {
		t.Errorf("progress ended with %v", told)
	}
	if text := fmt.Sprint(v.Problems); strings.Contains(text, copyPrefix(dir)) || strings.Contains(text, "\n") {
		t.Errorf("problems speak of the copy, or at length: %q", text)
	}
}

func biggest(t *testing.T, dir, ext string) (path string) {
	t.Helper()
	var size int64
	for _, name := range names(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ext && info.Size() > size {
			path, size = filepath.Join(dir, name), info.Size()
		}
	}
	return path
}

func TestVerifyAccountsForAbsentEvents(t *testing.T) {
	for name, test := range map[string]struct {
		gaps, lost []span
		want       []string
	}{
		"none":      {nil, []span{{1, 9}}, nil},
		"one":       {[]span{{3, 5}}, []span{{3, 5}}, nil},
		"not":       {[]span{{3, 5}}, nil, []string{"3 to 5 0"}},
		"wider":     {[]span{{3, 5}, {7, 9}}, []span{{2, 9}}, nil},
		"adjoining": {[]span{{3, 9}}, []span{{6, 9}, {3, 5}}, nil},
		"start":     {[]span{{3, 9}}, []span{{5, 9}}, []string{"3 to 4 0"}},
		"end":       {[]span{{3, 9}}, []span{{3, 7}}, []string{"8 to 9 0"}},
		"middle":    {[]span{{3, 9}}, []span{{3, 4}, {8, 9}}, []string{"5 to 7 0"}},
		"twice":     {[]span{{3, 9}}, []span{{3, 7}, {5, 9}}, []string{"5 to 7 2"}},
		"others":    {[]span{{3, 3}, {8, 8}}, []span{{1, 1}, {5, 6}, {8, 8}}, []string{"3 to 3 0"}},
		"endless":   {[]span{{3, 3}}, []span{{3, ^uint64(0)}, {5, 4}}, []string{"3 to 3 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier{Verification: new(Verification), gaps: test.gaps, lost: test.lost}
			v.account()
			var got []string
			for _, p := range v.Problems {
				var from, to uint64
				var n int
				_, err := fmt.Sscanf(p.String(), "events %d to %d: are missing, and %d loss", &from, &to, &n)
				if err != nil {
					t.Fatalf("%v: %v", p, err)
				}
				got = append(got, fmt.Sprintf("%d to %d %d", from, to, n))
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// change writes to a store behind its back.
func change(t *testing.T, dir string, fn func(*pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open(dir, readWriteOptions(vfs.Default, nil, memTableSize, panicLogger{}, quietListener()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fn(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyAfterRetentionAndClockSteps removes old events of a store whose clock
// was set back and forth: the time index then has fewer entries than minutes, and
// later ones for some, and leads to every event all the same.
func TestVerifyAfterRetentionAndClockSteps(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, seed))
		c := testConfig(t, nil)
		c.Dir, c.Owed = filepath.Join(t.TempDir(), "db"), false
		s := mustOpen(t, c)
		minute := 100
		for n := range uint64(60) {
			minute = max(0, minute+r.IntN(7)-3)
			mustAppend(t, s, testBatch(testTime.Add(time.Duration(minute)*time.Minute), n+1))
			if n%20 == 19 {
				minutes, err := readMinutes(s.session.db)
				if err == nil {
					err = s.removeBelow(s.session, s.Stats().Floor+r.Uint64N(15), minutes)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		floor := s.Stats().Floor
		mustClose(t, s, true)
		if v := mustVerify(t, c.Dir); !v.OK() || v.FirstSeq != floor || v.LastSeq != 60 {
			t.Errorf("seed %d: floor %d, %+v", seed, floor, v)
		}
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	dir := tabledStore(t, 2*progressEvery, 1)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Verify(ctx, dir, func(uint64, uint64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := names(t, filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
