package bus

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestJudge(t *testing.T) {
	type want struct {
		verdict verdict
		text    string
	}
	failure := func(code int, text string) string {
		return fmt.Sprintf(`{"error":{"code":503,"err_code":%d,"description":%q},"stream":"PROCESS_EVENTS","seq":0}`, code, text)
	}
	for data, want := range map[string]want{
		`{"stream":"PROCESS_EVENTS","seq":7,"batch":"b","count":2}`:     {stored, ""},
		`{"stream":"PROCESS_EVENTS","seq":7,"batch":"other","count":2}`: {unknown, "makes no sense"},
		`{"stream":"PROCESS_EVENTS","seq":7,"batch":"b","count":1}`:     {unknown, "makes no sense"},
		`{"stream":"PROCESS_EVENTS","seq":7}`:                           {unknown, "makes no sense"},
		`{"stream":"PROCESS_EVENTS","seq":0,"batch":"b","count":2}`:     {unknown, "makes no sense"},
		`{"stream":"ANOTHER","seq":7,"batch":"b","count":2}`:            {unknown, "makes no sense"},
		`{}`: {unknown, "makes no sense"}, ``: {unknown, "makes no sense"}, `[]`: {unknown, "makes no sense"},
		failure(10077, "maximum bytes exceeded"):                {full, "maximum bytes exceeded (10077)"},
		failure(10077, "maximum messages exceeded"):             {full, "10077"},
		failure(10077, "maximum messages per subject exceeded"): {full, "10077"},
		failure(10077, "write: no space left on device"):        {failing, "no space left"},
		failure(10002, "resource limits exceeded for account"):  {full, "10002"},
		failure(10023, "insufficient resources"):                {full, "10023"},
		failure(10047, "insufficient storage"):                  {full, "10047"},
		failure(10054, "message size exceeds maximum allowed"):  {refused, "10054"},
		failure(10167, "too many requests"):                     {unknown, "10167"},
		failure(10210, "atomic publish too many inflight"):      {unknown, "10210"},
		failure(10176, "atomic publish batch is incomplete"):    {unknown, "10176"},
		failure(10174, "atomic publish is disabled"):            {unknown, "10174"},
		failure(10199, "atomic publish batch is too large: 50"): {tooMany, "10199"},
		failure(10201, "contains duplicate message id"):         {duplicate, "10201"},
	} {
		o := judgeBatch(&nats.Msg{Data: []byte(data)}, "b", 2)
		if o.verdict != want.verdict || (o.err == nil) != (want.text == "") || (o.err != nil && !strings.Contains(o.err.Error(), want.text)) {
			t.Errorf("%s: %d %v", data, o.verdict, o.err)
		}
	}
	if o, bad := judgeStaged(&nats.Msg{}); bad {
		t.Errorf("%+v", o)
	}
	if o, bad := judgeStaged(&nats.Msg{Data: []byte(failure(10002, "x"))}); !bad || o.verdict != full {
		t.Errorf("%+v", o)
	}
}
