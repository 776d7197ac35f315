package bus

import "testing"

// TestBatchMemory: a big buffer is kept from batch to batch, and given back when there
// is nothing to deliver; but never with events in it.
func TestBatchMemory(t *testing.T) {
	b := new(batch)
	add := func(size int) {
		t.Helper()
		if err := b.add(1, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	add(keepBuffer + 1)
	b.trim()
	if b.left() != 1 || len(b.buf) != keepBuffer+1 {
		t.Fatalf("%d events of %d bytes are left", b.left(), len(b.buf))
	}
	b.advance(1)
	if cap(b.buf) <= keepBuffer {
		t.Error("the buffer is gone while events may flow")
	}
	b.trim()
	if cap(b.buf) > keepBuffer {
		t.Errorf("%d bytes are kept for nothing", cap(b.buf))
	}
	b = new(batch)
	add(100)
	b.advance(1)
	b.trim()
	if cap(b.buf) == 0 {
		t.Error("a small buffer is given back")
	}
}
