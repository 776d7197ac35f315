package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/cmd/procmond/internal/doctor"
)

func TestDoctorText(t *testing.T) {
	r := &doctor.Report{Status: doctor.Fail, Checks: []doctor.Check{
		{Name: "kernel", Status: doctor.Pass, Finding: "Linux 6.1\x1b[2J."},
		{Name: "memory limit", Status: doctor.Fail, Finding: "The control group /a allows 32 MiB and not a byte more.", Cost: "Death.", Mend: "raise it"},
		{Name: "clock", Status: doctor.Note, Finding: "Odd."},
	}}
	want := `pass  kernel        Linux 6.1\x1b[2J.
fail  memory limit  The control group /a allows 32
                    MiB and not a byte more.
                    costs  Death.
                    mend   raise it
note  clock         Odd.

3 checks: 1 passed, 1 note, 1 failed
`
	if diff := cmp.Diff(want, doctorText(r, false, 52)); diff != "" {
		t.Error(diff)
	}
	if text := doctorText(r, true, 0); !strings.Contains(text, "\x1b[31mfail\x1b[0m") || !strings.Contains(text, "32 MiB and not") {
		t.Errorf("a wide terminal gets %q", text)
	}
}

// TestDoctorOfARunningDaemon examines the daemon and not the one who asks.
func TestDoctorOfARunningDaemon(t *testing.T) {
	database := newDatabase(t)
	d := startDaemon(t, database, "--interval", "5")
	d.awaitCycle(1)
	out, errOut, _ := run(t, "doctor", "--json", "--database", database)
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("doctor is not JSON: %v\n%s\n%s", err, out, errOut)
	}
	found := make(map[string]doctor.Check)
	for _, c := range report.Checks {
		found[c.Name] = c
	}
	if c := found["daemon"]; c.Status != doctor.Pass || !strings.Contains(c.Finding, "pid "+strconv.Itoa(d.cmd.Process.Pid)) {
		t.Errorf("daemon: %+v", c)
	}
	for _, name := range []string{"store", "control socket"} {
		if c := found[name]; c.Status != doctor.Pass || !strings.Contains(c.Finding, "is of user "+strconv.Itoa(os.Getuid())) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := found["open files"]; !strings.HasPrefix(c.Finding, "The daemon ") && c.Name != "" && found["hidepid"].Name != "" {
		t.Errorf("open files: %+v", c)
	}
}
