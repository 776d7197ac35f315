package bus

import (
	"context"
	"errors"

	"daemoneye.dev/procmond/collect/event"
)

const (
	// MaxWindow is the most events that one batch may have; the server refuses more.
	MaxWindow = 1000
	// maxBatch bounds a batch in bytes, as the server counts them: with headers.
	maxBatch = 4 << 20
	// overhead is about what a message takes beside the event: subject, headers and
	// the line that announces it. A test holds it above the truth.
	overhead = 352
	// keepBuffer is what a batch may keep of memory while there is nothing to deliver, in
	// bytes. While there is, it keeps what the largest one took: 1000 events of 1 KiB,
	// each time into a buffer that grows from nothing, cost a tenth of the rate.
	keepBuffer = 1 << 20
)

// errBatchFull ends a reading because no more events fit.
var errBatchFull = errors.New("batch is full")

// batch is consecutive events that are read and not yet acknowledged. It owns its
// bytes, which are used again.
type batch struct {
	buf    []byte
	events []batched
	first  int  // index of the first one that is not acknowledged
	whole  bool // reading ended at a limit: there is probably more
}

// batched is one event of a batch.
type batched struct {
	seq  uint64
	kind event.Kind
	end  int // in buf; it begins where the one before it ends
}

// left is how many events are not acknowledged.
func (b *batch) left() int { return len(b.events) - b.first }

// seq is that of the n-th event that is not acknowledged, from 0.
func (b *batch) seq(n int) uint64 { return b.events[b.first+n].seq }

// event is the n-th one that is not acknowledged, with its bytes.
func (b *batch) event(n int) (batched, []byte) {
	i := b.first + n
	begin := 0
	if i > 0 {
		begin = b.events[i-1].end
	}
	e := b.events[i]
	return e, b.buf[begin:e.end]
}

// advance removes the first n, which are acknowledged.
func (b *batch) advance(n int) {
	b.first += n
	if b.left() == 0 {
		b.clear()
	}
}

func (b *batch) clear() {
	b.buf, b.events, b.first = b.buf[:0], b.events[:0], 0
}

// trim gives memory back, if the batch is empty.
func (b *batch) trim() {
	if b.left() == 0 && cap(b.buf) > keepBuffer {
		b.buf = nil
	}
}

// fill replaces the batch by at most limit events from a sequence on. After an
// error it is empty.
func (b *batch) fill(ctx context.Context, log EventLog, epoch event.Epoch, from uint64, limit int) error {
	b.clear()
	err := log.Read(ctx, epoch, from, limit, b.add)
	over := errors.Is(err, errBatchFull)
	b.whole = over || len(b.events) >= limit
	if over {
		err = nil
	}
	if err != nil {
		b.clear()
	}
	return err
}

func (b *batch) add(seq uint64, encoded []byte) error {
	if n := len(b.events); n > 0 && len(b.buf)+len(encoded)+(n+1)*overhead > maxBatch {
		return errBatchFull
	}
	kind, err := event.PeekKind(encoded)
	if err != nil {
		kind = event.KindUnknown // the bytes are delivered as they are
	}
	b.buf = append(b.buf, encoded...)
	b.events = append(b.events, batched{seq: seq, kind: kind, end: len(b.buf)})
	return nil
}
