// Package timerslack lets the kernel put off this program's sleeps a little, so that
// it is woken less often.
package timerslack

import "time"

// Usual is what our programs allow. Their shortest deadlines are tens of milliseconds.
const Usual = time.Millisecond
