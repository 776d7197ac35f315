package control

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daemoneye.dev/procmond/collect/event"
)

// TestQueryRoundTrip: what a client asks is what the server reads, also where a
// value looks like none.
func TestQueryRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 39, 0, 0, time.UTC)
	for _, want := range []Query{
		{},
		{Exe: "0", PIDs: []int32{0}},
		{Since: at, Until: at.Add(time.Nanosecond), After: 7, AfterEpoch: event.Epoch{1}, Process: event.ID{2}, Exe: "/bin/*"},
		{Kinds: []event.Kind{event.KindStart, event.KindStop}, Limit: 20_000, Newest: true, Follow: true},
	} {
		got, err := ParseQuery(want.Values())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v: (-want +got)\n%s", err, diff)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	for key, value := range map[string]string{
		"exe": "[", "process": strings.Repeat("0", 32), "pid": "-1", "after_epoch": strings.Repeat("0", 32), "limit": "-1",
	} {
		if _, err := ParseQuery(url.Values{key: {value}}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
}

func httpAnswer(status int, problem string) *http.Response {
	recorder := httptest.NewRecorder()
	writeJSON(recorder, status, struct {
		Error string `json:"error"`
	}{problem})
	return recorder.Result()
}

// TestRefusalsSayThingsOnce: the daemon's text may begin with the error that the
// client makes of its status.
func TestRefusalsSayThingsOnce(t *testing.T) {
	for said, want := range map[string]string{
		"store has another epoch: it is 1, not 2": "store has another epoch: it is 1, not 2",
		"it is 1": "store has another epoch: it is 1",
	} {
		response := httpAnswer(http.StatusConflict, said)
		err := refusal(response)
		_ = response.Body.Close()
		if err.Error() != want {
			t.Errorf("%q becomes %q, want %q", said, err, want)
		}
	}
}
