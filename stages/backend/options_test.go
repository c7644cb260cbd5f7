package backend

import (
	"crypto/tls"
	"strings"
	"testing"
)

func TestEndpointsThatMakeNoSenseAreRefusedByName(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "not host:port",
		"localhost":               "2379",
		"localhost:0":             "1 to 65535",
		"localhost:http":          "1 to 65535",
		":2379":                   "not host:port",
		"ftp://localhost:1":       `scheme "ftp" is unknown`,
		"unix://":                 "no path of a socket",
		"http://localhost:1/x":    "only a scheme, a host and a port",
		"https://u:p@localhost:1": "only a scheme, a host and a port",
		"http://local host:1":     "invalid character",
	} {
		_, err := Open(Options{Name: "a", Endpoints: []string{text}})
		if err == nil || !strings.HasPrefix(err.Error(), "sharder: shard a: endpoint ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, eps := range [][]string{nil, {"a:1", "http://a:1"}, make([]string, 65)} {
		if _, err := Open(Options{Name: "a", Endpoints: eps}); err == nil {
			t.Errorf("%d endpoints are taken", len(eps))
		}
	}
}

func TestTheSchemeAndTheTLSSettingsDecideTogether(t *testing.T) {
	for _, c := range []struct {
		text string
		conf *tls.Config
		want string // the security protocol, "" for an error
	}{
		{"h:1", nil, "insecure"},
		{"http://h:1", nil, "insecure"},
		{"https://h:1/", nil, "tls"},
		{"h:1", &tls.Config{}, "tls"},
		{"https://[::1]:1", &tls.Config{}, "tls"},
		{"http://h:1", &tls.Config{}, ""},
		{"unix:///run/etcd.sock", nil, "insecure"},
		{"unixs:///run/etcd.sock", nil, "tls"},
		{"unixs://localhost:2379", &tls.Config{}, "tls"},
		{"unix:///run/etcd.sock", &tls.Config{}, ""},
	} {
		e, err := parseEndpoint(c.text, c.conf)
		if got := ""; err == nil {
			if got = e.creds.Info().SecurityProtocol; got != c.want {
				t.Errorf("%s: %s", c.text, got)
			}
		} else if c.want != "" {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}
