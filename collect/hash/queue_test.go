package hash

import "testing"

// TestLastFileCounts: a process that went on to another file is told of that one only,
// whatever the paths are, also if there was no room for it.
func TestLastFileCounts(t *testing.T) {
	first, second := key{ino: 1}, key{ino: 2}
	q := newQueue(2)
	asker := target(1, "/bin/a")
	for _, k := range []key{first, second} {
		if got := q.add(k, asker); got != queueAdded {
			t.Fatalf("answer %d", got)
		}
	}
	if got := q.finish(); len(got) != 0 {
		t.Errorf("told of the file that it left: %+v", got)
	}
	if got := q.finish(); len(got) != 1 || q.size != 0 {
		t.Errorf("told %+v, %d wait", got, q.size)
	}

	q = newQueue(1)
	q.add(first, asker)
	if got := q.add(second, asker); got != queueFull {
		t.Fatalf("answer %d", got)
	}
	if got := q.finish(); len(got) != 0 || q.size != 0 {
		t.Errorf("told of the file that it left: %+v, %d wait", got, q.size)
	}
	if len(q.waiters[second]) != 0 {
		t.Errorf("%+v wait though there was no room", q.waiters[second])
	}
}
