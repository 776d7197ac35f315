package rpc

import (
	"strings"
	"testing"

	"daemoneye.dev/procmond/collect/event"
)

func TestValidID(t *testing.T) {
	for _, id := range []string{"a", "procmond", "web-1_B", strings.Repeat("x", 64)} {
		if err := ValidID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", "a.b", "a b", "*", ">", "../x", "é", "lifecycle", "registration", strings.Repeat("x", 65), "a\n"} {
		if ValidID(id) == nil {
			t.Errorf("%q is no id", id)
		}
	}
}

func TestReaderIsNoCollector(t *testing.T) {
	if ValidID(ReaderUser("siem")) == nil || ValidID(UserOperator) == nil {
		t.Error("a reader's or the operator's user name passes for an id")
	}
	if name, ok := ReaderOf(ReaderUser("siem")); !ok || name != "siem" {
		t.Errorf("reader %q %v", name, ok)
	}
	for _, user := range []string{"siem", ".reader", "a.b.reader", UserOperator} {
		if _, ok := ReaderOf(user); ok {
			t.Errorf("%q is no reader", user)
		}
	}
	users := []string{ReaderUser("siem"), "siem", "siem-reader", "operator", "reader", UserOperator}
	for i, a := range users {
		for _, b := range users[i+1:] {
			if InboxPrefix(a) == InboxPrefix(b) {
				t.Errorf("%s and %s share an inbox", a, b)
			}
		}
	}
}

func TestMsgID(t *testing.T) {
	epoch := event.NewEpoch()
	for _, seq := range []uint64{1, 10, 1<<64 - 1} {
		e, n, err := ParseMsgID(MsgID(epoch, seq))
		if err != nil || e != epoch || n != seq {
			t.Errorf("%d: %v %d %v", seq, e, n, err)
		}
	}
	for _, id := range []string{"", "x", epoch.String(), epoch.String() + ".", epoch.String() + ".0", epoch.String() + ".01", epoch.String() + ".-1", "zz.1", epoch.String() + ".1.2"} {
		if _, _, err := ParseMsgID(id); err == nil {
			t.Errorf("%q is no message id", id)
		}
	}
}
