// Package kubernetes runs the storage tests of Kubernetes itself
// (k8s.io/apiserver/pkg/storage/testing) against sharder. They are the tests that
// kube-apiserver's etcd3 store, and the watch cache above it, have to pass with etcd;
// here the etcd is sharder over three shards, with the keys of one resource split over
// all of them, by ranges and by hash. A plain etcd passes the same tests in the same
// run: what fails with sharder alone is sharder's fault.
//
// It is a module of its own, so that no dependency of Kubernetes is one of sharder.
// docs/kubernetes.md says which tests run, which do not, and why.
package kubernetes
