package conf

import "testing"

func TestTheSchemeOfAnAddressDecidesWhetherItIsTLS(t *testing.T) {
	const listen = `listen = [":1", "http://h:2/", "unix:///s", "unix://localhost:3"]` + "\n"
	const shard = `shards.a.endpoints = ["10.0.0.1:2379"]`
	plain := []Listener{{"tcp", ":1", false}, {"tcp", "h:2", false}, {"unix", "/s", false}, {"unix", "localhost:3", false}}
	equal(t, parse(t, listen+shard).Listeners(), plain)
	plain[0].TLS = true
	equal(t, parse(t, listen+"tls.auto = true\n"+shard).Listeners(), plain)
	equal(t, parse(t, `listen = ["HTTPS://h:2", "unixs:///s"]`+"\ntls.auto = true\n"+shard).Listeners(),
		[]Listener{{"tcp", "h:2", true}, {"unix", "/s", true}})
}

func TestTheSchemeOfMetricsDecidesWhetherItIsTLS(t *testing.T) {
	const shard = `shards.a.endpoints = ["10.0.0.1:2379"]`
	for text, want := range map[string]Listener{
		":1": {"tcp", ":1", false}, "http://h:2/": {"tcp", "h:2", false}, "HTTPS://h:2": {"tcp", "h:2", true},
		"unix:///s": {"unix", "/s", false}, "unixs://localhost:3": {"unix", "localhost:3", true},
	} {
		have, ok := parse(t, "metrics = \""+text+"\"\ntls.auto = true\n"+shard).Operators()
		if !ok {
			t.Errorf("%q is none", text)
		}
		equal(t, have, want)
	}
	if l, ok := parse(t, shard).Operators(); ok {
		t.Errorf("without metrics there is %v", l)
	}
}
