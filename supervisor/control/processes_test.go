package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

var tableAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// ProcessesAt of a fake daemon has as many processes as there are events, after
// some progress.
func (f *fakeDaemon) ProcessesAt(ctx context.Context, at time.Time, progress func(done, total uint64)) (*ProcessTable, error) {
	if at.Equal(tableAt.Add(-time.Hour)) {
		return nil, &BeforeRecordError{Oldest: tableAt}
	}
	if err := f.failure(0); err != nil {
		return nil, err
	}
	if f.rebuilding != nil {
		f.rebuilding <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	events, _ := f.snapshot()
	t := &ProcessTable{At: at, AsOf: tableAt, Gaps: []event.Loss{{Cause: event.LossDown, To: tableAt, Hint: "none"}}}
	for _, e := range events {
		t.Processes = append(t.Processes, TableProcess{Process: &e.Process})
	}
	if len(t.Processes) > 0 {
		t.Processes[0].Doubts = []Doubt{DoubtSeenLater, DoubtEndLost}
	}
	return t, nil
}

// tableText collects what a reader is told.
func tableText(t *testing.T, c *Client, at time.Time) (head TableHead, lines []string, err error) {
	t.Helper()
	err = c.Processes(t.Context(), at, TableReader{
		Progress: func(done, total uint64) { lines = append(lines, fmt.Sprintf("%d of %d", done, total)) },
		Table:    func(h TableHead) error { head = h; return nil },
		Process: func(process []byte, doubts []Doubt) error {
			pid, _, _ := strings.Cut(string(process), ",")
			lines = append(lines, fmt.Sprint(pid, doubts))
			return nil
		},
	})
	return head, lines, err
}

func TestProcesses(t *testing.T) {
	r := serve(t, func(*Config) {})
	r.daemon.growBy(3, strings.Repeat("x", 600<<10)) // more than a chunk
	head, lines, err := tableText(t, r.client, tableAt)
	if err != nil {
		t.Fatal(err)
	}
	want := TableHead{At: &tableAt, AsOf: &tableAt, Processes: 3, Gaps: []TableGap{{Cause: "down", To: &tableAt, Hint: "none"}}}
	if diff := cmp.Diff(want, head); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if len(lines) != 3 || !strings.Contains(lines[0], "[seen_later end_lost]") || !strings.Contains(lines[2], "[]") {
		t.Errorf("processes: %q", lines)
	}
	if head, lines, err = tableText(t, r.client, time.Time{}); err != nil || head.At != nil || len(lines) != 3 {
		t.Errorf("of now: %+v, %d processes, %v", head, len(lines), err)
	}
}

// TestProcessesAreAsInEvents: to the byte.
func TestProcessesAreAsInEvents(t *testing.T) {
	r := serve(t, nil)
	r.daemon.growBy(1, "/bin/<a>&\x1b\"\\\xff\u2028ä")
	events, _ := r.daemon.snapshot()
	want := string(event.AppendProcessJSON(nil, &events[0].Process))
	err := r.client.Processes(t.Context(), time.Time{}, TableReader{
		Table: func(TableHead) error { return nil },
		Process: func(process []byte, _ []Doubt) error {
			if string(process) != want {
				t.Errorf("got %s, want %s", process, want)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessesRefusals(t *testing.T) {
	r := serve(t, func(*Config) {})
	var early *BeforeRecordError
	if _, _, err := tableText(t, r.client, tableAt.Add(-time.Hour)); !errors.As(err, &early) || !early.Oldest.Equal(tableAt) {
		t.Errorf("too early: %v", err)
	}
	r.daemon.fail(0, fmt.Errorf("%w: disk is full", ErrUnavailable))
	if _, _, err := tableText(t, r.client, tableAt); !errors.Is(err, ErrUnavailable) {
		t.Errorf("out of service: %v", err)
	}
	for _, query := range []string{"at=yesterday", "at=2026-03-01T12:00:00Z&at=2026-03-01T12:00:00Z", "when=now", "at=%zz"} {
		response, err := r.client.http.Get("http://procmond/processes?" + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", query, response.Status)
		}
	}
}

// TestProcessesOfFewAtOnce: rebuilding takes a core, so there is a limit; it does not
// hold for the table of now, and who goes away gives the place back.
func TestProcessesOfFewAtOnce(t *testing.T) {
	r := serve(t, func(*Config) {})
	began := make(chan struct{})
	r.daemon.rebuilding = began
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	for range r.limits.rebuilds {
		go func() {
			ended <- r.client.Processes(ctx, tableAt, TableReader{})
		}()
		<-began
	}
	if _, _, err := tableText(t, r.client, tableAt); !errors.Is(err, ErrBusy) {
		t.Errorf("above the limit: %v", err)
	}
	cancel()
	for range r.limits.rebuilds {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
	for len(r.rebuilds) > 0 {
		if err := r.client.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTableThatBreaksOff is not taken for a whole one.
func TestTableThatBreaksOff(t *testing.T) {
	none := TableReader{
		Progress: func(uint64, uint64) {},
		Table:    func(TableHead) error { return nil },
		Process:  func([]byte, []Doubt) error { return nil },
	}
	const head = `{"table":{"at":null,"as_of":null,"processes":2,"gaps":[]}}` + "\n"
	const process = `{"process":{"pid":1}}` + "\n"
	for text, whole := range map[string]bool{
		"": false, head: false, head + process: false, head + process + process[:5]: false,
		head + process + process: true, `{"progress":{"done":1,"total":9}}` + "\n" + head + process + process: true,
	} {
		if err := readTable(strings.NewReader(text), none); (err == nil) != whole || err != nil && !errors.Is(err, ErrBrokenOff) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
