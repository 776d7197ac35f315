package hash

import (
	"container/list"
	"crypto/sha256"
)

// key tells a file from all others, and from itself before a change.
type key struct {
	dev, ino     uint64
	size         int64 // bytes
	mtime, ctime int64 // Unix nanoseconds
}

type digest [sha256.Size]byte

// cache keeps the digests that were used last. It is not safe for concurrent use.
type cache struct {
	limit   int
	entries map[key]*list.Element // of *cached
	recent  list.List             // the one used last is first
}

type cached struct {
	key    key
	digest digest
}

func newCache(limit int) *cache { return &cache{limit: limit, entries: make(map[key]*list.Element)} }

func (c *cache) lookup(k key) (digest, bool) {
	e := c.entries[k]
	if e == nil {
		return digest{}, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached).digest, true
}

func (c *cache) add(k key, d digest) {
	if e := c.entries[k]; e != nil {
		e.Value.(*cached).digest = d
		c.recent.MoveToFront(e)
		return
	}
	if len(c.entries) >= c.limit {
		oldest := c.recent.Back()
		delete(c.entries, c.recent.Remove(oldest).(*cached).key)
	}
	c.entries[k] = c.recent.PushFront(&cached{key: k, digest: d})
}
