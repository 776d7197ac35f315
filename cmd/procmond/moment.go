package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// localForms are times without a zone: local ones. Events are printed in the one
// with a blank, so that it can be given back.
func localForms() []string {
	return []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"}
}

// moment reads a time, or how long ago it was. now also says which zone is local.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, read := range []func(string, time.Time) (time.Time, error){absoluteTime, timeOfToday, longAgo} {
		if at, err := read(s, now); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want how long ago (10m, 2h, 7d), a time of today (13:45), a day (%s), or a time like %s",
		s, now.Format(time.DateOnly), now.UTC().Format(time.RFC3339))
}

func absoluteTime(s string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, s)
	for _, form := range localForms() {
		if err == nil {
			break
		}
		at, err = time.ParseInLocation(form, s, now.Location())
	}
	return at, err
}

func timeOfToday(s string, now time.Time) (time.Time, error) {
	at, err := time.Parse("15:04", s)
	if err != nil {
		at, err = time.Parse("15:04:05", s)
	}
	year, month, day := now.Date()
	return time.Date(year, month, day, at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), now.Location()), err
}

func longAgo(s string, now time.Time) (time.Time, error) {
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		n, err := strconv.ParseUint(days, 10, 16)
		return now.Add(-time.Duration(n) * 24 * time.Hour), err
	}
	ago, err := time.ParseDuration(s)
	if err == nil && ago < 0 {
		err = fmt.Errorf("%s is to come", s)
	}
	return now.Add(-ago), err
}
