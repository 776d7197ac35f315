package event

import "time"

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

// The tags of event.proto: field number and wire type, as they stand in the
// bytes. A test compares the code with what protoc makes of the schema.
const (
	tagEventSeq       = 1<<3 | wireVarint
	tagEventEpoch     = 2<<3 | wireBytes
	tagEventKind      = 3<<3 | wireVarint
	tagEventSource    = 4<<3 | wireVarint
	tagEventTime      = 5<<3 | wireFixed64
	tagEventObserved  = 6<<3 | wireFixed64
	tagEventNotBefore = 7<<3 | wireFixed64
	tagEventBootTime  = 8<<3 | wireVarint
	tagEventHostID    = 9<<3 | wireBytes
	tagEventBootID    = 10<<3 | wireBytes
	tagEventCause     = 11<<3 | wireBytes
	tagEventProcess   = 12<<3 | wireBytes
	tagEventExit      = 13<<3 | wireBytes
	tagEventChanges   = 14<<3 | wireBytes
	tagEventLoss      = 15<<3 | wireBytes
	tagEventSensor    = 16<<3 | wireBytes

	tagProcessID           = 1<<3 | wireBytes
	tagProcessParentID     = 2<<3 | wireBytes
	tagProcessPID          = 3<<3 | wireVarint
	tagProcessPPID         = 4<<3 | wireVarint
	tagProcessName         = 5<<3 | wireBytes
	tagProcessExe          = 6<<3 | wireBytes
	tagProcessExeDeleted   = 7<<3 | wireVarint
	tagProcessArgs         = 8<<3 | wireBytes
	tagProcessCWD          = 9<<3 | wireBytes
	tagProcessUID          = 10<<3 | wireVarint
	tagProcessGID          = 11<<3 | wireVarint
	tagProcessEUID         = 12<<3 | wireVarint
	tagProcessEGID         = 13<<3 | wireVarint
	tagProcessStartTicks   = 14<<3 | wireVarint
	tagProcessStartTime    = 15<<3 | wireFixed64
	tagProcessLoginUID     = 16<<3 | wireVarint
	tagProcessSession      = 17<<3 | wireVarint
	tagProcessTTY          = 18<<3 | wireVarint
	tagProcessCapEffective = 19<<3 | wireVarint
	tagProcessGeneration   = 20<<3 | wireVarint
	tagProcessCgroup       = 21<<3 | wireBytes
	tagProcessContainerID  = 22<<3 | wireBytes
	tagProcessNamespaces   = 23<<3 | wireBytes
	tagProcessEnv          = 24<<3 | wireBytes
	tagProcessState        = 25<<3 | wireVarint
	tagProcessThreads      = 26<<3 | wireVarint
	tagProcessRSS          = 27<<3 | wireVarint
	tagProcessCPU          = 28<<3 | wireVarint
	tagProcessHash         = 29<<3 | wireBytes
	tagProcessMissing      = 30<<3 | wireBytes
	tagProcessRSSKind      = 31<<3 | wireVarint
	tagProcessLoginSession = 32<<3 | wireVarint

	tagNamespaceType  = 1<<3 | wireBytes
	tagNamespaceInode = 2<<3 | wireVarint

	tagHashAlgorithm = 1<<3 | wireBytes
	tagHashValue     = 2<<3 | wireBytes
	tagHashStatus    = 3<<3 | wireVarint
	tagHashReason    = 4<<3 | wireBytes

	tagMaskGone        = 1<<3 | wireVarint
	tagMaskDenied      = 2<<3 | wireVarint
	tagMaskUnsupported = 3<<3 | wireVarint
	tagMaskFailed      = 4<<3 | wireVarint
	tagMaskTruncated   = 5<<3 | wireVarint
	tagMaskInherited   = 6<<3 | wireVarint

	tagExitCode   = 1<<3 | wireVarint
	tagExitSignal = 2<<3 | wireVarint
	tagExitCore   = 3<<3 | wireVarint
	tagExitCPU    = 4<<3 | wireVarint
	tagExitMaxRSS = 5<<3 | wireVarint

	tagChangeField = 1<<3 | wireVarint
	tagChangeOld   = 2<<3 | wireBytes
	tagChangeNew   = 3<<3 | wireBytes

	tagLossCause   = 1<<3 | wireVarint
	tagLossFrom    = 2<<3 | wireFixed64
	tagLossTo      = 3<<3 | wireFixed64
	tagLossFromSeq = 4<<3 | wireVarint
	tagLossToSeq   = 5<<3 | wireVarint
	tagLossCount   = 6<<3 | wireVarint
	tagLossKnown   = 7<<3 | wireVarint
	tagLossHint    = 8<<3 | wireBytes

	tagSensorWhat          = 1<<3 | wireVarint
	tagSensorDetail        = 2<<3 | wireBytes
	tagSensorVersion       = 3<<3 | wireBytes
	tagSensorPreviousEpoch = 4<<3 | wireBytes
	tagSensorPreviousSeq   = 5<<3 | wireVarint
)

// nanos is t on the wire. 0 stands for no time: the zero time, and also what
// does not fit (before 1677 or after 2262) and the first nanosecond of 1970,
// none of which a process can have.
func nanos(t time.Time) int64 {
	const fits = 9_000_000_000 // seconds, some less than fit
	n := t.UnixNano()
	if s := t.Unix(); (s < -fits || s > fits) && !time.Unix(0, n).Equal(t) {
		return 0 // it overflowed
	}
	return n
}

// fromNanos is the inverse of [nanos], in UTC.
func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
