package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
	"daemoneye.dev/procmond/supervisor/control"
)

func TestAskDaemon(t *testing.T) {
	forbidden := fmt.Errorf("ask: %w", control.ErrForbidden)
	nobody := fmt.Errorf("ask: %w", control.ErrNotListening)
	broken := errors.New("broken answer")
	for name, c := range map[string]struct {
		answers []error
		want    error
		asked   int
	}{
		"the first has one":            {[]error{nil, nil}, nil, 1},
		"the second has one":           {[]error{nobody, nil}, nil, 2},
		"a forbidden one is passed":    {[]error{forbidden, nil}, nil, 2},
		"none":                         {[]error{nobody, nobody}, control.ErrNotListening, 2},
		"none but a forbidden one":     {[]error{forbidden, nobody}, control.ErrForbidden, 2},
		"a broken one ends the search": {[]error{nobody, broken, nil}, broken, 2},
	} {
		dir, asked := t.TempDir(), 0
		places := make([]string, len(c.answers))
		for i := range places {
			places[i] = filepath.Join(dir, fmt.Sprint(i))
		}
		err := askDaemon(places, func(place string, _ *control.Client) error {
			asked++
			if place != places[asked-1] {
				t.Errorf("%s: asked %s, want %s", name, place, places[asked-1])
			}
			return c.answers[asked-1]
		})
		if !errors.Is(err, c.want) || asked != c.asked {
			t.Errorf("%s: %v after %d, want %v after %d", name, err, asked, c.want, c.asked)
		}
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(there, "processes.db") // below a file: nothing can be there
	place, readable, err := existing([]string{filepath.Join(dir, "missing"), below, there})
	if place != there || !readable || err != nil {
		t.Errorf("%s %v %v", place, readable, err)
	}
	_, _, err = existing([]string{below})
	if exitCodeOf(err) != exitNotRunning {
		t.Errorf("nothing is there: %v", err)
	}
}

func TestDatabasePlaces(t *testing.T) {
	p := invocation{environ: []string{
		"STATE_DIRECTORY=/run/state/a:/run/state/b", "XDG_STATE_HOME=relative", "HOME=/home/u", "HOME=/home/v",
	}}
	want := []string{"/run/state/a/processes.db", "/var/lib/daemoneye/processes.db", "/home/v/.local/state/daemoneye/processes.db"}
	if diff := cmp.Diff(want, p.databasePlaces()); diff != "" {
		t.Error(diff)
	}
	own := t.TempDir()
	p.environ = []string{"STATE_DIRECTORY=" + own}
	if got, err := p.daemonDatabase(new(settings.Values)); err != nil || got != filepath.Join(own, databaseName) {
		t.Errorf("%s %v", got, err)
	}
}

func TestKeptHostID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db.host-id")
	first, err := keptHostID(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := keptHostID(path); err != nil || again != first {
		t.Errorf("%s is %s the next time (%v)", first, again, err)
	}
	if err := os.WriteFile(path, []byte("no such id!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keptHostID(path); err == nil {
		t.Error("nonsense is taken for a host id")
	}
}
