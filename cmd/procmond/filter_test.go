package main

import (
	"strconv"
	"strings"
	"testing"
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
