package broker

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"daemoneye.dev/procmond/bus/rpc"
)

// Why a connection or a message was turned away ([rpc.Refusal]).
const (
	ReasonPeer         = "user of the operating system not allowed"
	ReasonConnections  = "too many connections"
	ReasonUserMany     = "too many connections of one user"
	ReasonDown         = "broker not running"
	ReasonUser         = "unknown user"
	ReasonNotEnrolled  = "user not enrolled"
	ReasonSecretUnsafe = "secret's file can not be trusted"
	ReasonSecret       = "wrong secret"
	ReasonNotHere      = "user not allowed over TCP"
	ReasonTimeout      = "no credentials in time"
	ReasonPublish      = "publishing to a subject not permitted"
	ReasonSubscribe    = "subscribing to a subject not permitted"
	ReasonReply        = "answer to a subject not permitted"
	ReasonPayload      = "message too large"
	ReasonProtocol     = "malformed protocol"
	ReasonSlow         = "client too slow"
	ReasonHandshake    = "TLS handshake failed"
)

// logEvery is how often a reason is logged at most.
const logEvery = 10 * time.Second

// maxWho bounds what is kept of who was turned away, in bytes.
const maxWho = 256

// refusals counts what was turned away.
type refusals struct {
	log *logrus.Entry

	mu       sync.Mutex // guards byReason
	byReason map[string]*refusal
}

type refusal struct {
	rpc.Refusal
	loggedAt time.Time
	silent   uint64 // how many were not logged since
}

func newRefusals(log *logrus.Entry) *refusals {
	return &refusals{log: log, byReason: map[string]*refusal{}}
}

// count takes note of one. Text of clients in who is quoted by the caller.
func (r *refusals) count(reason, who string) {
	if len(who) > maxWho {
		who = strings.ToValidUTF8(who[:maxWho], "") + "..."
	}
	if silent, tell := r.add(reason, who); tell {
		r.log.WithFields(logrus.Fields{"reason": reason, "who": who, "unlogged": silent}).Warn("Refused a client of the broker")
	}
}

// add returns how many were not told of before, and whether this one is to be.
func (r *refusals) add(reason, who string) (silent uint64, tell bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.byReason[reason]
	if one == nil {
		one = &refusal{Refusal: rpc.Refusal{Reason: reason}}
		r.byReason[reason] = one
	}
	one.Count++
	one.Last = who
	if now := time.Now(); now.Sub(one.loggedAt) >= logEvery {
		silent, one.silent, one.loggedAt = one.silent, 0, now
		return silent, true
	}
	one.silent++
	return 0, false
}

// list is ordered by reason.
func (r *refusals) list() []rpc.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]rpc.Refusal, 0, len(r.byReason))
	for _, one := range r.byReason {
		all = append(all, one.Refusal)
	}
	slices.SortFunc(all, func(a, b rpc.Refusal) int { return strings.Compare(a.Reason, b.Reason) })
	return all
}
