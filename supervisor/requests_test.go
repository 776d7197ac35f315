package supervisor

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/bus/rpc"
)

func TestValuesOfUpdates(t *testing.T) {
	raw := func(pairs ...string) map[string]json.RawMessage {
		m := map[string]json.RawMessage{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = json.RawMessage(pairs[i+1])
		}
		return m
	}
	got, err := texts(raw("a", `"30s"`, "b", `12.5`, "c", `true`, "d", `""`))
	if diff := cmp.Diff(map[string]string{"a": "30s", "b": "12.5", "c": "true", "d": ""}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	_, err = texts(raw("ok", `1`, "list", `[1]`, "none", `null`, "object", `{"a":1}`))
	var refused *rpc.Error
	if !errors.As(err, &refused) || refused.Code != rpc.CodeInvalid || len(refused.Details) != 3 {
		t.Errorf("%+v", err)
	}
	if _, err := texts(nil); !errors.As(err, &refused) {
		t.Error("an update without values is accepted")
	}
}
