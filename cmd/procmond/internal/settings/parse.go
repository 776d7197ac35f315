package settings

import (
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// one makes a parser of one text: the last one wins, as everywhere. The setter
// may write before it fails, since the value is thrown away then.
func one(set func(v *Values, s string) error) func(*Values, []string) error {
	return func(v *Values, texts []string) error { return set(v, texts[len(texts)-1]) }
}

func path(s string) error {
	if strings.ContainsRune(s, 0) || strings.TrimSpace(s) == "" {
		return errors.New("want a path")
	}
	return nil
}

func parseInt(lowest, highest int, field func(*Values) *int) func(*Values, string) error {
	return func(v *Values, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < lowest || n > highest {
			return fmt.Errorf("want a whole number from %d to %d", lowest, highest)
		}
		*field(v) = n
		return nil
	}
}

func parseNumber(highest float64, field func(*Values) *float64) func(*Values, string) error {
	return func(v *Values, s string) error {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(n) || n < 0 || n > highest {
			return fmt.Errorf("want a number from 0 to %v", highest)
		}
		*field(v) = n
		return nil
	}
}

// parseDuration reads a plain number of units or a duration with its unit.
// zero says that 0 is accepted although it is below the lowest.
func parseDuration(unit, lowest, highest time.Duration, zero bool, field func(*Values) *time.Duration) func(*Values, string) error {
	return func(v *Values, s string) error {
		d, err := duration(s, unit)
		if err != nil {
			return err
		}
		if off := zero && d == 0; d != d.Truncate(unit) || d > highest || d < lowest && !off {
			return fmt.Errorf("want %v to %v, in steps of %v", lowest, highest, unit)
		}
		*field(v) = d
		return nil
	}
}

// duration also knows days, which time.ParseDuration does not, and numbers of a
// unit; with the unit 0 a number is no duration.
func duration(s string, unit time.Duration) (time.Duration, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && unit > 0 {
		return scale(n, unit)
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 64); err == nil {
			return scale(n, 24*time.Hour)
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("want a duration like 90s, 10m or 72h")
	}
	return d, nil
}

func scale(n int64, unit time.Duration) (time.Duration, error) {
	if n < 0 || n > int64(math.MaxInt64/unit) {
		return 0, errors.New("want a duration like 90s, 10m or 72h")
	}
	return time.Duration(n) * unit, nil
}

// never is the value of a time that does not come.
const never = "never"

// maxBeginTimeout is longer than anybody waits who does not mean never.
const maxBeginTimeout = 24 * time.Hour

func parseBeginTimeout(v *Values, s string) error {
	if s == never {
		v.BeginTimeout = -1
		return nil
	}
	d, err := duration(s, time.Second)
	if err != nil || d > maxBeginTimeout {
		return errors.New("want 0 to 24h (a number is seconds), or never")
	}
	v.BeginTimeout = d
	return nil
}

// parseSizeBetween accepts a plain number as bytes too.
func parseSizeBetween(lowest, highest uint64, field func(*Values) *uint64) func(*Values, string) error {
	return func(v *Values, s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			n, err = parseSize(s)
		}
		if err != nil || n < lowest || n > highest {
			return fmt.Errorf("want a size from %dMiB to %dMiB, like 512MiB", lowest>>20, highest>>20)
		}
		*field(v) = n
		return nil
	}
}

const (
	minRetentionAge   = time.Minute
	minRetentionBytes = 16 << 20
)

// parseRetention reads "AGE", "SIZE" or both with a comma. "0" alone is no bound
// at all.
func parseRetention(v *Values, s string) error {
	parts := strings.Split(s, ",")
	if len(parts) > 2 {
		return errors.New("want AGE,SIZE, like 72h,1GiB")
	}
	if s == "0" || s == "0,0" {
		v.RetentionAge, v.RetentionBytes = 0, 0
		return nil
	}
	if len(parts) == 2 && parts[0] == "0" {
		v.RetentionAge, parts = 0, parts[1:]
	} else if len(parts) == 2 && parts[1] == "0" {
		v.RetentionBytes, parts = 0, parts[:1]
	}
	var sawAge, sawSize bool
	for _, part := range parts {
		size, sizeErr := parseSize(part)
		age, ageErr := duration(part, 0)
		switch {
		case sizeErr == nil && !sawSize:
			if size < minRetentionBytes {
				return fmt.Errorf("size %s: want at least 16MiB", part)
			}
			v.RetentionBytes, sawSize = size, true
		case ageErr == nil && !sawAge:
			if age < minRetentionAge {
				return fmt.Errorf("age %s: want at least 1m", part)
			}
			v.RetentionAge, sawAge = age, true
		default:
			return errors.New("want AGE,SIZE, like 72h,1GiB")
		}
	}
	return nil
}

// parseSize reads a number of bytes with its unit.
func parseSize(s string) (uint64, error) {
	units := []struct {
		suffix string
		bytes  uint64
	}{
		{"KiB", 1 << 10},
		{"MiB", 1 << 20},
		{"GiB", 1 << 30},
		{"TiB", 1 << 40},
		{"KB", 1e3},
		{"MB", 1e6},
		{"GB", 1e9},
		{"TB", 1e12},
		{"B", 1},
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, errors.New("want a size like 512MiB or 1GiB")
}

// parseListen reads an address; one without a host means this machine alone.
func parseListen(v *Values, s string) error {
	if s == "off" {
		v.MetricsListen = ""
		return nil
	}
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("want off, PORT, :PORT or HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("want a port from 1 to 65535")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if strings.ContainsAny(host, " \t\n/\x00") {
		return errors.New("want a host name or address before the port")
	}
	v.MetricsListen = net.JoinHostPort(host, port)
	return nil
}

// maxEnvNames keeps what is recorded of each process within reason.
const maxEnvNames = 64

func checkEnvNames(names []string) error {
	if len(names) > maxEnvNames {
		return fmt.Errorf("%d names are too many: want at most %d", len(names), maxEnvNames)
	}
	for _, name := range names {
		if strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("want the name of a variable alone, without a value: %q", name)
		}
	}
	return nil
}

func parseSnapshots(v *Values, text string) error {
	v.Snapshots = text
	if text == SnapshotsProcfs && runtime.GOOS != "linux" {
		return errors.New("only Linux has it: want auto or portable")
	}
	return nil
}
