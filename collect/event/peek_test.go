package event

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestPeekKind(t *testing.T) {
	for kind := KindUnknown; kind <= KindSensor; kind++ {
		e := Event{Seq: 1<<64 - 1, Epoch: NewEpoch(), Kind: kind, HostID: "h", Cause: "boot"}
		if got, err := PeekKind(Append(nil, &e)); err != nil || got != kind {
			t.Errorf("%v: %v %v", kind, got, err)
		}
		if got, observed, err := PeekObserved(Append(nil, &e)); err != nil || got != kind || !observed.IsZero() {
			t.Errorf("%v: %v %v %v", kind, got, observed, err)
		}
		e.Time, e.Observed, e.NotBefore = time.Unix(1, 1), time.Unix(2, 2), time.Unix(3, 3)
		if got, observed, err := PeekObserved(Append(nil, &e)); err != nil || got != kind || !observed.Equal(e.Observed) {
			t.Errorf("%v: %v %v %v", kind, got, observed, err)
		}
	}
}

func TestPeekKindOfLaterVersion(t *testing.T) {
	b := protowire.AppendTag(nil, 900, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte("a field that is not known"))
	for _, number := range []uint64{7, 255, 256 + 1, 1<<64 - 1} {
		encoded := protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), number)
		if got, err := PeekKind(encoded); err != nil || got != KindUnknown {
			t.Errorf("%d: %v %v", number, got, err)
		}
	}
}

func TestPeekKindOfNonsense(t *testing.T) {
	for _, encoded := range [][]byte{{0xff}, {0x12, 0x7f}, {0x00}, []byte("{\"kind\":1}")} {
		if kind, err := PeekKind(encoded); !errors.Is(err, ErrMalformed) || kind != KindUnknown {
			t.Errorf("%x: %v %v", encoded, kind, err)
		}
		if kind, _, err := PeekObserved(encoded); !errors.Is(err, ErrMalformed) || kind != KindUnknown {
			t.Errorf("%x: %v %v", encoded, kind, err)
		}
	}
	if kind, err := PeekKind(nil); err != nil || kind != KindUnknown {
		t.Error(kind, err)
	}
}
