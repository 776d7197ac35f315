package collect

import "time"

// pressureFactor stretches the interval while there is pressure.
const pressureFactor = 1.5

// Interval is the time between two scans, and why it is what it is.
type Interval struct {
	Configured time.Duration
	Adjusted   time.Duration // set by [Handle.AdjustInterval]; 0 if it is not
	Pressure   bool
	Current    time.Duration // in force
}

// compose fills in Current.
func (i Interval) compose() Interval {
	base := i.Configured
	if i.Adjusted > 0 {
		base = i.Adjusted
	}
	if i.Pressure {
		base = time.Duration(float64(base) * pressureFactor)
	}
	i.Current = min(base, MaxInterval)
	return i
}

// Why says in words where Current comes from.
func (i Interval) Why() string {
	why := "configured"
	if i.Adjusted > 0 {
		why = "adjusted"
	}
	if i.Pressure {
		why += ", stretched by pressure"
	}
	return why
}

// adjusted is the interval after a.
func (i Interval) adjusted(a Adjust) Interval {
	switch {
	case a.Clear:
		i.Adjusted = 0
	case a.Value != nil:
		i.Adjusted = *a.Value
	}
	if a.Pressure != nil {
		i.Pressure = *a.Pressure
	}
	return i.compose()
}

// configured is the interval after its configured value was set, which ends an
// adjustment.
func (i Interval) configured(d time.Duration) Interval {
	i.Configured, i.Adjusted = d, 0
	return i.compose()
}
