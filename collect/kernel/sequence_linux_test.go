package kernel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestSequences: whatever is dropped is counted, on each CPU, and what comes in
// another order within a moment is not.
func TestSequences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sequences
		cpus := rapid.IntRange(1, 4).Draw(t, "cpus")
		next := make([]uint32, cpus)
		for i := range next {
			next[i] = rapid.Uint32().Draw(t, "base")
			s.note(&message{cpu: uint32(i), seq: next[i]})
			next[i]++
		}
		var want, got uint64
		for range rapid.IntRange(1, 20).Draw(t, "moments") {
			var sent []message
			for range rapid.IntRange(0, 20).Draw(t, "messages") {
				cpu := rapid.IntRange(0, cpus-1).Draw(t, "cpu")
				sent = append(sent, message{cpu: uint32(cpu), seq: next[cpu]})
				next[cpu]++
			}
			drop := rapid.IntRange(0, len(sent)).Draw(t, "drop") // then the last of each CPU show it
			want += uint64(drop)
			sent = sent[drop:]
			for i := range next {
				sent = append(sent, message{cpu: uint32(i), seq: next[i]})
				next[i]++
			}
			for _, m := range rapid.Permutation(sent).Draw(t, "order") {
				s.note(&m)
			}
			got += s.settle()
		}
		if got != want {
			t.Errorf("%d are lost, want %d", got, want)
		}
	})
}

func TestSequencesOfUnknownCPU(t *testing.T) {
	var s sequences
	if s.note(&message{cpu: 1<<32 - 1, seq: 1}) || len(s.cpus) != 0 {
		t.Error("it is counted")
	}
}

// TestBootClock: what happened before the host slept is not moved by that.
func TestBootClock(t *testing.T) {
	var c bootClock
	c.note(10*time.Second, 10*time.Second, 10*time.Second)
	c.note(20*time.Second, 20*time.Second+time.Microsecond, 20*time.Second)
	if !c.note(30*time.Second, 90*time.Second, 30*time.Second+1) || c.note(31*time.Second, 0, 32*time.Second) {
		t.Error("what can be compared is not")
	}
	for at, want := range map[time.Duration]time.Duration{15 * time.Second: 15 * time.Second, 20 * time.Second: 20 * time.Second, 31 * time.Second: 91 * time.Second} {
		if got := c.boot(uint64(at)); got-want > time.Microsecond || want-got > time.Microsecond {
			t.Errorf("%v is %v, want %v", at, got, want)
		}
	}
	c, err := newBootClock()
	if err != nil {
		t.Fatal(err)
	}
	before, err := readClock(unix.CLOCK_BOOTTIME)
	if err != nil {
		t.Fatal(err)
	}
	got := c.boot(uint64(c.monotonic()))
	after, err := readClock(unix.CLOCK_BOOTTIME)
	if err != nil || got < before-minSleep || got > after+minSleep {
		t.Errorf("%v, want from %v to %v, %v", got, before, after, err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(appendRequest(nil, opListen, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if m.decode(b) != nil {
			return
		}
		if len(b) < messageHeader+eventHeader+m.what.dataSize() {
			t.Errorf("%d bytes are %+v", len(b), m)
		}
		m.task()
		m.fork()
		m.exit()
		m.ids()
		m.comm()
	})
}
