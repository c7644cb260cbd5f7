//go:build unix

package main

var (
	onBoth    = []string{"sharder", "etcd"}
	onSharder = []string{"sharder"}
	onEtcd    = []string{"etcd"}
)

const oneStream = "counts in etcd's metrics that each watch, one after the other, has a stream of its own there; sharder's goes on for the next"

// theSuite is what is known of etcd's tests. What is not sharder's doing is so on both
// proxies: `-proxy etcd` checks that.
var theSuite = known{
	failures: []failure{
		{test: "common.TestAuthority", on: onBoth, why: "wants the port of the proxy in etcd's log, where etcd's own is"},
		{test: "e2e.TestGrpcproxyAndCommonName", on: onSharder, hangs: true,
			why: "waits for a refusal of --cert with a name in it; sharder takes it, since it lends nobody the rights of that name"},
		{test: "e2e.TestV3MetricsSecure", on: onSharder, why: oneStream},
		{test: "e2e.TestV3MetricsInsecure", on: onSharder, why: oneStream},
	},
	skips: []skip{
		{`etcd-last-release" does not exist`, onBoth, "an upgrade from another version, which is not built here"},
		{"gofail-enable", onBoth, "an etcd with points to fail at, which is not built here"},
		{"Skipping test for single-member cluster", onBoth, "a case of a matrix that has no meaning"},
		{"options not supported by RangeStream", onBoth, "a case of a matrix that has no meaning"},
		{"maintenance_auth_test.go:", onBoth, "not written yet, etcd's suite says"},
		{"RangeStream is not supported by this cluster", onEtcd, "grpc-proxy has no RangeStream; sharder has"},
	},
}
