package collect

import (
	"math"
	"strconv"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// minMemoryChange is what a change of the resident memory must reach to be
// reported, whatever the percentage: small processes breathe.
const minMemoryChange = 4 << 20

// memoryMoved reports whether the resident memory changed by percent of old, and
// by at least minMemoryChange.
func memoryMoved(old, now uint64, percent float64) bool {
	change := max(old, now) - min(old, now)
	return change >= minMemoryChange && float64(change) >= float64(old)*percent/100
}

// cpuMoved reports whether the CPU usage changed by that many points.
func cpuMoved(old, now, threshold float64) bool { return math.Abs(now-old) >= threshold }

// points is a CPU time in points of one core: 100 is a core in full.
func points(used, elapsed time.Duration) float64 {
	return max(0, float64(used)/float64(elapsed)*100)
}

// readsMemory and readsCPU say that the values compared were really read.
func readsMemory(e *entry, o *Observation) bool { return reads(e, o, event.FieldRSS) }

func readsCPU(e *entry, o *Observation) bool { return reads(e, o, event.FieldCPU) }

func reads(e *entry, o *Observation, f event.Field) bool {
	if o.Process != nil {
		return !o.Process.Missing.Absent().Has(f)
	}
	return !e.process.Missing.Absent().Has(f)
}

func memoryText(bytes uint64) string { return strconv.FormatUint(bytes, 10) }

func cpuText(points float64) string { return strconv.FormatFloat(points, 'f', 1, 64) + "%" }
