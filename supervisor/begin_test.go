package supervisor

import (
	"testing"
	"time"
)

func TestPatience(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	p := solitude{timeout: time.Minute, since: at(0)}
	for _, step := range []struct {
		second     int
		registered bool
		over       bool
	}{
		{0, false, false},
		{59, false, false},
		{60, false, true},
		{61, true, false},      // accepted: it waits for its agent's word,
		{100000, true, false},  // for ever
		{100001, false, false}, // and once more when that agent is gone
		{100059, false, false},
		{100060, false, true},
	} {
		if got := p.over(at(step.second), step.registered); got != step.over {
			t.Errorf("%+v: %v", step, got)
		}
	}
	if p := (solitude{since: at(0)}); !p.over(at(0), false) {
		t.Error("a timeout of 0 does not begin at once")
	}
	if p := (solitude{timeout: BeginNever, since: at(0)}); p.over(at(1<<20), false) {
		t.Error("never came")
	}
}
