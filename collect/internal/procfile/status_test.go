package procfile

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

const statusText = "Name:\tUid:\\t9\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:\t64\n" +
	"CapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n"

func TestParseStatus(t *testing.T) {
	var s Status
	if err := s.Parse([]byte(statusText)); err != nil {
		t.Fatal(err)
	}
	if want := (Status{UID: 1, EUID: 2, GID: 5, EGID: 6, CapEffective: 0x1fffeffffff}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		if err := s.Parse(b); err != nil || s.UID != uint32(os.Getuid()) || s.EGID != uint32(os.Getegid()) {
			t.Errorf("of this process: %+v, %v", s, err)
		}
	}
}

func TestParseStatusRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"no user ids":      strings.Replace(statusText, "\nUid:", "\nXid:", 1),
		"no group ids":     strings.Replace(statusText, "\nGid:", "\nXid:", 1),
		"no capabilities":  strings.Replace(statusText, "\nCapEff:", "\nCapXXX:", 1),
		"one user id":      strings.Replace(statusText, "\t1\t2\t3\t4", "\t1", 1),
		"id out of range":  strings.Replace(statusText, "\t1\t2\t3\t4", "\t1\t4294967296\t3\t4", 1),
		"negative id":      strings.Replace(statusText, "\t1\t2\t3\t4", "\t-1\t2\t3\t4", 1),
		"capability digit": strings.Replace(statusText, "1fffeffffff", "1fffeffffgf", 1),
		"too many of them": strings.Replace(statusText, "1fffeffffff", "11111fffeffffff", 1),
	} {
		var s Status
		if err := s.Parse([]byte(text)); err == nil {
			t.Errorf("%s: parsed as %+v", name, s)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(statusText))
	f.Add([]byte("Uid:\t1\t2\nGid:\t0\t0\nCapEff:\tffffffffffffffff"))
	f.Add([]byte("Name:\tx\nUid:\t4294967295\t0\t0\t0\nGid:\t\t\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Status
		if s.Parse(b) != nil {
			return
		}
		for _, key := range []string{"Uid:", "Gid:", "CapEff:"} {
			if !bytes.Contains(b, []byte(key)) {
				t.Errorf("%q was parsed without %s", b, key)
			}
		}
		if again := (Status{}); again.Parse(append(bytes.Clone(b), "\nUid:\t9\t9\n"...)) != nil || again != s {
			t.Errorf("what follows changes %+v to %+v", s, again)
		}
	})
}
