package main

import (
	"strings"
	"testing"

	"github.com/sharder/sharder/conf"
)

// Whatever bytes --namespace has, the configuration has the same; what can't be one is
// refused by the flag's name.
func TestTheNamespaceOfGRPCProxyIsThatOfTheFile(t *testing.T) {
	for _, c := range []struct {
		flags      []string
		code       int
		want, text string
	}{
		{[]string{"--namespace", "tenant/"}, 0, "tenant/", `namespace = "tenant/"`},
		{[]string{"--namespace", "hex:61"}, 0, "hex:61", `namespace = "hex:6865783a3631"`},
		{[]string{"--namespace", "\xff\xfe"}, 0, "\xff\xfe", `namespace = "hex:fffe"`},
		{[]string{"--namespace", "a\x00b"}, 0, "a\x00b", `namespace = "hex:610062"`},
		{[]string{"--namespace", ""}, 0, "", "endpoints"},
		{[]string{"--namespace", "\x00a"}, exitMisused, "", "--namespace: "},
		{[]string{"--namespace", "tenant/", "--advertise-client-url", ""}, exitMisused, "", "leave sharder, and with it the namespace"},
	} {
		var stdout, stderr strings.Builder
		args := append([]string{"grpc-proxy", "start", "--print-config"}, c.flags...)
		if code := run(args, &stdout, &stderr); code != c.code || !strings.Contains(stdout.String()+stderr.String(), c.text) {
			t.Errorf("%q: exit %d, %s%s", args, code, stdout.String(), stderr.String())
			continue
		}
		if c.code != 0 {
			continue
		}
		cfg, err := conf.Parse("printed.toml", []byte(stdout.String()))
		if err != nil || string(cfg.Namespace) != c.want {
			t.Errorf("%q: the namespace is %q, %v", args, cfg.Namespace, err)
		}
	}
}
