//go:build !linux

package warden

import (
	"os"
	"testing"
)

// selfPath is this test.
func selfPath(t *testing.T) string {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
