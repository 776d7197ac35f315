package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"daemoneye.dev/procmond/cmd/internal/cli"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/supervisor/control"
)

// scriptedDaemon answers each request for events by the next step of its script.
type scriptedDaemon struct {
	t     *testing.T
	epoch event.Epoch
	// steps is received from by the handler; the test fills it before it begins.
	steps  chan func(w http.ResponseWriter, q url.Values)
	server *http.Server
	path   string
	asked  []url.Values // by the handler, one request at a time
}

// newScriptedDaemon returns it with the database it pretends to serve.
func newScriptedDaemon(t *testing.T, steps ...func(w http.ResponseWriter, q url.Values)) (d *scriptedDaemon, database string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "events") // t.TempDir may pass the limit of a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	database = filepath.Join(dir, "p.db")
	path, err := control.SocketPath(database)
	if err != nil {
		t.Fatal(err)
	}
	d = &scriptedDaemon{t: t, epoch: event.Epoch{1}, steps: make(chan func(http.ResponseWriter, url.Values), len(steps)), path: path}
	for _, step := range steps {
		d.steps <- step
	}
	d.start()
	t.Cleanup(func() { _ = d.server.Close() })
	return d, database
}

func (d *scriptedDaemon) start() {
	l, err := net.Listen("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ping", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		d.asked = append(d.asked, r.URL.Query())
		(<-d.steps)(w, r.URL.Query())
	})
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(d.server)
}

