package kernel

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// datagram is what the kernel sends of an event, of which so many bytes are its data.
func datagram(w what, data int) []byte {
	b := appendRequest(nil, 0, 7)[:messageHeader]
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(messageHeader+eventHeader+data))
	ne.PutUint16(b[netlinkHeader+16:], uint16(eventHeader+data))
	b = ne.AppendUint32(b, uint32(w))
	b = ne.AppendUint32(b, 1)
	b = ne.AppendUint64(b, 42)
	for i := range data {
		b = append(b, byte(i+1))
	}
	return b
}

// TestShortMessages: kernels have made events longer over time. What is there is taken,
// what is not is zero; an acknowledgement that is only its error is one. What lacks a
// part that all kernels send is nothing.
func TestShortMessages(t *testing.T) {
	for w, least := range map[what]int{
		whatAck: 4, whatFork: 16, whatExec: 8, whatUID: 16, whatGID: 16, whatSID: 8, whatComm: 24, whatExit: 16, 0x100: 0,
	} {
		t.Run(fmt.Sprintf("%#x", uint32(w)), func(t *testing.T) {
			for data := range 2 * maxEventData {
				var m message
				b := datagram(w, data)
				if err := m.decode(b); (err == nil) != (data >= least) {
					t.Errorf("%d bytes: %v, want at least %d", data, err, least)
				} else if err == nil {
					checkData(t, &m, w, data)
				}
				for n := range b {
					if m.decode(b[:n]) == nil {
						t.Fatalf("%d of %d bytes are a message", n, len(b))
					}
				}
			}
		})
	}
}

// checkData fails unless the message is what datagram has made.
func checkData(t *testing.T, m *message, w what, data int) {
	t.Helper()
	if m.what != w || m.cpu != 1 || m.at != 42 || m.ack != 7 {
		t.Errorf("got %+v", m)
	}
	for i, got := range m.data {
		if want := byte(i + 1); i < data && got != want || i >= data && got != 0 {
			t.Errorf("byte %d of %d is %d", i, data, got)
		}
	}
}

// TestExitOfAnOldKernel: the parent is not told, and that is not process 7.
func TestExitOfAnOldKernel(t *testing.T) {
	m := exited(1, 2, 3, 5<<8, 7)
	b := append(datagram(whatExit, 0), m.data[:16]...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[netlinkHeader+16:], eventHeader+16)
	var got message
	if err := got.decode(b); err != nil {
		t.Fatal(err)
	}
	if status, parent := got.exit(); status != 5<<8 || parent != 0 || int32(got.field(3)) != int32(unix.SIGCHLD) {
		t.Errorf("status %#x, parent %d", status, parent)
	}
}
