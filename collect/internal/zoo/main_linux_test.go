package zoo

import "testing"

func TestMain(m *testing.M) { Main(m, nil) }
