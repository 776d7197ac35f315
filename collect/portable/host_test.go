package portable

import (
	"testing"
	"time"
)

func TestReadHost(t *testing.T) {
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if h.BootID == "" || h.TicksPerSecond == 0 {
		t.Errorf("got %+v", h)
	}
	if up := time.Since(h.BootTime); up <= 0 || up > 20*365*24*time.Hour {
		t.Errorf("up for %v", up)
	}
	again, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if d := again.BootTime.Sub(h.BootTime); d.Abs() > time.Second {
		t.Errorf("boot moved by %v", d)
	}
	again.BootTime = h.BootTime
	if again != h {
		t.Errorf("got %+v, then %+v", h, again)
	}
}
