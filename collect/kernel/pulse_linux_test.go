//go:build amd64 || arm64

package kernel

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/internal/zoo"
)

// TestPulse: a quiet host is asked for a sign after a while, and again; one that gives
// it is asked no more.
func TestPulse(t *testing.T) {
	began := time.Now()
	p := pulse{silence: maxSilence, every: signEvery, heard: began}
	signs := 0
	sign := func() error { signs++; return nil }
	check := func(after, wait time.Duration, want int, deaf bool) {
		t.Helper()
		if got, isDeaf := p.check(began.Add(after), sign); got != wait || isDeaf != deaf || signs != want {
			t.Errorf("after %v: wait %v, deaf %v, %d signs; want %v, %v, %d", after, got, isDeaf, signs, wait, deaf, want)
		}
	}
	check(time.Second, maxSilence-time.Second, 0, false)
	check(maxSilence, signEvery, 1, false)
	p.hear(began.Add(maxSilence+time.Millisecond), 7)
	check(maxSilence+time.Second, maxSilence-time.Second+time.Millisecond, 1, false)
	for i := range maxSigns { // a host that was stopped meanwhile has had no chance to hear more often
		check(time.Hour+time.Duration(i)*time.Hour, signEvery, 2+i, false)
	}
	check(5*time.Hour, 0, 1+maxSigns, true)
	if p.at != 7 {
		t.Errorf("heard last at %d", p.at)
	}
}

// TestPulseRefused: where no sign can be made the source is not given up.
func TestPulseRefused(t *testing.T) {
	p := pulse{silence: maxSilence, every: signEvery}
	for i := range 2 * maxSigns {
		now := time.Now().Add(time.Duration(i) * maxSilence)
		if wait, deaf := p.check(now, func() error { return unix.EPERM }); deaf || wait != maxSilence || !strings.Contains(p.refused, "not permitted") {
			t.Fatalf("wait %v, deaf %v, refused %q", wait, deaf, p.refused)
		}
	}
	if _, deaf := p.check(time.Now().Add(time.Hour), func() error { return nil }); deaf || p.refused != "" {
		t.Errorf("deaf %v, refused %q", deaf, p.refused)
	}
}

// impatient makes the signs of a source come soon. It must not have begun.
func impatient(s *connectorSource) {
	s.pulse.silence, s.pulse.every = 20*time.Millisecond, 10*time.Millisecond
}

// awaitFailure reads until that fails, and returns why.
func awaitFailure(t *testing.T, s Source) (failed error) {
	t.Helper()
	zoo.Await(t, "a failure", func() bool {
		var b Batch
		failed = s.Read(&b)
		return failed != nil
	})
	return failed
}

