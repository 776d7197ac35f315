package hash

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"daemoneye.dev/procmond/collect"
)

const (
	// chunk is how much is read at once: 32 KiB to 1 MiB are equally fast.
	chunk = 64 << 10
	// racy is how old the last change of a file must be for its times to tell it
	// from the next one: the clock of a file system can be that coarse.
	racy = 2 * time.Second
	// mostDoors is through how many processes an executable is tried to be reached.
	mostDoors = 8
)

// reading is a file to be digested, with the processes through which it may be
// reached.
type reading struct {
	key   key
	doors []collect.HashTarget
}

// result is what came of a reading.
type result struct {
	key    key
	digest digest
	keep   bool // the key will tell when the file has changed
	bytes  uint64
	// failure is why there is no digest, nil if there is one. If it lies in the
	// process, it is that of each of the doors that were tried.
	failure *skip
	tried   int
	stopped bool // by the end of the service: nothing was found out
}

// read digests one file.
func (h *Hasher) read(ctx context.Context, r reading) result {
	res := result{key: r.key}
	for _, door := range r.doors[:min(mostDoors, len(r.doors))] {
		res.tried++
		c, err := h.cfg.host.open(&door, r.key)
		if err == nil {
			h.digest(ctx, c, &res)
			_ = c.Close() // only read
			return res
		}
		if res.failure = skipOf(err); !res.failure.ofProcess() {
			return res
		}
	}
	return res
}

// digest reads c to its end and fills in res.
func (h *Hasher) digest(ctx context.Context, c content, res *result) {
	res.failure = nil
	// Before reading, or a change meanwhile could go unseen.
	res.keep = time.Unix(0, res.key.ctime).Before(time.Now().Add(-racy)) && c.steady()
	err := h.sum(ctx, c, res)
	var now file
	if err == nil {
		now, err = c.stat()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		res.failure = &skip{reason: reasonDeadline}
	case ctx.Err() != nil:
		res.stopped = true
	case err != nil:
		res.failure = skipOf(err)
	case now.key != res.key, res.bytes != uint64(res.key.size):
		res.failure = &skip{reason: reasonChanged}
	}
}

// buffer takes the spare buffer, or makes one if a reading that hangs has it.
func (h *Hasher) buffer() []byte {
	select {
	case b := <-h.spare:
		return b
	default:
		return make([]byte, chunk)
	}
}

func (h *Hasher) putBuffer(b []byte) {
	select {
	case h.spare <- b:
	default: // one is enough
	}
}

// sum reads no more than a byte beyond the size that the file had.
func (h *Hasher) sum(ctx context.Context, c content, res *result) error {
	sum := sha256.New()
	whole := h.buffer()
	defer h.putBuffer(whole)
	buf := whole[:min(chunk, res.key.size+1)]
	for res.bytes <= uint64(res.key.size) {
		n, err := c.Read(buf)
		sum.Write(buf[:n])
		res.bytes += uint64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := h.pace.spend(ctx, n); err != nil {
			return err
		}
	}
	sum.Sum(res.digest[:0])
	return nil
}
