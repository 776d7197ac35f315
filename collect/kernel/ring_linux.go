//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is in front of each record in the ring, linux/bpf.h.
const (
	recordHeader  = 8
	recordBusy    = 1 << 31 // it is being written
	recordDiscard = 1 << 30 // it was given up
	recordLength  = recordDiscard - 1
)

var errRing = errors.New("the ring holds what can not be")

// ring is the reader's end of a BPF ring buffer. The library's reader waits, also for
// a record that is just being written, and copies each; this one does neither.
type ring struct {
	control, body []byte  // mapped: the reader's position; the writers' and the records
	consumer      *uint64 // only the reader writes it, the kernel trusts it
	producer      *uint64
	records       []byte
	size          uint64
	whole         []byte // the record at the end, which goes on at the beginning, in one piece
}

// newRing maps the ring of that size behind fd, which may be closed afterwards.
func newRing(fd, size int) (*ring, error) {
	page := os.Getpagesize()
	control, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's position: %w", err)
	}
	// The kernel would map the records twice, so that each is in one piece. All of that
	// counts as memory of this process.
	body, err := unix.Mmap(fd, int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring: %w", err), unix.Munmap(control))
	}
	return &ring{
		control: control, body: body,
		consumer: (*uint64)(unsafe.Pointer(unsafe.SliceData(control))),
		producer: (*uint64)(unsafe.Pointer(unsafe.SliceData(body))),
		records:  body[page:], size: uint64(size),
	}, nil
}

func (r *ring) close() error { return errors.Join(unix.Munmap(r.control), unix.Munmap(r.body)) }

// next returns the next record, which is valid until release is called with what it
// takes in the ring; nil if there is none or the next one is being written.
func (r *ring) next() (record []byte, takes uint64, err error) {
	for {
		at, end := atomic.LoadUint64(r.consumer), atomic.LoadUint64(r.producer)
		if at == end {
			return nil, 0, nil
		}
		offset := at & (r.size - 1)
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.records[offset])))
		if header&recordBusy != 0 {
			return nil, 0, nil
		}
		length := uint64(header & recordLength)
		takes = (recordHeader + length + 7) &^ 7
		if takes > end-at || end-at > r.size {
			return nil, 0, errRing
		}
		if header&recordDiscard == 0 {
			return r.piece(offset+recordHeader, length), takes, nil
		}
		r.release(takes)
	}
}

// piece is what is written from an offset on, which may be past the end.
func (r *ring) piece(offset, length uint64) []byte {
	offset &= r.size - 1
	if offset+length <= r.size {
		return r.records[offset:][:length:length]
	}
	r.whole = append(r.whole[:0], r.records[offset:]...)
	r.whole = append(r.whole, r.records[:length-uint64(len(r.whole))]...)
	return r.whole
}

func (r *ring) release(takes uint64) {
	atomic.StoreUint64(r.consumer, atomic.LoadUint64(r.consumer)+takes)
}

// fill is how many bytes wait to be read.
func (r *ring) fill() uint64 { return atomic.LoadUint64(r.producer) - atomic.LoadUint64(r.consumer) }

// end is where the next record will be, read reports whether all before a place was
// read.
func (r *ring) end() uint64          { return atomic.LoadUint64(r.producer) }
func (r *ring) read(end uint64) bool { return atomic.LoadUint64(r.consumer) >= end }
