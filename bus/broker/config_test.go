package broker

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	if err := config(t).Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Socket: "rel", Store: "", Group: -2, AllowUIDs: []int{-1}, Listen: "0.0.0.0:4222", TLSKey: "k",
		MaxBytes: -1, MaxAge: time.Minute, Duplicates: time.Hour,
	}
	err := bad.Validate()
	for _, want := range []string{"socket", "store", "group", "allowed user", "TLS: want", "is not loopback", "maximum size", "duplicate window", "log is missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := New(bad); err == nil {
		t.Error("made a broker of it")
	}
}

func TestValidateListen(t *testing.T) {
	for listen, fine := range map[string]bool{
		"": true, "127.0.0.1:4222": true, "[::1]:4222": true, "localhost:0": true,
		":4222": false, "0.0.0.0:4222": false, "10.0.0.1:4222": false, "example.com:4222": false, "nonsense": false, "[::]:1": false,
	} {
		cfg := config(t)
		cfg.Listen = listen
		if err := cfg.Validate(); (err == nil) != fine {
			t.Errorf("%q: %v", listen, err)
		}
		cfg.TLSCert, cfg.TLSKey = "c", "k"
		if err := cfg.Validate(); (err == nil) != (listen != "nonsense") {
			t.Errorf("%q with TLS: %v", listen, err)
		}
	}
}
