package main

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	zone := time.FixedZone("east", 2*60*60)
	now := time.Date(2026, 11, 23, 10, 30, 0, 0, zone)
	for given, want := range map[string]time.Time{
		"":                     {},
		"10m":                  now.Add(-10 * time.Minute),
		"7d":                   now.Add(-7 * 24 * time.Hour),
		"2026-11-22T01:02:03Z": time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC),
		"2026-11-23":           time.Date(2026, 11, 23, 0, 0, 0, 0, zone),
		"2026-11-22T01:39":     time.Date(2026, 11, 22, 1, 39, 0, 0, zone),
		// As the table of events prints it.
		"2026-11-22 01:39:07.250": time.Date(2026, 11, 22, 1, 39, 7, 250_000_000, zone),
		"01:39":                   time.Date(2026, 11, 23, 1, 39, 0, 0, zone),
		"01:39:05":                time.Date(2026, 11, 23, 1, 39, 5, 0, zone),
	} {
		if got, err := moment(given, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", given, got, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "-5m", "24:00", "2026-02-30", "99999d", "d", "2026-11"} {
		if got, err := moment(bad, now); err == nil {
			t.Errorf("%q is taken for %s", bad, got)
		}
	}
}
