package settings

import (
	"daemoneye.dev/procmond/collect"
	"daemoneye.dev/procmond/collect/event"
)

// checkRedact names every fault of the patterns.
func checkRedact(patterns []string) error {
	_, err := event.NewRedactor(patterns)
	return err
}

// checkExclude names every fault of the rules.
func checkExclude(rules []string) error {
	_, err := collect.ParseScope(rules)
	return err
}