// send gives the events from..to, and then breaks off or not.
func (d *scriptedDaemon) send(from, to uint64, breakOff bool) func(http.ResponseWriter, url.Values) {
	return func(w http.ResponseWriter, _ url.Values) {
		for seq := from; seq <= to; seq++ {
			_, _ = fmt.Fprintf(w, `{"seq":%d,"epoch":%q}`+"\n", seq, d.epoch.String())
		}
		if breakOff {
			_, _ = fmt.Fprintf(w, `{"seq":%d,"epo`, to+1) // in the middle of a line
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
}

// reading collects what a reader shows and says.
type reading struct {
	eventReader
	seqs  []string
	notes []string
}

func newReading(database string, q control.Query) *reading {
	r := &reading{eventReader: eventReader{places: []string{database}, query: q, every: time.Millisecond}}
	r.check = func(context.Context, *control.Client, control.Query) error { return nil }
	r.show = func(line []byte) error {
		_, rest, _ := strings.Cut(string(line), `"seq":`)
		seq, _, _ := strings.Cut(rest, ",")
		r.seqs = append(r.seqs, seq)
		return nil
	}
	r.note = func(text string) { r.notes = append(r.notes, text) }
	return r
}

func (r *reading) want(t *testing.T, from, to int) {
	t.Helper()
	var want []string
	for i := from; i <= to; i++ {
		want = append(want, strconv.Itoa(i))
	}
	if !slices.Equal(r.seqs, want) {
		t.Errorf("shown %v, want %v", r.seqs, want)
	}
}

func TestReaderGoesOnWhereItWasBrokenOff(t *testing.T) {
	var d *scriptedDaemon
	late := func(from, to uint64, breakOff bool) func(http.ResponseWriter, url.Values) {
		return func(w http.ResponseWriter, q url.Values) { d.send(from, to, breakOff)(w, q) }
	}
	d, database := newScriptedDaemon(t, late(1, 2, true), late(3, 3, true), late(4, 5, false))
	r := newReading(database, control.Query{})
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.want(t, 1, 5)
	if q := d.asked[2]; q.Get("after") != "3" || q.Get("after_epoch") != d.epoch.String() {
		t.Errorf("asked last for %v", q)
	}
}

func TestReaderOfTheNewestAsksForTheRest(t *testing.T) {
	var d *scriptedDaemon
	d, database := newScriptedDaemon(t,
		func(w http.ResponseWriter, q url.Values) { d.send(6, 7, true)(w, q) },
		func(w http.ResponseWriter, q url.Values) { d.send(8, 9, true)(w, q) },
		func(w http.ResponseWriter, q url.Values) { d.send(10, 10, true)(w, q) })
	r := newReading(database, control.Query{Newest: true, Limit: 5})
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.want(t, 6, 10)
	if q := d.asked[2]; q.Get("limit") != "1" || q.Get("newest") != "" || q.Get("after") != "9" {
		t.Errorf("asked last for %v", q)
	}
}

func TestReaderGivesUpWithoutProgress(t *testing.T) {
	var d *scriptedDaemon
	d, database := newScriptedDaemon(t,
		func(w http.ResponseWriter, q url.Values) { d.send(1, 2, true)(w, q) },
		func(w http.ResponseWriter, q url.Values) { d.send(1, 0, true)(w, q) })
	r := newReading(database, control.Query{})
	err := r.run(t.Context())
	if !errors.Is(err, control.ErrBrokenOff) || hintFor(err) != "Go on with --after "+d.epoch.String()+".2." {
		t.Errorf("%v, hint %q", err, hintFor(err))
	}
}

func TestFollowerWaitsForTheNextDaemon(t *testing.T) {
	var d *scriptedDaemon
	stop := errors.New("enough")
	d, database := newScriptedDaemon(t,
		func(w http.ResponseWriter, q url.Values) {
			_ = os.Remove(d.path) // as a daemon that ends does
			d.send(1, 2, true)(w, q)
		},
		func(w http.ResponseWriter, _ url.Values) { w.WriteHeader(http.StatusServiceUnavailable) },
		func(w http.ResponseWriter, q url.Values) { d.send(3, 4, true)(w, q) })
	r := newReading(database, control.Query{Follow: true, Newest: true, Limit: 2})
	show := r.show
	r.show = func(line []byte) error {
		_ = show(line)
		if len(r.seqs) == 4 {
			return stop
		}
		return nil
	}
	note := r.note
	r.note = func(text string) {
		if note(text); strings.Contains(text, "gone") && len(r.notes) == 1 {
			_ = d.server.Close()
			d.start()
		}
	}
	if err := r.run(t.Context()); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	r.want(t, 1, 4)
	if got := strings.Join(r.notes, "; "); got != "the daemon has gone; waiting for it (Ctrl-C ends); the daemon is back" {
		t.Error(got)
	}
	if q := d.asked[len(d.asked)-1]; q.Get("limit") != "" || q.Get("newest") != "" || q.Get("after") != "2" {
		t.Errorf("asked last for %v", q)
	}
}

// A follower whose filter has matched nothing so far misses nothing over a restart.
func TestFollowerWithNothingShownGoesOn(t *testing.T) {
	for name, q := range map[string]control.Query{
		"newest": {Follow: true, Newest: true, Limit: 1, Exe: "x"},
		"all":    {Follow: true, Exe: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			var d *scriptedDaemon
			stop := errors.New("enough")
			d, database := newScriptedDaemon(t,
				func(w http.ResponseWriter, q url.Values) {
					w.Header().Set("Procmond-Epoch", d.epoch.String())
					w.Header().Set("Procmond-Head", "41")
					d.send(1, 0, true)(w, q)
				},
				func(w http.ResponseWriter, q url.Values) { d.send(42, 44, true)(w, q) })
			r := newReading(database, q)
			show := r.show
			r.show = func(line []byte) error {
				_ = show(line)
				if len(r.seqs) == 3 {
					return stop
				}
				return nil
			}
			if err := r.run(t.Context()); !errors.Is(err, stop) {
				t.Fatal(err)
			}
			r.want(t, 42, 44)
			asked := d.asked[1]
			if asked.Get("newest") != "" || asked.Get("after_epoch") != d.epoch.String() || name == "newest" && asked.Get("after") != "41" {
				t.Errorf("asked for %v", asked)
			}
		})
	}
}

func TestReaderTellsOfAnotherStore(t *testing.T) {
	var d *scriptedDaemon
	d, database := newScriptedDaemon(t,
		func(w http.ResponseWriter, q url.Values) { d.send(1, 2, true)(w, q) },
		func(w http.ResponseWriter, _ url.Values) { w.WriteHeader(http.StatusConflict) },
		func(w http.ResponseWriter, q url.Values) { d.send(1, 3, false)(w, q) })
	r := newReading(database, control.Query{})
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.seqs, " "); got != "1 2 1 2 3" || len(r.notes) != 1 || !strings.Contains(r.notes[0], "another store") {
		t.Errorf("shown %s, notes %q", got, r.notes)
	}
}

// TestBrokenPipeToTheDaemonIsAnError: only that of standard output is none.
func TestBrokenPipeToTheDaemonIsAnError(t *testing.T) {
	if err := fmt.Errorf("ask daemon: %w", syscall.EPIPE); cli.ReaderLeft(err) || exitCodeOf(err) == exitOK {
		t.Error("taken for the reader's")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer func() { _ = w.Close() }()
	err = cli.Write(w, "text")
	if !cli.ReaderLeft(err) || exitCodeOf(err) != exitOK {
		t.Errorf("%v is not taken for a reader that left", err)
	}
	if code := (invocation{args: []string{"--help"}, stdout: w, stderr: os.Stderr}).main(); code != exitOK {
		t.Errorf("help without a reader: exit %d", code)
	}
}
