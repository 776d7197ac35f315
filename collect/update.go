package collect

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// The hot keys of the collector.
const (
	KeyInterval        = "collection_interval"
	KeyMinLifetime     = "min_process_lifetime"
	KeyMemoryThreshold = "memory_change_threshold"
	KeyCPUThreshold    = "cpu_change_threshold"
)

// hotKeys never changes.
var hotKeys = []string{KeyInterval, KeyMinLifetime, KeyMemoryThreshold, KeyCPUThreshold}

// setting is a value that was accepted.
type setting struct {
	key   string
	value string
	apply func(c *Collector)
}

// update validates all values and then takes them over, now if nothing is in
// flight, else when that has ended.
func (c *Collector) update(u Update) (UpdateResult, error) {
	if err := c.mayOrder(); err != nil {
		return UpdateResult{}, err
	}
	settings, cold, err := c.parse(u.Values)
	if err != nil {
		return UpdateResult{}, err
	}
	result := UpdateResult{Version: c.run.version, RestartRequired: cold}
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.key
	}
	if c.job != nil {
		result.Pending = keys
	} else {
		result.Applied = keys
	}
	if u.ValidateOnly || len(settings) == 0 {
		return result, nil
	}
	c.run.version++
	result.Version = c.run.version
	c.run.pending = mergeSettings(c.run.pending, settings)
	if c.job == nil {
		c.applyPending()
	}
	result.Pending = c.pendingKeys()
	return result, nil
}

// parse sorts values into settings, ordered by key, and keys that need a
// restart.
func (c *Collector) parse(values map[string]string) (settings []setting, cold []string, err error) {
	var faults []Fault
	for _, key := range slices.Sorted(maps.Keys(values)) {
		apply, err := c.parseOne(key, values[key])
		switch {
		case err != nil:
			faults = append(faults, Fault{Key: key, Reason: err.Error()})
		case apply == nil:
			cold = append(cold, key)
		default:
			settings = append(settings, setting{key: key, value: values[key], apply: apply})
		}
	}
	if len(faults) > 0 {
		return nil, nil, &UpdateError{Faults: faults}
	}
	return settings, cold, nil
}

// parseOne returns how to apply a value, or nil if its key needs a restart.
func (c *Collector) parseOne(key, value string) (func(*Collector), error) {
	switch key {
	case KeyInterval:
		d, err := parseDuration(value, time.Second, MinInterval, MaxInterval)
		return func(c *Collector) {
			c.run.settings.Interval = d
			c.setInterval(c.run.interval.configured(d))
		}, err
	case KeyMinLifetime:
		d, err := parseDuration(value, time.Millisecond, 0, maxMinLifetime)
		return func(c *Collector) { c.setMinLifetime(d) }, err
	case KeyMemoryThreshold:
		v, err := parseNumber(value, maxMemoryThreshold)
		return func(c *Collector) { c.run.settings.MemoryThreshold = v }, err
	case KeyCPUThreshold:
		v, err := parseNumber(value, maxCPUThreshold)
		return func(c *Collector) { c.run.settings.CPUThreshold = v }, err
	}
	if hot := c.cfg.Hot[key]; hot != nil {
		apply, err := hot(value)
		return func(*Collector) { apply() }, err
	}
	if slices.Contains(c.cfg.Restart, key) {
		return nil, nil
	}
	return nil, errors.New("unknown key")
}

// parseDuration reads a whole number of units, or a duration with its unit.
func parseDuration(value string, unit, low, high time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if n, nerr := strconv.ParseInt(value, 10, 32); nerr == nil {
		d, err = time.Duration(n)*unit, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a number (of %v) or a duration like %v", value, unit, high)
	}
	return d, inBounds("value", d, low, high)
}

func parseNumber(value string, high float64) (float64, error) {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", value)
	}
	return v, inBounds("value", v, 0, high)
}

// mergeSettings adds later values to those that are pending already.
func mergeSettings(pending, later []setting) []setting {
	merged := slices.DeleteFunc(slices.Clone(pending), func(s setting) bool {
		return slices.ContainsFunc(later, func(l setting) bool { return l.key == s.key })
	})
	merged = append(merged, later...)
	slices.SortFunc(merged, func(a, b setting) int { return cmp.Compare(a.key, b.key) })
	return merged
}

func (c *Collector) pendingKeys() []string {
	var keys []string
	for _, s := range c.run.pending {
		keys = append(keys, s.key)
	}
	return keys
}

// applyPending brings accepted settings into force. Nothing may be in flight.
func (c *Collector) applyPending() {
	if len(c.run.pending) == 0 {
		return
	}
	var text []string
	for _, s := range c.run.pending {
		s.apply(c)
		text = append(text, s.key+" = "+s.value)
	}
	c.run.pending = nil
	detail := fmt.Sprintf("Configuration %d: %s.", c.run.version, strings.Join(text, ", "))
	c.cfg.Log.Info(detail)
	c.run.note(c.sensorEvent(event.Sensor{What: event.SensorConfig, Detail: detail}))
}

// setMinLifetime also lets go of what the old value held back: it is reported if
// it is still there.
func (c *Collector) setMinLifetime(d time.Duration) {
	if c.run.settings.MinLifetime != d && c.table != nil {
		c.table.releaseAll()
	}
	c.run.settings.MinLifetime = d
}