// TestConnectorQuiet: a host on which nothing happens is not taken for a deaf one, and
// one that is deaf is not taken for a quiet one.
func TestConnectorQuiet(t *testing.T) {
	w := newScript()
	s, err := listen(w, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	impatient(s)
	s.start()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	zoo.Await(t, "many signs", func() bool {
		var b Batch
		if err := s.Read(&b); err != nil {
			t.Fatal(err)
		}
		return w.made() > 2*maxSigns
	})
	told := forked(now(t), 1, 7)
	w.say(told)
	(&recorder{t: t, source: s}).next(1)
	w.mu.Lock()
	w.deaf = true
	w.mu.Unlock()
	err = awaitFailure(t, s)
	var deaf *Deaf
	if !errors.As(err, &deaf) || deaf.Source != "connector" || deaf.Signs != maxSigns || w.dismissals.Load() != 1 {
		t.Fatalf("got %v, dismissed %d times", err, w.dismissals.Load())
	}
	if s.Rest() {
		t.Error("rests though it has failed")
	}
}

// TestConnectorDeaf: the kernel stops telling, as it does when somebody unsubscribes for
// all, and that is noticed though nothing happens on the host that is told.
func TestConnectorDeaf(t *testing.T) {
	listenOrSkip(t, Config{})
	var sent []byte
	send := func(socket int, request []byte) error {
		sent = append(sent, request[messageHeader])
		return sendToKernel(socket, request)
	}
	c, err := connectVia(openConnector, send, DefaultReceiveBytes)
	if err != nil {
		t.Fatal(err)
	}
	s, err := listen(c, hostProc)
	if err != nil {
		t.Fatal(err)
	}
	impatient(s)
	s.start()
	defer func() { _ = s.Close() }()
	r := &recorder{t: t, source: s}
	r.settle()
	<-time.After(5 * s.pulse.silence) // it hears its own signs, whatever else happens
	before, err := bootNow()
	if err != nil {
		t.Fatal(err)
	}
	r.settle()
	if err := sendToKernel(c.socket, appendRequest(nil, opIgnore, 0)); err != nil {
		t.Fatal(err)
	}
	err = awaitFailure(t, s)
	var deaf *Deaf
	if !errors.As(err, &deaf) || deaf.Heard < before || deaf.Signs != maxSigns {
		t.Errorf("got %v, heard before %v", err, before)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if want := []byte{opListen}; string(sent) != string(want) { // nobody is counted any more
		t.Errorf("sent %v, want %v", sent, want)
	}
}

// TestConnectorSign: what is made as a sign of life is told, and changes nothing.
func TestConnectorSign(t *testing.T) {
	listenOrSkip(t, Config{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := connect(openConnector, DefaultReceiveBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	name := func() string {
		b, err := os.ReadFile("/proc/thread-self/comm")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(b), "\n")
	}
	before := name()
	if err := c.sign(); err != nil {
		t.Fatal(err)
	}
	if after := name(); after != before {
		t.Errorf("%q became %q", before, after)
	}
	for {
		var m [1]message
		n, err := c.receive(m[:]) // it is there already, or never comes
		if err != nil {
			t.Fatal(err)
		}
		if thread, _ := m[0].task(); n == 1 && m[0].what == whatComm && int(thread) == unix.Gettid() {
			if got, _, _ := strings.Cut(string(m[0].comm()), "\x00"); got != before {
				t.Errorf("told %q, want %q", got, before)
			}
			return
		}
	}
}

// TestConnectorSubscription: the kernel is told once of each listener that it counts
// that it goes, and never of one that it does not count.
func TestConnectorSubscription(t *testing.T) {
	mute := func() (int, error) { // which understands nothing and does not answer
		return unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	}
	noNetlink := func() (int, error) {
		return unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	for name, test := range map[string]struct {
		open func() (int, error)
		err  error // of sending
		want string
	}{
		"no answer":         {mute, nil, "\x01\x02"},
		"can not be asked":  {mute, unix.ECONNREFUSED, "\x01"},
		"can not be joined": {noNetlink, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sent []byte
			send := func(_ int, request []byte) error {
				sent = append(sent, request[messageHeader])
				return test.err
			}
			if _, err := connectVia(test.open, send, DefaultReceiveBytes); err == nil {
				t.Error("it is connected")
			}
			if string(sent) != test.want {
				t.Errorf("sent %v, want %v", sent, []byte(test.want))
			}
		})
	}
	for name, test := range map[string]struct {
		answer unix.Errno
		want   string
	}{
		"closed":  {0, "\x02"},
		"refused": {unix.EPERM, ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket, err := mute()
			if err != nil {
				t.Fatal(err)
			}
			var sent []byte
			send := func(_ int, request []byte) error { sent = append(sent, request[messageHeader]); return nil }
			c := &connection{socket: socket, wakeup: -1, send: send, counted: true}
			if err := c.answered(happened(whatAck, 1, int32(test.answer))); (err != nil) != (test.answer != 0) {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if string(sent) != test.want {
				t.Errorf("sent %v, want %v", sent, []byte(test.want))
			}
		})
	}
}
