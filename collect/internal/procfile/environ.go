package procfile

import "bytes"

// MaxEnviron is how many bytes of an environment a source reads; what is recorded
// is cut to [event.MaxEnv], but secrets must be found before that.
const MaxEnviron = 256 << 10

// KeepEnv moves the NAME=value pairs whose name is allowed to the front of b, an
// environment, and returns them: [SplitArgs] takes them apart. A process that writes
// over its environment can have anything there; what has no allowed name is left
// out.
func KeepEnv(b []byte, allowed map[string]struct{}) []byte {
	kept := b[:0]
	for rest := b; len(rest) > 0; {
		size := len(rest)
		if end := bytes.IndexByte(rest, 0); end >= 0 {
			size = end + 1
		}
		pair := rest[:size]
		rest = rest[size:]
		equals := bytes.IndexByte(pair, '=')
		if equals < 0 {
			continue
		}
		if _, ok := allowed[string(pair[:equals])]; ok {
			kept = append(kept, pair...)
		}
	}
	return kept
}
