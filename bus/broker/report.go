package broker

import (
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"daemoneye.dev/procmond/bus/rpc"
)

// maxSamples bounds the samples from which rates are taken.
const maxSamples = 64

// sample is the state of the stream at a moment.
type sample struct {
	at    time.Time
	last  uint64 // sequence
	bytes uint64
}

// rates adds a sample and returns events per second of late, and the seconds until
// the stream is full at the rate of late; nil if it does not grow, or that is not
// known yet.
func (u *upkeep) rates(state jetstream.StreamState) (events float64, fullIn *float64) {
	now := sample{at: time.Now(), last: state.LastSeq, bytes: state.Bytes}
	u.samples = append(u.samples, now)
	for len(u.samples) > maxSamples || now.at.Sub(u.samples[0].at) > u.broker.cfg.pace.rate {
		u.samples = u.samples[1:]
	}
	first := u.samples[0]
	elapsed := now.at.Sub(first.at).Seconds()
	if elapsed <= 0 {
		return 0, nil
	}
	events = float64(now.last-min(first.last, now.last)) / elapsed
	growth := (float64(now.bytes) - float64(first.bytes)) / elapsed
	if growth <= 0 {
		return events, nil
	}
	left := math.Max(0, float64(u.broker.cfg.MaxBytes)-float64(now.bytes)) / growth
	return events, &left
}

// Report is the state of the stream as it was last seen. It never waits.
func (b *Broker) Report() rpc.StreamReport {
	b.reporting.Lock()
	defer b.reporting.Unlock()
	report := b.report
	report.InService = report.InService && b.Ready()
	return report
}

// Warnings are sentences about what somebody should do something about. It never
// waits.
func (b *Broker) Warnings() []string {
	report := b.Report()
	b.reporting.Lock()
	unread := b.unread
	b.reporting.Unlock()
	var all []string
	if !report.InService {
		all = append(all, "The stream of events is out of service: "+report.LastFault)
	}
	if unread {
		all = append(all, unreadText(report))
	}
	return all
}

// unreadText says that nobody consumes, and for how long that can go on.
func unreadText(report rpc.StreamReport) string {
	used := 100 * float64(report.Bytes) / float64(report.MaxBytes)
	text := fmt.Sprintf("Nobody consumes the stream of events, which is %.0f %% full", used)
	if report.FullInS == nil {
		return text
	}
	age := time.Duration(report.MaxAgeS * float64(time.Second))
	if *report.FullInS > age.Seconds() {
		return text + fmt.Sprintf(": at the present rate its oldest events go at the age of %v, before it is full", age)
	}
	return text + fmt.Sprintf(": at the present rate it refuses events in %v", time.Duration(*report.FullInS*float64(time.Second)).Round(time.Second))
}

// outOfService notes why the stream is not looked after.
func (b *Broker) outOfService(why string) {
	b.reporting.Lock()
	defer b.reporting.Unlock()
	b.report.InService = false
	b.report.RateEventS, b.report.FullInS = 0, nil
	if why != "" {
		b.report.LastFault = why
	}
}
