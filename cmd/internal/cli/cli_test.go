package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sirupsen/logrus"
)

// standstill is a terminal that takes nothing until it is released.
type standstill struct {
	release chan struct{}
	bytes.Buffer
}

func (s *standstill) Write(p []byte) (int, error) {
	<-s.release
	return s.Buffer.Write(p)
}

func gapText(lines uint64) []byte { return fmt.Appendf(nil, "%d missing\n", lines) }

// TestTerminalThatStandsStillDelaysNobody: printing goes on, what finds no room is
// counted and said in its place, and the end waits for a bounded time only.
func TestTerminalThatStandsStillDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &standstill{release: make(chan struct{})}
		q := NewLineQueue(out, 3, gapText)
		for i := range 3 + 1 + 10 { // one is being written
			_, _ = fmt.Fprintf(q, "line %d\n", i)
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := io.WriteString(q.Patient(ctx), "event\n"); err == nil {
			t.Error("a patient writer does not end with its context")
		}
		out.release <- struct{}{}
		synctest.Wait()
		_, _ = io.WriteString(q, "after the gap\n")
		_, _ = io.WriteString(q, "again too much\n")
		q.Close() // in virtual time, or the test would not end
		close(out.release)
		synctest.Wait()
		_, _ = io.WriteString(q, "after the end\n")

		want := "line 0\nline 1\nline 2\nline 3\n10 missing\nafter the gap\n1 missing\n"
		if got := out.String(); got != want || q.Lost() != 11 {
			t.Errorf("lost %d, written %q", q.Lost(), got)
		}
	})
}

// TestGapIsALineOfTheLog: a reader of a JSON log meets nothing but JSON.
func TestGapIsALineOfTheLog(t *testing.T) {
	line := missingLogLines(&logrus.JSONFormatter{})(7)
	var doc map[string]any
	if err := json.Unmarshal(line, &doc); err != nil || doc["lines"] != 7.0 || doc["level"] != "warning" {
		t.Errorf("%s: %v", line, err)
	}
	text := string(missingLogLines(&lineFormatter{})(7))
	if !strings.Contains(text, "lines=7") || strings.Count(text, "\n") != 1 {
		t.Errorf("%q", text)
	}
}

func TestHostileTextStaysOnItsLine(t *testing.T) {
	entry := &logrus.Entry{Level: logrus.WarnLevel, Message: "a\nb\x1b[2J", Data: logrus.Fields{"k": "x \"y\r"}}
	line, err := (&lineFormatter{}).Format(entry)
	if err != nil || strings.Count(string(line), "\n") != 1 || strings.ContainsAny(string(line), "\x1b\r") {
		t.Errorf("%q %v", line, err)
	}
}

func TestText(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1.0 MiB", 1<<40 + 1<<39: "1.5 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	for text, want := range map[string]string{"abcdef": "ab…", "äöü": "äöü", "äöüß": "äö…", "": ""} {
		if got := Shorten(text, 3); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
	if Shorten("abc", 0) != "abc" || Printable("a\\x1b\x1b") != `a\x1b\x1b` {
		t.Error(Printable("a\\x1b\x1b"))
	}
}

// Lines of several writers are written whole.
func TestTerminalDoesNotMangle(t *testing.T) {
	var out slowWriter
	queue := NewLineQueue(&out, logLines, gapText)
	logger := logrus.New()
	logger.SetOutput(queue)
	logger.SetFormatter(&lineFormatter{})
	events := queue.Patient(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				logger.WithField("who", "log\nger").Info("message\x1b[0m of the log")
				_, _ = io.WriteString(events, "event of the live view\n")
			}
		})
	}
	wg.Wait()
	queue.Close()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 400 {
		t.Fatalf("%d lines, want 400", len(lines))
	}
	for _, line := range lines {
		whole := line == "event of the live view" || strings.HasSuffix(line, `INFO  message\x1b[0m of the log who="log | ger"`)
		if !whole {
			t.Fatalf("mangled: %q", line)
		}
	}
}

// slowWriter writes byte by byte, so that two writers would mix.
type slowWriter struct{ bytes.Buffer }

func (w *slowWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		w.WriteByte(b)
	}
	return len(p), nil
}
