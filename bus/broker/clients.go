package broker

import (
	"fmt"
	"strconv"
	"sync"
)

// client is a connection from outside.
type client struct {
	peer string // who the system says it is
	tcp  bool
	user string // as it called itself
	came bool   // it called itself something
	in   bool   // it was admitted
}

func (c client) String() string {
	if c.user == "" {
		return c.peer
	}
	return fmt.Sprintf("%s (%s)", quote(c.user), c.peer)
}

// quote makes a client's text safe for terminals and logs.
func quote(s string) string {
	if len(s) > 64 {
		return strconv.Quote(s[:64]) + "..."
	}
	return strconv.Quote(s)
}

// clients are the connections from outside to one server, by its number of them.
type clients struct {
	mu   sync.Mutex // guards byID and what it points to
	byID map[uint64]*client
}

func newClients() *clients { return &clients{byID: map[uint64]*client{}} }

func (c *clients) add(id uint64, one client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[id] = &one
}

// remove returns what was known of it last.
func (c *clients) remove(id uint64) client {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := *c.byID[id]
	delete(c.byID, id)
	return one
}

// name notes what a client calls itself; false if it did not come from outside.
func (c *clients) name(id uint64, user string) (client, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one, ok := c.byID[id]
	if !ok {
		return client{peer: "agent", user: user}, false
	}
	one.user, one.came = user, true
	return *one, true
}

// admit notes that a client may come in as the user that it called itself. It is false
// if too many are in as that one.
func (c *clients) admit(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	one, n := c.byID[id], 0
	if one == nil { // hung up meanwhile
		return false
	}
	for _, other := range c.byID {
		if other.in && other.user == one.user {
			n++
		}
	}
	one.in = n < MaxUserConnections
	return one.in
}

// who describes a client.
func (c *clients) who(id uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one, ok := c.byID[id]; ok {
		return one.String()
	}
	return "connection " + strconv.FormatUint(id, 10)
}
