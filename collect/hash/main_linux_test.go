package hash

import (
	"testing"

	"daemoneye.dev/procmond/collect/internal/zoo"
)

func TestMain(m *testing.M) { zoo.Main(m, nil) }
