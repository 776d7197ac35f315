package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"daemoneye.dev/procmond/supervisor/control"
)

// TestEventFilters asks a daemon, and then the store that it leaves: both answer
// the same.
func TestEventFilters(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "3600")
	doc := d.awaitCycle(1)
	checkFilters(t, d.database, doc.Store.Epoch)
	if code := d.stop(); code != 0 {
		t.Fatalf("stop: exit %d\n%s", code, d.log)
	}
	checkFilters(t, d.database, doc.Store.Epoch)
}

func checkFilters(t *testing.T, database, epoch string) {
	t.Helper()
	other := strings.Repeat("1", 32)
	for _, c := range []struct {
		args   []string
		code   exitCode
		stdout string // what it holds; nothing is printed where it is empty
		stderr string
	}{
		{[]string{"--exe", "[", "--pid=-1", "--process", strings.Repeat("0", 32)}, exitUsage, "", "flag --exe:"},
		{[]string{"--kind", "sensor"}, exitOK, "started", ""},
		{[]string{"--kind", "sensor", "--pid", "0"}, exitOK, "", ""},
		{[]string{"--kind", "sensor", "--exe", "*"}, exitOK, "", ""},
		{[]string{"-n", "20000"}, exitOK, "started", ""},
		{[]string{"--after", epoch + ".1"}, exitOK, "start", ""},
		{[]string{"--after", other + ".1"}, exitUsage, "", "the store has epoch " + epoch + ", not " + other},
		{[]string{"--after", epoch + ".99999999"}, exitOK, "", "no event 99999999 yet: its last one is "},
	} {
		stdout, stderr, code := run(t, append([]string{"events", "--database", database}, c.args...)...)
		if code != int(c.code) || !holds(stdout, c.stdout) || !holds(stderr, c.stderr) {
			t.Errorf("%q: exit %s\n%s%s", c.args, strconv.Itoa(code), stdout, stderr)
		}
	}
}

// holds reports whether text has a part, or is as empty as that.
func holds(text, part string) bool {
	return strings.Contains(text, part) && (text == "") == (part == "")
}

// TestFollowIsFilteredByTheDaemon reads what comes over the socket: what the client
// does not want is not sent to it.
func TestFollowIsFilteredByTheDaemon(t *testing.T) {
	d := startDaemon(t, newDatabase(t), "--interval", "5")
	d.awaitCycle(1)
	path, err := control.SocketPath(d.database)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, "GET /events?follow=1&kind=exec&exe=sleep HTTP/1.1\r\nHost: procmond\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Skipf("no sleep(1): %v", err)
	}
	defer func() { _, _ = sleep.Process.Kill(), sleep.Wait() }()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Close(), response.Body.Close() }() // in this order: the body waits for its end
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		var e struct {
			Kind, Exe string
			PID       int
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if e.Kind != "exec" || filepath.Base(e.Exe) != "sleep" {
			t.Errorf("sent although nobody asked for it: %s", lines.Text())
		}
		if e.PID == sleep.Process.Pid {
			return
		}
	}
	t.Errorf("the exec was not sent: %v", lines.Err())
}
