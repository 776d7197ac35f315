package kernel

import (
	"fmt"
	"strings"
	"time"
)

// Reason is why a source can not be used.
type Reason uint8

// The reasons.
const (
	// ReasonFailed is none of the others: an error of the host that may pass.
	ReasonFailed Reason = iota
	// ReasonSystem is an operating system or an architecture that has no such source.
	ReasonSystem
	// ReasonNamespace is a namespace in which PIDs, times or rights are not the kernel's.
	ReasonNamespace
	// ReasonRights is a capability that the daemon lacks.
	ReasonRights
	// ReasonKernel is a kernel that is too old or was built without what it takes.
	ReasonKernel
	// ReasonBTF is a kernel that was built without type information.
	ReasonBTF
	// ReasonRefused is a policy of the host, above capabilities.
	ReasonRefused
)

func (r Reason) String() string {
	switch r {
	case ReasonSystem:
		return "system"
	case ReasonNamespace:
		return "namespace"
	case ReasonRights:
		return "rights"
	case ReasonKernel:
		return "kernel"
	case ReasonBTF:
		return "btf"
	case ReasonRefused:
		return "refused"
	}
	return "failed"
}

// Unavailable is the error of a source that can not be used on this host. Another one
// may be.
type Unavailable struct {
	Source string // its name: "ebpf"
	Reason Reason
	What   string // for people: what is wrong
	Mend   string // for people: what to grant or to change; empty if nothing helps
	Err    error  // what the host said, may be nil
}

func (e *Unavailable) Error() string {
	var b strings.Builder
	b.WriteString(e.Source + ": " + e.What)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Unavailable) Unwrap() error { return e.Err }

// Deaf is the error of a source that does not hear any more what happens.
type Deaf struct {
	Source string
	// Heard is when it happened what was heard last, since boot: what happened after that
	// is lost.
	Heard time.Duration
	// Signs is how many events were made for it to hear, and were not heard.
	Signs int
}

func (e *Deaf) Error() string {
	return fmt.Sprintf("%s: the kernel does not tell any more, not even of the %d events that the daemon has made for it to tell of; "+
		"another program may have unsubscribed more often than it had subscribed, which ends it for all", e.Source, e.Signs)
}
